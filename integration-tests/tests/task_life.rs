//! Tasks that several people have to do with: claims at once, changes at once, handing on, children, and what somebody
//! sees who has no more to do with it.

use futures_util::future::{join, join_all};
use handoff_integration_tests::scene::{Referral, document, task};
use handoff_integration_tests::{Answer, Client, TestApp, on_both};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

const LANE: &str = "Practitioner/lane";

async fn put_if(client: &Client, path: &str, tag: &str, body: &Value) -> Answer {
    let put = client.request(Method::PUT, path).header("if-match", tag);
    client
        .send(
            put.header(CONTENT_TYPE, "application/fhir+json")
                .body(body.to_string()),
        )
        .await
}

async fn task_of(client: &Client, id: &str) -> Value {
    client.get(&format!("/fhir/Task/{id}")).await.expect(200).json()
}

async fn total(client: &Client, kind: &str) -> u64 {
    client
        .get(&format!("/fhir/{kind}?_summary=count"))
        .await
        .expect(200)
        .json()["total"]
        .as_u64()
        .unwrap()
}

/// Changes a Task as `client`, from what the placer reads.
async fn change(ehr: &Client, client: &Client, id: &str, edit: impl FnOnce(&mut Value)) -> Answer {
    let mut body = task_of(ehr, id).await;
    edit(&mut body);
    client.put(&format!("/fhir/Task/{id}"), &body).await
}

async fn move_to(client: &Client, id: &str, status: &str) -> Answer {
    change(client, client, id, |task| task["status"] = json!(status)).await
}

