//! The checker of runs under fire, on a small record with the rows that belong to it: it finds nothing there, and each
//! fault that is planted.

use handoff_integration_tests::chaos::check::{Findings, Limits, Rule, check};
use handoff_integration_tests::chaos::content::{Content, sha256};
use handoff_integration_tests::chaos::plan::{Fault, Part};
use handoff_integration_tests::chaos::record::{
    Answer, Asked, Change, Crash, Micros, Orphan, Record, Stream, Trouble,
};
use handoff_integration_tests::chaos::snapshot::{
    AuditRow, BinaryRow, GrantRow, HeadRow, OutboxRow, REDEMPTION_WINDOW, RedemptionRow, Snapshot, VersionRow,
};

const LANE: &str = "Practitioner/lane";
const SECOND: Micros = 1_000_000;
const CONTENT: Content = Content {
    seed: 5,
    size: 1_000_000,
};
const LIMITS: Limits = Limits {
    cut: 150_000,
    doubt: 20 * SECOND,
};

/// A small history: a document is uploaded and given to Lane by two Tasks. She fetches it under `read`, which she
/// completes; under `cut` her slow download is cut when it is cancelled.
struct History {
    record: Record,
    store: Snapshot,
}

fn history() -> History {
    let mut history = History {
        record: Record::default(),
        store: Snapshot {
            taken: 100 * SECOND,
            objects: vec!["b".to_owned()],
            ..Snapshot::default()
        },
    };
    history.document();
    history.task("read", "completed");
    history.task("cut", "cancelled");
    history.download("read", "completed", None);
    history.download("cut", "cut-off", Some(10 * SECOND + 50_000));
    history
}

fn change(correlation: &str, at: Micros, asked: Asked, id: &str, version: Option<i64>) -> Change {
    Change {
        correlation: correlation.to_owned(),
        server: 0,
        began: at - 10_000,
        ended: at,
        asked,
        answer: Answer::Done {
            id: Some(id.to_owned()),
            version,
        },
    }
}

fn row(event: &str, correlation: &str, at: Micros) -> AuditRow {
    AuditRow {
        sequence: 0,
        recorded: at,
        event: event.to_owned(),
        is_success: true,
        correlation: correlation.to_owned(),
        task: None,
        task_version: None,
        document: None,
        document_version: None,
        binary: None,
        grant: None,
        redemption: None,
        business: None,
    }
}

fn told(topic: &str, focus: &str, version: i64, change: &str, grant: Option<&str>) -> OutboxRow {
    OutboxRow {
        topic: topic.to_owned(),
        focus: focus.to_owned(),
        version,
        change: change.to_owned(),
        grant: grant.map(str::to_owned),
    }
}

impl History {
    fn document(&mut self) {
        let asked = Asked::Upload {
            content: CONTENT,
            sha256: sha256(&CONTENT.whole()),
        };
        self.record
            .changes
            .push(change("upload", SECOND, asked, "b", None));
        self.store.binaries.push(BinaryRow {
            id: "b".to_owned(),
            document: Some("d".to_owned()),
            size: 1_000_000,
            sha256: sha256(&CONTENT.whole()),
            is_deleted: false,
        });
        self.store.audit.push(AuditRow {
            binary: Some("b".to_owned()),
            ..row("binary-created", "upload", SECOND)
        });
        let made = change("document", 2 * SECOND, Asked::CreateDocument, "d", Some(1));
        self.record.changes.push(made);
        self.version("DocumentReference", "d", 1, "current", "b", 2 * SECOND);
        self.head("DocumentReference", "d", 1);
        self.store.outbox.push(told(
            "document-version",
            "DocumentReference/d",
            1,
            "current",
            None,
        ));
        self.store.audit.push(AuditRow {
            document: Some("d".to_owned()),
            document_version: Some(1),
            ..row("document-created", "document", 2 * SECOND)
        });
    }

    fn head(&mut self, kind: &str, id: &str, version: i64) {
        self.store.heads.push(HeadRow {
            kind: kind.to_owned(),
            id: id.to_owned(),
            version,
            is_deleted: false,
        });
    }

    fn version(&mut self, kind: &str, id: &str, version: i64, status: &str, name: &str, at: Micros) {
        self.store.versions.push(VersionRow {
            kind: kind.to_owned(),
            id: id.to_owned(),
            version,
            updated: at,
            is_deleted: false,
            status: status.to_owned(),
            owner: (kind == "Task").then(|| LANE.to_owned()),
            names: vec![name.to_owned()],
            business: None,
        });
    }

