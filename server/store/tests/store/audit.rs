//! The ledger and the outbox: written with the transaction or not at all, and found by everything they name.

use diesel::sql_types::BigInt;
use diesel::{Connection, PgConnection, QueryableByName, RunQueryDsl, SqliteConnection};
use handoff_domain::audit::{About, Event, Outcome};
use handoff_domain::outbox::{Topic, TopicEvent};
use handoff_domain::ports::{AuditSearch, StoreError};
use handoff_domain::{TenantId, Timestamp};

use crate::rig::{NOW, Rig, after, audit_row, insert_task, on_both, task};

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

fn count(rig: &Rig, table: &str) -> i64 {
    let sql = format!("SELECT count(*) AS count FROM {table}");
    let count: Count = if rig.is_postgres() {
        let mut connection = PgConnection::establish(&rig.config.url).unwrap();
        diesel::sql_query(sql).get_result(&mut connection).unwrap()
    } else {
        let mut connection = SqliteConnection::establish(&rig.config.url).unwrap();
        diesel::sql_query(sql).get_result(&mut connection).unwrap()
    };
    count.count
}

fn event() -> TopicEvent {
    TopicEvent {
        topic: Topic::GrantLifecycle,
        focus: "Task/t1".to_owned(),
        version: 1,
        change: "issued".to_owned(),
        grant: None,
        correlation: "c-1".to_owned(),
        trace: None,
        at: NOW,
    }
}

async fn fill(rig: &Rig) {
    let tenant = rig.tenant.clone();
    rig.write(move |tx| {
        let mut denied = audit_row(Event::RedemptionDenied, "c2");
        denied.outcome = Outcome::Denied;
        denied.recorded = after(10);
        denied.agent.actor = Some("Practitioner/otis".to_owned());
        denied.about = About {
            grant: Some("t1".to_owned()),
            ..About::default()
        };
        tx.record(&tenant, audit_row(Event::TaskCreated, "c1"));
        tx.record(&tenant, audit_row(Event::GrantIssued, "c1"));
        tx.record(&tenant, denied);
        tx.record(
            &TenantId::parse("other").unwrap(),
            audit_row(Event::TaskCreated, "c1"),
        );
        Ok(())
    })
    .await
    .unwrap();
}

async fn events(rig: &Rig, search: AuditSearch) -> Vec<Event> {
    let tenant = rig.tenant.clone();
    let rows = rig
        .read(move |read| read.audit(&tenant, &AuditSearch { limit: 10, ..search }))
        .await;
    rows.into_iter().map(|row| row.row.event).collect()
}

on_both! {
    async fn rows_are_found_by_what_they_name(rig: Arc<Rig>) {
        fill(&rig).await;
        let some = |text: &str| Some(text.to_owned());
        let (created, issued, denied) = (Event::TaskCreated, Event::GrantIssued, Event::RedemptionDenied);
        let none = AuditSearch::default;
        let range = |from: Timestamp, until: Timestamp| AuditSearch { recorded: Some((from, until)), ..none() };
        let cases = [
            (none(), vec![denied, issued, created]),
            (AuditSearch { oldest_first: true, ..none() }, vec![created, issued, denied]),
            (AuditSearch { events: vec!["task-created".to_owned(), "redemption-denied".to_owned()], ..none() },
                vec![denied, created]),
            (AuditSearch { actor: some("Practitioner/otis"), ..none() }, vec![denied]),
            (AuditSearch { patient: some("Patient/ada"), ..none() }, vec![issued, created]),
            (AuditSearch { outcome: some("denied"), ..none() }, vec![denied]),
            (AuditSearch { correlation: some("c1"), ..none() }, vec![issued, created]),
            (AuditSearch { entity: some("Task/t1"), ..none() }, vec![issued, created]),
            (AuditSearch { entity: some("DocumentReference/d1"), ..none() }, vec![issued, created]),
            (AuditSearch { entity: some("Binary/b1"), ..none() }, vec![issued, created]),
            (AuditSearch { entity: some("t1"), ..none() }, vec![denied, issued, created]),
            (AuditSearch { entity: some("r1"), ..none() }, vec![issued, created]),
            (AuditSearch { entity: some("Task/d1"), ..none() }, vec![]),
            (range(NOW, after(10)), vec![issued, created]),
            (range(after(10), after(11)), vec![denied]),
            (AuditSearch { id: some("not-a-number"), ..none() }, vec![]),
        ];
        for (search, expected) in cases {
            assert_eq!(events(&rig, search.clone()).await, expected, "{search:?}");
        }
    }

    async fn a_row_comes_back_as_it_was_written_and_by_its_id(rig: Arc<Rig>) {
        fill(&rig).await;
        let tenant = rig.tenant.clone();
        let search = AuditSearch { oldest_first: true, limit: 2, ..AuditSearch::default() };
        let rows = rig.read(move |read| read.audit(&tenant, &search)).await;
        assert_eq!(rows[0].row, audit_row(Event::TaskCreated, "c1"));
        assert!(rows[0].sequence < rows[1].sequence);
        assert_eq!(events(&rig, AuditSearch { id: Some(rows[1].id.clone()), ..Default::default() }).await,
            [Event::GrantIssued]);
        let (first, last) = (rows[0].sequence, rows[1].sequence);
        let after_first = AuditSearch { after: Some(first), oldest_first: true, ..Default::default() };
        assert_eq!(events(&rig, after_first).await, [Event::GrantIssued, Event::RedemptionDenied]);
        let before_last = AuditSearch { after: Some(last), ..Default::default() };
        assert_eq!(events(&rig, before_last).await, [Event::TaskCreated]);
    }

    async fn what_is_rolled_back_leaves_neither_rows_nor_events(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        let undone: Result<(), StoreError> = rig.write(move |tx| {
            insert_task(tx, &tenant, &task("t1"))?;
            tx.record(&tenant, audit_row(Event::TaskCreated, "c1"));
            tx.tell(&tenant, event());
            // Written before it is undone.
            assert_eq!(tx.audit(&tenant, &AuditSearch { limit: 10, ..Default::default() })?.len(), 1);
            tx.record(&tenant, audit_row(Event::GrantIssued, "c1"));
            Err(StoreError::Broken("on purpose".to_owned()))
        }).await;
        assert_eq!(undone, Err(StoreError::Broken("on purpose".to_owned())));
        for table in ["tasks", "audit_log", "outbox", "resource_versions", "search_tokens", "task_viewers"] {
            assert_eq!(count(&rig, table), 0, "{table}");
        }
    }

    async fn an_event_is_written_with_its_transaction(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            tx.tell(&tenant, event());
            tx.tell(&tenant, event());
            Ok(())
        }).await.unwrap();
        assert_eq!(count(&rig, "outbox"), 2);
    }
}