on_both! {
    async fn of_two_claims_at_once_one_wins(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let claimants = [(app.client("lane").await, LANE), (app.client("clerk").await, "Practitioner/clerk")];
        let file = document(&ehr, b"content").await;
        for round in 0..20 {
            let open = ehr.post("/fhir/Task", &task("requested", &file.id, None)).await.expect(201);
            let path = format!("/fhir/Task/{}", open.id());
            let claim = async |(client, actor): &(Client, &str)| {
                let mut body = open.json();
                body["owner"] = json!({"reference": actor});
                body["status"] = json!("accepted");
                // Half of them say which version they have seen.
                if round % 2 == 0 { client.put(&path, &body).await } else { put_if(client, &path, "W/\"1\"", &body).await }
            };
            let (one, other) = join(claim(&claimants[0]), claim(&claimants[1])).await;
            let won = [one.status.as_u16(), other.status.as_u16()].iter().filter(|s| **s == 200).count();
            assert_eq!(won, 1, "{} and {}", one.status, other.status);
            let loser = if one.status == 200 { &other } else { &one };
            assert!([403, 409, 412].contains(&loser.status.as_u16()), "{}", loser.status);
            let winner = &claimants[usize::from(one.status != 200)];
            let stored = task_of(&ehr, &open.id()).await;
            assert_eq!(stored["owner"]["reference"], winner.1);
            assert_eq!(stored["meta"]["versionId"], "2");
            let grants = ehr.get(&format!("/files/{}/access-grants", file.id)).await.expect(200).json();
            let of_task = format!("Task/{}", open.id());
            let bound: Vec<&Value> = grants["grants"].as_array().unwrap().iter().filter(|g| g["task"] == of_task).collect();
            assert_eq!(bound.len(), 1);
            assert_eq!((bound[0]["status"].as_str(), bound[0]["actor"]["reference"].as_str()), (Some("bound"), Some(winner.1)));
        }
    }

    async fn parallel_changes_lose_nothing(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let created = ehr.post("/fhir/Task", &task("draft", "nowhere", None)).await.expect(201);
        let path = format!("/fhir/Task/{}", created.id());
        let body = created.json();
        let answers = join_all((0..16).map(|_| ehr.put(&path, &body))).await;
        let changed = answers.iter().filter(|a| a.status == 200).count();
        for answer in &answers {
            assert!([200, 409].contains(&answer.status.as_u16()), "{}", answer.status);
        }
        let history = ehr.get(&format!("{path}/_history")).await.expect(200).json();
        let entries = history["entry"].as_array().unwrap();
        assert_eq!(entries.len(), changed + 1);
        // With the version that was read, one alone can come first.
        let tag = format!("W/\"{}\"", entries.len());
        let answers = join_all((0..8).map(|_| put_if(&ehr, &path, &tag, entries[0].get("resource").unwrap()))).await;
        assert_eq!(answers.iter().filter(|a| a.status == 200).count(), 1);
        assert!(answers.iter().all(|a| [200, 409, 412].contains(&a.status.as_u16())));
    }

    async fn children_follow_their_parent(backend) {
        let app = TestApp::start(backend).await;
        let (ehr, lane) = (app.client("ehr").await, app.client("lane").await);
        let file = document(&ehr, b"content").await;
        let child_of = async |parent: &str, status: &str| {
            let mut child = task(status, &file.id, Some(LANE));
            child["partOf"] = json!([{"reference": format!("Task/{parent}")}]);
            ehr.post("/fhir/Task", &child).await.expect(201).id()
        };
        let fetch = async |id: &str| lane.get(&format!("/fhir/Binary/{}?task=Task/{id}", file.binary)).await;
        let parent = ehr.post("/fhir/Task", &task("accepted", "nowhere", Some(LANE))).await.expect(201).id();
        let child = child_of(&parent, "accepted").await;
        let grandchild = child_of(&child, "ready").await;
        let held = child_of(&parent, "in-progress").await;
        let draft = child_of(&parent, "draft").await;
        move_to(&ehr, &held, "on-hold").await.expect(200);
        move_to(&lane, &parent, "on-hold").await.expect(200);
        for id in [&child, &grandchild, &held] {
            assert_eq!(task_of(&ehr, id).await["status"], "on-hold");
            fetch(id).await.refused(403, "task-on-hold");
        }
        assert_eq!(task_of(&ehr, &draft).await["status"], "draft");
        move_to(&lane, &parent, "accepted").await.expect(200);
        assert_eq!(task_of(&ehr, &child).await["status"], "accepted");
        assert_eq!(task_of(&ehr, &grandchild).await["status"], "ready");
        assert_eq!(task_of(&ehr, &held).await["status"], "on-hold", "it was held on its own");
        fetch(&child).await.expect(200);
        move_to(&lane, &parent, "failed").await.expect(200);
        for id in [&child, &grandchild, &held, &draft] {
            let ended = task_of(&ehr, id).await;
            assert_eq!(ended["status"], "cancelled");
            fetch(id).await.refused(403, "task-cancelled");
        }
        let grants = ehr.get(&format!("/files/{}/access-grants", file.id)).await.expect(200).json();
        for grant in grants["grants"].as_array().unwrap() {
            assert!(["revoked", "exhausted"].contains(&grant["status"].as_str().unwrap()), "{grant}");
        }
        // Deleting the parent is an end as well.
        let parent = ehr.post("/fhir/Task", &task("accepted", "nowhere", Some(LANE))).await.expect(201).id();
        let child = child_of(&parent, "accepted").await;
        ehr.delete(&format!("/fhir/Task/{parent}")).await.expect(204);
        assert_eq!(task_of(&ehr, &child).await["status"], "cancelled");
    }

    async fn a_task_is_not_part_of_itself_and_not_nested_without_end(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let mut chain: Vec<String> = Vec::new();
        for depth in 0..10 {
            let mut part = task("draft", "nowhere", None);
            if let Some(above) = chain.last() {
                part["partOf"] = json!([{"reference": format!("Task/{above}")}]);
            }
            let answer = ehr.post("/fhir/Task", &part).await;
            if answer.status == 201 {
                chain.push(answer.id());
            } else {
                let refused = answer.refused(422, "invalid");
                assert_eq!(refused.json()["issue"][0]["expression"], json!(["Task.partOf"]));
                assert_eq!(depth, 8, "eight levels are allowed");
                break;
            }
        }
        assert_eq!(chain.len(), 8);
        for below in [&chain[0], &chain[3]] {
            let mut first = task_of(&ehr, &chain[0]).await;
            first["partOf"] = json!([{"reference": format!("Task/{below}")}]);
            ehr.put(&format!("/fhir/Task/{}", chain[0]), &first).await.refused(422, "invalid");
        }
    }

    async fn who_no_longer_has_to_do_with_a_task_sees_neither_it_nor_its_documents(backend) {
        let app = TestApp::start(backend).await;
        let (ehr, otis) = (app.client("ehr").await, app.client("otis").await);
        let file = document(&ehr, b"content").await;
        let given = ehr.post("/fhir/Task", &task("accepted", &file.id, Some("Practitioner/otis"))).await.expect(201);
        let paths = [format!("/fhir/Task/{}", given.id()), format!("/fhir/DocumentReference/{}", file.id)];
        for path in &paths {
            otis.get(path).await.expect(200);
        }
        assert_eq!((total(&otis, "Task").await, total(&otis, "DocumentReference").await), (1, 1));
        let mut taken = given.json();
        taken["owner"] = json!({"reference": LANE});
        ehr.put(&paths[0], &taken).await.expect(200);
        for path in &paths {
            otis.get(path).await.refused(404, "not-found");
            otis.get(&format!("{path}/_history")).await.refused(404, "not-found");
        }
        assert_eq!((total(&otis, "Task").await, total(&otis, "DocumentReference").await), (0, 0));
        ehr.delete(&paths[0]).await.expect(204);
        app.client("lane").await.get(&paths[1]).await.refused(404, "not-found");
    }

    async fn an_owner_hands_a_task_to_no_other_team_and_out_of_no_family(backend) {
        let app = TestApp::start(backend).await;
        let referral = Referral::set(&app).await;
        let parent = referral.ehr.post("/fhir/Task", &task("ready", &referral.document.id, None)).await.expect(201).id();
        let oncology = json!([{"coding": [
            {"system": "https://handoff.example/fhir/CodeSystem/team", "code": "oncology"}
        ]}]);
        referral.change(&referral.lane, |t| t["performerType"] = oncology).await.refused(403, "policy-denied");
        let of_another = json!([{"reference": format!("Task/{parent}")}]);
        referral.change(&referral.lane, |t| t["partOf"] = of_another.clone()).await.refused(403, "policy-denied");
        referral.change(&referral.ehr, |t| t["partOf"] = of_another.clone()).await.expect(200);
    }

    async fn parallel_transactions_over_the_same_things_end_in_an_answer(backend) {
        let app = TestApp::start(backend).await;
        let ehr = app.client("ehr").await;
        let files = [document(&ehr, b"one").await, document(&ehr, b"two").await];
        let mut entries = Vec::new();
        for (own, other) in [(0, 1), (1, 0)] {
            let mut wanted = task("accepted", &files[own].id, Some(LANE));
            wanted["input"] = json!([{"type": {"text": "x"}, "valueReference":
                {"reference": format!("DocumentReference/{}", files[other].id)}}]);
            let made = ehr.post("/fhir/Task", &wanted).await.expect(201).json();
            entries.push(json!({"resource": made, "request": {"method": "PUT", "url": format!("Task/{}", made["id"].as_str().unwrap())}}));
        }
        for file in &files {
            let path = format!("DocumentReference/{}", file.id);
            let stored = ehr.get(&format!("/fhir/{path}")).await.expect(200).json();
            entries.push(json!({"resource": stored, "request": {"method": "PUT", "url": path}}));
        }
        let work = (0..24).map(|i: usize| {
            let (ehr, mut entries) = (ehr.clone(), entries.clone());
            async move {
                entries.rotate_left(i % 4);
                if i.is_multiple_of(3) {
                    entries.truncate(2);
                }
                let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": entries});
                ehr.post("/fhir", &bundle).await
            }
        });
        let answers = join_all(work).await;
        for answer in &answers {
            assert!([200, 409].contains(&answer.status.as_u16()), "{}", String::from_utf8_lossy(&answer.body));
        }
        assert!(answers.iter().any(|a| a.status == 200));
        // Nothing of it minted a second grant.
        for file in &files {
            let grants = ehr.get(&format!("/files/{}/access-grants", file.id)).await.expect(200).json();
            let statuses: Vec<&str> = grants["grants"].as_array().unwrap().iter().map(|g| g["status"].as_str().unwrap()).collect();
            assert_eq!(statuses, ["bound", "bound"]);
        }
    }

    async fn an_owner_hands_on_within_her_team_or_gives_back(backend) {
        let app = TestApp::start(backend).await;
        let (ehr, lane, clerk) = (app.client("ehr").await, app.client("lane").await, app.client("clerk").await);
        let file = document(&ehr, b"content").await;
        let id = ehr.post("/fhir/Task", &task("accepted", &file.id, Some(LANE))).await.expect(201).id();
        let content = format!("/fhir/Binary/{}?task=Task/{id}", file.binary);
        let owner = |who: &str| {
            let who = json!({"reference": who});
            move |task: &mut Value| task["owner"] = who
        };
        for stranger in ["Practitioner/otis", "Practitioner/nobody", "Organization/other", "CareTeam/cardiology", "Patient/ada"] {
            change(&ehr, &lane, &id, owner(stranger)).await.refused(403, "policy-denied");
        }
        change(&ehr, &clerk, &id, owner("Practitioner/clerk")).await.refused(403, "policy-denied");
        change(&ehr, &lane, &id, owner("Practitioner/clerk")).await.expect(200);
        lane.get(&content).await.refused(403, "reassigned");
        assert_eq!(clerk.get(&content).await.expect(200).body, b"content");
        // Giving back leaves it without an owner, to be claimed again; that mints no second grant for who had hers.
        let back = |task: &mut Value| {
            task["status"] = json!("ready");
            task.as_object_mut().unwrap().remove("owner");
        };
        change(&ehr, &clerk, &id, back).await.expect(200);
        clerk.get(&content).await.refused(403, "reassigned");
        change(&ehr, &clerk, &id, owner("Practitioner/clerk")).await.expect(200);
        clerk.get(&content).await.expect(403);
        let grants = ehr.get(&format!("/files/{}/access-grants", file.id)).await.expect(200).json();
        let of = |who: &str| grants["grants"].as_array().unwrap().iter().filter(|g| g["actor"]["reference"] == who).count();
        assert_eq!((of("Practitioner/clerk"), of(LANE)), (1, 1));
    }
}