    /// A Task that is accepted at 3 s and ends at 10 s.
    fn task(&mut self, id: &str, end: &str) {
        let (created, ended) = (format!("create-{id}"), format!("end-{id}"));
        let made = change(&created, 3 * SECOND, Asked::CreateTask, id, Some(1));
        let asked = Asked::UpdateTask { task: id.to_owned() };
        let moved = change(&ended, 10 * SECOND, asked, id, Some(2));
        self.record.changes.extend([made, moved]);
        self.version("Task", id, 1, "accepted", "d", 3 * SECOND);
        self.version("Task", id, 2, end, "d", 10 * SECOND);
        self.head("Task", id, 2);
        let about = |event: &str, correlation: &str, version, at| AuditRow {
            task: Some(id.to_owned()),
            task_version: Some(version),
            ..row(event, correlation, at)
        };
        let focus = format!("Task/{id}");
        let grant = format!("g-{id}");
        self.store.audit.extend([
            about("task-created", &created, 1, 3 * SECOND),
            about("task-updated", &ended, 2, 10 * SECOND),
        ]);
        for event in ["grant-issued", "grant-bound"] {
            self.store.audit.push(AuditRow {
                grant: Some(grant.clone()),
                ..about(event, &created, 1, 3 * SECOND)
            });
        }
        self.store.outbox.extend([
            told("task-status-changed", &focus, 1, "accepted", None),
            told("task-status-changed", &focus, 2, end, None),
            told("grant-lifecycle", &focus, 1, "issued", Some(&grant)),
            told("grant-lifecycle", &focus, 1, "bound", Some(&grant)),
        ]);
        self.store.grants.push(GrantRow {
            id: grant,
            task: id.to_owned(),
            document: "d".to_owned(),
            binary: "b".to_owned(),
            max_uses: 1,
            uses: 1,
            status: "exhausted".to_owned(),
            grantee: Some(LANE.to_owned()),
            expires: Some(900 * SECOND),
        });
    }

    /// A download begun at 5 s: whole, or reset at some moment.
    fn download(&mut self, task: &str, end: &str, reset: Option<Micros>) {
        let (grant, redemption) = (format!("g-{task}"), format!("r-{task}"));
        let correlation = format!("fetch-{task}");
        let size = CONTENT.size;
        let reads = match reset {
            None => vec![(6 * SECOND, size)],
            Some(reset) => vec![(6 * SECOND, 300_000), (reset, 400_000)],
        };
        self.record.streams.push(Stream {
            correlation: correlation.clone(),
            actor: LANE.to_owned(),
            server: 0,
            binary: "b".to_owned(),
            content: CONTENT,
            began: 5 * SECOND,
            status: 200,
            reason: None,
            redemption: Some(redemption.clone()),
            from: 0,
            announced: size,
            ended: reads.last().unwrap().0,
            reads,
            is_wrong: false,
            reset,
        });
        self.store.redemptions.push(RedemptionRow {
            id: redemption.clone(),
            grant: grant.clone(),
            grantee: LANE.to_owned(),
            state: end.to_owned(),
            opened: 5 * SECOND,
            window_end: 5 * SECOND + REDEMPTION_WINDOW,
            streams: 1,
            process: None,
        });
        let focus = format!("Task/{task}");
        for (event, word) in [
            ("redemption-authorized", "authorized"),
            (&*format!("redemption-{end}"), end),
        ] {
            self.store.audit.push(AuditRow {
                task: Some(task.to_owned()),
                grant: Some(grant.clone()),
                redemption: Some(redemption.clone()),
                ..row(event, &correlation, 5 * SECOND)
            });
            self.store
                .outbox
                .push(told("redemption", &focus, 1, word, Some(&grant)));
        }
    }

    fn findings(&self) -> Findings {
        check(&self.record, &self.store, &LIMITS)
    }

    /// Fails unless exactly rules among these are broken, the first of them for sure.
    #[track_caller]
    fn breaks(&self, rules: &[Rule]) {
        let violations = self.findings().violations;
        assert!(violations.iter().any(|v| v.rule == rules[0]), "{violations:#?}");
        assert!(
            violations.iter().all(|v| rules.contains(&v.rule)),
            "{violations:#?}"
        );
    }

    #[track_caller]
    fn holds(&self) {
        let violations = self.findings().violations;
        assert!(violations.is_empty(), "{violations:#?}");
    }

    fn stream(&mut self, correlation: &str) -> &mut Stream {
        let mut streams = self.record.streams.iter_mut();
        streams.find(|s| s.correlation == correlation).unwrap()
    }

    fn change(&mut self, correlation: &str) -> &mut Change {
        let mut changes = self.record.changes.iter_mut();
        changes.find(|c| c.correlation == correlation).unwrap()
    }

    fn grant(&mut self, id: &str) -> &mut GrantRow {
        self.store.grants.iter_mut().find(|g| g.id == id).unwrap()
    }

