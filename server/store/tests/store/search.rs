//! Search: what each kind of filter finds, for whom, in what order, page by page.

use handoff_domain::ports::{Filter, Found, Kind, Search, SearchIndex, Sort, Subject, Visibility};
use handoff_domain::task::{Task, TaskStatus};
use handoff_domain::{TenantId, Timestamp};

use crate::rig::{
    Rig, actor, after, body, document, document_id, grant, index, insert_task, next, on_both, task, task_id,
    update_task,
};

pub fn all(kind: Kind) -> Search {
    Search {
        kind,
        filters: vec![],
        visibility: Visibility::Tenant,
        sort: Sort::NewestFirst,
        limit: 100,
        after: None,
        total: false,
    }
}

pub fn for_code(code: &str) -> Search {
    by(token("code", &[(None, Some(code))], false))
}

fn by(filter: Filter) -> Search {
    Search {
        filters: vec![filter],
        ..all(Kind::Task)
    }
}

fn token(name: &str, any_of: &[(Option<&str>, Option<&str>)], negated: bool) -> Filter {
    let any_of = any_of
        .iter()
        .map(|(s, c)| (s.map(str::to_owned), c.map(str::to_owned)))
        .collect();
    Filter::Token {
        name: name.to_owned(),
        any_of,
        negated,
    }
}

fn reference(name: &str, any_of: &[&str]) -> Filter {
    Filter::Reference {
        name: name.to_owned(),
        any_of: any_of.iter().map(|t| (*t).to_owned()).collect(),
    }
}

fn date(from: Timestamp, until: Timestamp) -> Filter {
    Filter::Date {
        name: "period".to_owned(),
        any_of: vec![(from, until)],
    }
}

fn text(any_of: &[&str], exact: bool) -> Filter {
    Filter::Text {
        name: "title".to_owned(),
        any_of: any_of.iter().map(|t| (*t).to_owned()).collect(),
        exact,
    }
}

fn missing(name: &str, missing: bool) -> Filter {
    Filter::Missing {
        name: name.to_owned(),
        missing,
    }
}

fn seen_by(who: &str, teams: &[&str], search: Search) -> Search {
    let visibility = Visibility::Actor {
        actor: actor(who),
        teams: teams.iter().map(|t| (*t).to_owned()).collect(),
        created: true,
    };
    Search { visibility, ..search }
}

async fn find(rig: &Rig, search: Search) -> Found {
    let tenant = rig.tenant.clone();
    rig.read(move |read| read.search(&tenant, &search)).await
}

async fn ids(rig: &Rig, search: Search) -> Vec<String> {
    find(rig, search)
        .await
        .resources
        .into_iter()
        .map(|(id, ..)| id)
        .collect()
}

/// Four Tasks, `t1` the oldest: lane's ready, lane's completed, otis's ready, and one for a team.
///
/// Answers them as a search sees them, without the one that was deleted.
async fn fill(rig: &Rig) -> Vec<(String, Timestamp, SearchIndex)> {
    let tenant = rig.tenant.clone();
    let kept = rig.write(move |tx| {
        let at = |id: &str, seconds| Task {
            last_updated: after(seconds),
            ..task(id)
        };
        let mut done = at("t2", 2);
        done.facts.status = TaskStatus::Completed;
        done.facts.code.clear();
        let mut other = at("t3", 3);
        other.facts.owner = Some("Practitioner/otis".to_owned());
        other.facts.subject = Some("Patient/ben".to_owned());
        other.facts.recipients = vec!["Practitioner/clerk".to_owned()];
        other.former_owners = vec![actor("Practitioner/former")];
        other.facts.performer_types.clear();
        let mut team = at("t4", 3);
        team.facts.owner = Some("https://other.example/Practitioner/lane".to_owned());
        team.created_by = actor("Organization/else");
        team.facts.requester = None;
        let first = at("t1", 1);
        let mut rich = index(&first);
        rich.tokens
            .push(("identifier".to_owned(), String::new(), "n-1".to_owned()));
        rich.tokens
            .push(("identifier".to_owned(), String::new(), "n-1".to_owned()));
        rich.dates.push(("period".to_owned(), after(100), after(200)));
        rich.strings
            .push(("title".to_owned(), "referral letter".to_owned()));
        rich.strings
            .push(("title".to_owned(), "100%_\u{e4}rger".to_owned()));
        tx.insert_task(&tenant, &first, &body("t1"), &rich)?;
        let mut kept = vec![("t1".to_owned(), first.last_updated, rich)];
        for one in [done, other, team] {
            insert_task(tx, &tenant, &one)?;
            kept.push((one.id.to_string(), one.last_updated, index(&one)));
        }
        let mut gone = at("gone", 9);
        insert_task(tx, &tenant, &gone)?;
        gone = next(&gone, after(10));
        gone.deleted = true;
        tx.update_task(&tenant, &gone, &[], None)?;
        insert_task(tx, &TenantId::parse("other").unwrap(), &at("elsewhere", 1))?;
        Ok(kept)
    });
    kept.await.unwrap()
}