    fn redemption(&mut self, id: &str) -> &mut RedemptionRow {
        self.store.redemptions.iter_mut().find(|r| r.id == id).unwrap()
    }

    fn audit(&self, event: &str, correlation: &str) -> usize {
        let mut rows = self.store.audit.iter();
        rows.position(|r| r.event == event && r.correlation == correlation)
            .unwrap()
    }
}

#[test]
fn a_history_without_faults_passes_and_its_cut_is_measured() {
    let history = history();
    history.holds();
    assert_eq!(history.findings().lags, [50_000]);
}

#[test]
fn a_lost_audit_row_of_a_move_is_caught() {
    let mut history = history();
    history
        .store
        .audit
        .remove(history.audit("task-updated", "end-read"));
    history.breaks(&[Rule::Audit, Rule::Acknowledged]);
}

#[test]
fn a_lost_authorization_of_bytes_that_were_served_is_caught() {
    let mut history = history();
    let lost = history.audit("redemption-authorized", "fetch-read");
    history.store.audit.remove(lost);
    history.breaks(&[Rule::Authorized, Rule::Audit, Rule::Outbox]);
}

#[test]
fn an_authorization_committed_after_the_first_byte_is_caught() {
    let mut history = history();
    let late = history.audit("redemption-authorized", "fetch-read");
    history.store.audit[late].recorded = 7 * SECOND;
    history.breaks(&[Rule::Authorized]);
}

#[test]
fn a_doubled_audit_row_is_caught() {
    for (event, correlation) in [
        ("task-updated", "end-read"),
        ("task-created", "create-read"),
        ("document-created", "document"),
        ("binary-created", "upload"),
        ("grant-bound", "create-read"),
        ("redemption-authorized", "fetch-read"),
        ("redemption-completed", "fetch-read"),
    ] {
        let mut history = history();
        let doubled = history.store.audit[history.audit(event, correlation)].clone();
        history.store.audit.push(doubled);
        history.breaks(&[Rule::Audit, Rule::Acknowledged, Rule::Outbox]);
    }
}

#[test]
fn a_lost_or_doubled_outbox_row_is_caught_whatever_it_tells_of() {
    for at in 0..history().store.outbox.len() {
        let mut lost = history();
        lost.store.outbox.remove(at);
        lost.breaks(&[Rule::Outbox]);
        let mut doubled = history();
        let row = doubled.store.outbox[at].clone();
        doubled.store.outbox.push(row);
        doubled.breaks(&[Rule::Outbox]);
    }
}

#[test]
fn a_second_use_of_a_grant_for_one_is_caught() {
    let mut history = history();
    let mut second = history.stream("fetch-read").clone();
    second.correlation = "fetch-again".to_owned();
    second.redemption = Some("r-again".to_owned());
    history.record.streams.push(second);
    let mut redemption = history.redemption("r-read").clone();
    redemption.id = "r-again".to_owned();
    history.store.redemptions.push(redemption);
    history.breaks(&[Rule::Uses, Rule::Authorized, Rule::Audit]);
}

#[test]
fn a_use_that_was_given_back_although_bytes_had_left_is_caught() {
    let mut history = history();
    history.redemption("r-read").window_end = 6 * SECOND;
    history.grant("g-read").uses = 0;
    history.breaks(&[Rule::Uses]);
}

#[test]
fn a_use_that_the_grant_does_not_count_is_caught() {
    let mut history = history();
    history.grant("g-read").uses = 0;
    history.breaks(&[Rule::Uses]);
}

#[test]
fn a_byte_that_comes_later_than_a_cut_may_take_is_caught() {
    let mut history = history();
    let stream = history.stream("fetch-cut");
    stream.reads.push((10 * SECOND + 400_000, 700_000));
    stream.reset = Some(10 * SECOND + 400_000);
    stream.ended = 10 * SECOND + 400_000;
    history.breaks(&[Rule::CutOff]);
}

#[test]
fn what_lay_in_the_clients_own_buffer_when_the_reset_came_is_no_late_byte() {
    let mut history = history();
    let stream = history.stream("fetch-cut");
    stream.reads.push((11 * SECOND, 430_000));
    stream.ended = 11 * SECOND;
    history.holds();
}

#[test]
fn a_download_begun_after_the_revocation_was_answered_is_caught_by_its_first_byte() {
    let mut history = history();
    let stream = history.stream("fetch-cut");
    stream.began = 10 * SECOND + 1;
    stream.reads = vec![(10 * SECOND + 20_000, 1)];
    stream.reset = Some(10 * SECOND + 30_000);
    stream.ended = 10 * SECOND + 30_000;
    history.breaks(&[Rule::CutOff]);
}