on_both! {
    async fn each_kind_of_filter_finds_what_it_should(rig: Arc<Rig>) {
        let kept = fill(&rig).await;
        let status = Some("http://hl7.org/fhir/task-status");
        let cases: Vec<(Filter, &[&str])> = vec![
            (Filter::Id(vec!["t1".to_owned(), "t3".to_owned(), "gone".to_owned()]), &["t3", "t1"]),
            (Filter::LastUpdated(vec![(after(1), after(3))]), &["t2", "t1"]),
            (Filter::LastUpdated(vec![(after(1), after(2)), (after(3), after(4))]), &["t4", "t3", "t1"]),
            (token("status", &[(None, Some("ready"))], false), &["t4", "t3", "t1"]),
            (token("status", &[(None, Some("ready")), (None, Some("completed"))], false), &["t4", "t3", "t2", "t1"]),
            (token("status", &[(None, Some("ready"))], true), &["t2"]),
            (token("status", &[(status, Some("completed"))], false), &["t2"]),
            (token("status", &[(Some("urn:x"), Some("completed"))], false), &[]),
            (token("code", &[(None, Some("18842-5"))], false), &["t4", "t3", "t1"]),
            (token("code", &[(Some("http://loinc.org"), None)], false), &["t4", "t3", "t1"]),
            (token("code", &[(Some(""), Some("18842-5"))], false), &[]),
            (token("code", &[(None, Some("18842-5"))], true), &["t2"]),
            (token("identifier", &[(Some(""), Some("n-1"))], false), &["t1"]),
            (token("identifier", &[(None, None)], false), &["t1"]),
            (token("identifier", &[], false), &[]),
            (reference("owner", &["Practitioner/lane"]), &["t2", "t1"]),
            (reference("owner", &["*/lane"]), &["t2", "t1"]),
            (reference("owner", &["Practitioner/otis", "*/lane"]), &["t3", "t2", "t1"]),
            (reference("owner", &["https://other.example/Practitioner/lane"]), &["t4"]),
            (reference("patient", &["Patient/ben"]), &["t3"]),
            (reference("requester", &["Organization/referring-clinic"]), &["t3", "t2", "t1"]),
            (reference("requester", &["Practitioner/referring-clinic"]), &[]),
            (date(after(0), after(100)), &[]),
            (date(after(0), after(101)), &["t1"]),
            (date(after(200), after(300)), &["t1"]),
            (date(after(201), after(300)), &[]),
            (text(&["ref"], false), &["t1"]),
            (text(&["100%"], false), &["t1"]),
            (text(&["100__"], false), &[]),
            (text(&["ref"], true), &[]),
            (text(&["x", "referral letter"], true), &["t1"]),
            (missing("code", true), &["t2"]),
            (missing("period", false), &["t1"]),
            (missing("requester", true), &["t4"]),
            (Filter::AnyOf(Vec::new()), &[]),
            (
                Filter::AnyOf(vec![
                    vec![reference("patient", &["Patient/ben"])],
                    vec![reference("owner", &["*/lane"]), token("status", &[(None, Some("ready"))], false)],
                ]),
                &["t3", "t1"],
            ),
        ];
        for (filter, expected) in cases {
            let search = Search { total: true, ..by(filter.clone()) };
            let found = find(&rig, search).await;
            let ids: Vec<_> = found.resources.iter().map(|(id, ..)| id.as_str()).collect();
            assert_eq!(ids, expected, "{filter:?}");
            assert_eq!(found.total, Some(expected.len() as u64), "{filter:?}");
            // Held against the resources in hand it comes to the same.
            let mut held: Vec<&str> = Vec::new();
            for (id, last_updated, index) in &kept {
                if filter.holds(Subject { id, last_updated: *last_updated, index }) {
                    held.push(id);
                }
            }
            let mut found: Vec<&str> = expected.to_vec();
            found.sort_unstable();
            assert_eq!(held, found, "{filter:?}");
        }
        let both = vec![reference("owner", &["Practitioner/lane"]), token("status", &[(None, Some("ready"))], false)];
        assert_eq!(ids(&rig, Search { filters: both, ..all(Kind::Task) }).await, ["t1"]);
    }

    async fn everybody_finds_only_what_they_may_see(rig: Arc<Rig>) {
        fill(&rig).await;
        let tasks = || all(Kind::Task);
        let cases: Vec<(&str, &[&str], &[&str])> = vec![
            ("Practitioner/lane", &[], &["t2", "t1"]),
            ("Practitioner/otis", &[], &["t3"]),
            ("Practitioner/clerk", &[], &["t3"]),
            ("Practitioner/former", &[], &[]),
            ("Practitioner/nobody", &[], &[]),
            ("Practitioner/nobody", &["oncology", "cardiology"], &["t4", "t2", "t1"]),
            ("Organization/referring-clinic", &[], &["t3", "t2", "t1"]),
            ("Organization/else", &[], &["t4"]),
        ];
        for (who, teams, expected) in cases {
            let found = find(&rig, seen_by(who, teams, Search { total: true, ..tasks() })).await;
            let ids: Vec<_> = found.resources.iter().map(|(id, ..)| id.as_str()).collect();
            assert_eq!(ids, expected, "{who}");
            assert_eq!(found.total, Some(expected.len() as u64), "{who}");
        }
        let lanes = reference("owner", &["Practitioner/lane"]);
        assert_eq!(ids(&rig, seen_by("Practitioner/lane", &[], by(lanes.clone()))).await, ["t2", "t1"]);
        assert_eq!(ids(&rig, seen_by("Practitioner/otis", &[], by(lanes))).await, [""; 0]);
        let otis = reference("owner", &["Practitioner/lane", "Practitioner/otis"]);
        assert_eq!(ids(&rig, seen_by("Practitioner/lane", &[], by(otis))).await, ["t2", "t1"]);
    }

    async fn a_document_is_seen_through_the_tasks_that_release_it(rig: Arc<Rig>) {
        fill(&rig).await;
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            for id in ["d1", "d2"] {
                let mut index = SearchIndex::default();
                index.references.push(("subject".to_owned(), "Patient/ada".to_owned()));
                index.tokens.push(("status".to_owned(), "x".to_owned(), "current".to_owned()));
                tx.insert_document(&tenant, &document(id), &body(id), &index)?;
            }
            Ok(())
        }).await.unwrap();
        let documents = || all(Kind::Document);
        assert_eq!(ids(&rig, documents()).await, ["d2", "d1"]);
        assert_eq!(ids(&rig, seen_by("Practitioner/otis", &[], documents())).await, ["d1"]);
        assert_eq!(ids(&rig, seen_by("Practitioner/nobody", &[], documents())).await, [""; 0]);
        assert_eq!(ids(&rig, seen_by("Practitioner/nobody", &["cardiology"], documents())).await, ["d1"]);
        assert_eq!(ids(&rig, seen_by("Organization/referring-clinic", &[], documents())).await, ["d2", "d1"]);
        let ada = Search {
            filters: vec![reference("patient", &["Patient/ada"]), token("status", &[(None, Some("current"))], false)],
            ..documents()
        };
        assert_eq!(ids(&rig, ada).await, ["d2", "d1"]);
        let mut changed = document("d1");
        changed.version = 2;
        changed.deleted = true;
        let tenant = rig.tenant.clone();
        rig.write(move |tx| tx.update_document(&tenant, &changed, &[], None)).await.unwrap();
        assert_eq!(ids(&rig, documents()).await, ["d2"]);
        let tenant = rig.tenant.clone();
        assert!(rig.read(move |read| read.document(&tenant, &document_id("d1"))).await.unwrap().deleted);
    }

    async fn pages_follow_each_other_without_gap_or_overlap(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            (0..25).try_for_each(|n| {
                // Many of the same instant.
                let one = Task { last_updated: after(n / 10), ..task(&format!("t{n:02}")) };
                insert_task(tx, &tenant, &one)
            })
        }).await.unwrap();
        for sort in [Sort::NewestFirst, Sort::OldestFirst, Sort::ById] {
            let mut found = Vec::new();
            let mut after = None;
            loop {
                let search = Search { sort, limit: 7, after: after.clone(), total: true, ..all(Kind::Task) };
                let page = find(&rig, search).await;
                assert_eq!(page.total, Some(25));
                assert!(page.resources.iter().all(|(id, _, bytes)| *bytes == body(id)));
                after = page.resources.last().map(|(id, at, _)| (*at, id.clone()));
                found.extend(page.resources.into_iter().map(|(id, ..)| id));
                if !page.more {
                    break;
                }
            }
            let mut expected: Vec<String> = (0..25).map(|n| format!("t{n:02}")).collect();
            if sort == Sort::NewestFirst {
                expected.reverse();
            }
            assert_eq!(found, expected, "{sort:?}");
        }
        let count = find(&rig, Search { limit: 0, total: true, ..all(Kind::Task) }).await;
        assert_eq!((count.resources.len(), count.more, count.total), (0, false, Some(25)));
    }

    async fn a_task_that_was_deleted_and_comes_back_is_found_again(rig: Arc<Rig>) {
        fill(&rig).await;
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            let mut gone = next(&tx.lock_tasks(&tenant, &[task_id("t1")])?[0], after(20));
            gone.deleted = true;
            tx.update_task(&tenant, &gone, &[], None)?;
            let mut back = next(&gone, after(21));
            back.deleted = false;
            update_task(tx, &tenant, &back)
        }).await.unwrap();
        assert_eq!(ids(&rig, by(reference("owner", &["Practitioner/lane"]))).await, ["t1", "t2"]);
        assert_eq!(ids(&rig, by(reference("owner", &["*/lane"]))).await, ["t1", "t2"]);
        assert_eq!(ids(&rig, for_code("18842-5")).await, ["t1", "t4", "t3"]);
        assert_eq!(ids(&rig, seen_by("Practitioner/lane", &[], all(Kind::Task))).await, ["t1", "t2"]);
    }

    async fn a_changed_task_is_found_by_what_it_says_now(rig: Arc<Rig>) {
        fill(&rig).await;
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            let mut moved = next(&tx.lock_tasks(&tenant, &[task_id("t1")])?[0], after(20));
            moved.facts.owner = Some("Practitioner/otis".to_owned());
            moved.facts.status = TaskStatus::Accepted;
            "other".clone_into(&mut moved.facts.code[0].code);
            update_task(tx, &tenant, &moved)?;
            moved = next(&moved, after(21));
            "third".clone_into(&mut moved.facts.code[0].code);
            update_task(tx, &tenant, &moved)
        }).await.unwrap();
        assert_eq!(ids(&rig, by(reference("owner", &["Practitioner/otis"]))).await, ["t1", "t3"]);
        assert_eq!(ids(&rig, by(reference("owner", &["*/lane"]))).await, ["t2"]);
        assert_eq!(ids(&rig, by(token("status", &[(None, Some("accepted"))], false))).await, ["t1"]);
        assert_eq!(ids(&rig, for_code("18842-5")).await, ["t4", "t3"]);
        assert_eq!(ids(&rig, for_code("other")).await, [""; 0]);
        assert_eq!(ids(&rig, for_code("third")).await, ["t1"]);
        // She no longer owns it: it is gone for her.
        assert_eq!(ids(&rig, seen_by("Practitioner/lane", &[], all(Kind::Task))).await, ["t2"]);
    }

    async fn no_row_stays_behind_of_who_owned_a_task_meanwhile(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            insert_task(tx, &tenant, &task("t1"))?;
            tx.insert_grant(&tenant, &grant("g1", "t1"))?;
            let mut task = next(&task("t1"), after(1));
            // The grants hear of another due date, for which everything before is written.
            task.facts.due = Some(after(900));
            task.facts.owner = Some("Practitioner/otis".to_owned());
            update_task(tx, &tenant, &task)?;
            task = next(&task, after(2));
            task.facts.owner = Some("Practitioner/lane".to_owned());
            update_task(tx, &tenant, &task)
        }).await.unwrap();
        assert_eq!(ids(&rig, seen_by("Practitioner/otis", &[], all(Kind::Task))).await, [""; 0]);
        assert_eq!(ids(&rig, seen_by("Practitioner/lane", &[], all(Kind::Task))).await, ["t1"]);
    }

    async fn no_row_stays_behind_of_what_a_task_no_longer_says(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        let said = |long: &str| {
            let mut index = index(&task("t1"));
            // What a database's index can't hold is cut off: these two are one.
            for end in ["x", "y"] {
                index.tokens.push(("identifier".to_owned(), String::new(), format!("{}{end}", long.repeat(500))));
            }
            index.dates.push(("period".to_owned(), after(0), after(60)));
            index.strings.push(("note".to_owned(), long.to_owned()));
            index
        };
        let (first, second) = (said("a"), said("b"));
        rig.write(move |tx| {
            tx.insert_task(&tenant, &task("t1"), &body("t1"), &first)?;
            tx.update_task(&tenant, &next(&task("t1"), after(1)), &body("t1"), Some(&second))
        }).await.unwrap();
        assert_eq!(rows_of(&rig), [2, 4, 1, 1, 3, 1]);
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            let mut gone = next(&tx.lock_tasks(&tenant, &[task_id("t1")])?[0], after(2));
            gone.deleted = true;
            tx.update_task(&tenant, &gone, &[], None)
        }).await.unwrap();
        assert_eq!(rows_of(&rig), [0; 6]);
    }
}

/// How many rows there are in the tables by which Tasks are found.
fn rows_of(rig: &Rig) -> [usize; 6] {
    [
        "search_tokens",
        "search_references",
        "search_dates",
        "search_strings",
        "task_viewers",
        "task_documents",
    ]
    .map(|table| rig.names(&format!("SELECT tenant AS name FROM {table}")).len())
}