#[test]
fn a_server_without_its_database_may_take_longer_and_not_for_ever() {
    let mut history = history();
    history.record.troubles.push(Trouble {
        server: 0,
        part: Part::Database,
        fault: Fault::Stall,
        from: 9 * SECOND,
        until: 60 * SECOND,
    });
    let stream = history.stream("fetch-cut");
    stream.reads.push((29 * SECOND, 700_000));
    stream.reset = Some(29 * SECOND);
    stream.ended = 29 * SECOND;
    history.holds();
    let stream = history.stream("fetch-cut");
    stream.reads.push((31 * SECOND, 900_000));
    stream.reset = Some(31 * SECOND);
    stream.ended = 31 * SECOND;
    history.breaks(&[Rule::CutOff]);
}

#[test]
fn a_taken_back_grant_bars_its_downloads_whatever_its_task_says() {
    let mut history = history();
    let asked = Asked::RevokeGrant {
        grant: "g-read".to_owned(),
    };
    let taken_back = change("take-back", 4 * SECOND, asked, "g-read", None);
    history.record.changes.push(taken_back);
    history.breaks(&[Rule::CutOff]);
}

#[test]
fn a_grant_left_open_under_a_task_that_is_over_is_caught() {
    for status in ["bound", "issued", "suspended"] {
        let mut history = history();
        history.grant("g-read").status = status.to_owned();
        history.breaks(&[Rule::Agreement, Rule::Audit]);
    }
}

#[test]
fn a_redemption_that_could_go_on_under_a_task_that_is_over_is_caught() {
    let mut history = history();
    history.redemption("r-read").state = "interrupted".to_owned();
    history.breaks(&[Rule::Agreement]);
}

#[test]
fn a_missing_grant_of_a_task_that_releases_is_caught() {
    let mut history = history();
    for version in &mut history.store.versions {
        if version.id == "read" && version.version == 2 {
            version.status = "ready".to_owned();
            version.owner = Some("Practitioner/otis".to_owned());
        }
    }
    history.breaks(&[Rule::Agreement, Rule::CutOff, Rule::Outbox]);
}

#[test]
fn an_acknowledged_version_that_is_not_in_the_history_is_caught() {
    let mut history = history();
    history
        .store
        .versions
        .retain(|v| v.id != "read" || v.version != 2);
    history.breaks(&[Rule::Audit, Rule::Outbox, Rule::Agreement]);
}

#[test]
fn an_acknowledged_change_without_any_trace_is_caught() {
    let mut history = history();
    let asked = Asked::UpdateTask {
        task: "read".to_owned(),
    };
    let lost = change("lost", 9 * SECOND, asked, "read", Some(2));
    history.record.changes.push(lost);
    history.breaks(&[Rule::Acknowledged]);
}

#[test]
fn a_change_that_was_refused_and_made_is_caught_and_one_never_heard_of_may_be_either() {
    let mut history = history();
    history.change("end-read").answer = Answer::Unknown;
    history.holds();
    history.change("end-read").answer = Answer::Refused {
        status: 409,
        reason: None,
    };
    history.breaks(&[Rule::Acknowledged]);
}

#[test]
fn a_redemption_that_a_dead_process_left_open_is_caught() {
    let mut history = history();
    let redemption = history.redemption("r-read");
    redemption.state = "streaming".to_owned();
    redemption.process = Some("dead".to_owned());
    history.breaks(&[Rule::LeftOpen, Rule::Agreement]);
}

#[test]
fn an_end_that_nobody_wrote_down_is_caught_unless_its_process_died() {
    let mut history = history();
    history
        .store
        .audit
        .retain(|row| row.event != "redemption-cut-off");
    history.store.outbox.retain(|row| row.change != "cut-off");
    history.breaks(&[Rule::Audit]);
    history.record.crashes.push(Crash {
        server: 0,
        at: 10 * SECOND,
        back: 11 * SECOND,
    });
    history.holds();
}

#[test]
fn a_wrong_byte_is_caught() {
    let mut history = history();
    history.stream("fetch-read").is_wrong = true;
    history.breaks(&[Rule::Content]);
}

#[test]
fn half_an_upload_is_caught_even_where_its_client_never_heard_of_it() {
    let mut history = history();
    history.change("upload").answer = Answer::Unknown;
    history.store.binaries[0].sha256 = sha256(b"half of it");
    history.breaks(&[Rule::Content]);
}

#[test]
fn a_content_without_its_object_and_an_object_that_is_nobodys_and_visible_are_caught() {
    let mut history = history();
    history.store.objects.clear();
    history.breaks(&[Rule::Content]);
    history.store.objects = vec!["b".to_owned(), "x".to_owned()];
    history.record.orphans.push(Orphan {
        id: "x".to_owned(),
        statuses: vec![404, 404],
    });
    history.holds();
    history.record.orphans[0].statuses[1] = 403;
    history.breaks(&[Rule::Content]);
}
