//! Browser sessions: found by their id alone, ended one by one, by person or by age.

use handoff_domain::TenantId;
use handoff_domain::session::{Session, Sessions};

use crate::rig::{after, on_both};

fn session(id: &str, subject: &str, sid: Option<&str>, seconds: i64) -> Session {
    Session {
        id: id.to_owned(),
        issuer: "https://issuer.example".to_owned(),
        subject: subject.to_owned(),
        sid: sid.map(str::to_owned),
        claims: "{\"sub\":\"lane\"}".to_owned(),
        key: [3; 32],
        began_at: after(seconds),
        seen_at: after(seconds),
        ends_at: after(seconds + 1000),
    }
}

fn of(subject: Option<&str>, sid: Option<&str>) -> Sessions {
    Sessions::Of {
        issuer: "https://issuer.example".to_owned(),
        subject: subject.map(str::to_owned),
        sid: sid.map(str::to_owned),
    }
}

on_both! {
    async fn a_session_comes_back_and_is_touched_forwards_only(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| tx.insert_session(&tenant, &session("s1", "lane", Some("a"), 0))).await.unwrap();
        for (second, seen) in [(50, 50), (40, 50)] {
            let tenant = rig.tenant.clone();
            rig.write(move |tx| tx.touch_session(&tenant, "s1", after(second))).await.unwrap();
            let tenant = rig.tenant.clone();
            rig.read(move |read| {
                let expected = Session { seen_at: after(seen), ..session("s1", "lane", Some("a"), 0) };
                assert_eq!(read.session(&tenant, "s1")?, Some(expected));
                assert_eq!(read.session(&tenant, "s2")?, None);
                assert_eq!(read.session(&TenantId::parse("other").unwrap(), "s1")?, None);
                Ok(())
            }).await;
        }
    }

    async fn sessions_end_as_they_are_named(rig: Arc<Rig>) {
        for (which, left) in [
            (Sessions::One("s1".to_owned()), &["s2", "s3"][..]),
            (of(Some("lane"), None), &["s3"]),
            (of(Some("lane"), Some("b")), &["s1", "s3"]),
            (of(None, Some("a")), &["s2", "s3"]),
            (of(Some("otis"), Some("z")), &["s1", "s2"]),
            (of(None, Some("z")), &["s1", "s2", "s3"]),
            (of(None, None), &["s1", "s2", "s3"]),
            (Sessions::Of { issuer: "https://other.example".to_owned(), subject: Some("lane".to_owned()), sid: None },
                &["s1", "s2", "s3"]),
        ] {
            let tenant = rig.tenant.clone();
            rig.write(move |tx| {
                for id in ["s1", "s2", "s3"] {
                    tx.end_sessions(&tenant, &Sessions::One(id.to_owned()))?;
                }
                tx.insert_session(&tenant, &session("s1", "lane", Some("a"), 0))?;
                tx.insert_session(&tenant, &session("s2", "lane", Some("b"), 0))?;
                tx.insert_session(&tenant, &session("s3", "otis", None, 0))
            }).await.unwrap();
            let (tenant, ended) = (rig.tenant.clone(), which.clone());
            let count = rig.write(move |tx| tx.end_sessions(&tenant, &ended)).await.unwrap();
            assert_eq!(count, 3 - left.len(), "{which:?}");
            let tenant = rig.tenant.clone();
            rig.read(move |read| {
                for id in ["s1", "s2", "s3"] {
                    assert_eq!(read.session(&tenant, id)?.is_some(), left.contains(&id), "{which:?}: {id}");
                }
                Ok(())
            }).await;
        }
    }

    async fn old_sessions_and_those_left_alone_are_forgotten(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            // Ends at 1000, 1500, 1900; last used at 0, 950, 900.
            for (id, seconds) in [("s1", 0), ("s2", 500), ("s3", 900)] {
                tx.insert_session(&tenant, &session(id, "lane", None, seconds))?;
            }
            tx.touch_session(&tenant, "s2", after(950))
        }).await.unwrap();
        for (now, idle_since, forgotten) in [(999, -1, 0), (1000, -1, 1), (1001, 900, 1)] {
            let count = rig.write(move |tx| tx.forget_sessions(after(now), after(idle_since))).await.unwrap();
            assert_eq!(count, forgotten, "{now} {idle_since}");
        }
        let tenant = rig.tenant.clone();
        rig.read(move |read| {
            assert!(read.session(&tenant, "s2")?.is_some());
            Ok(())
        }).await;
    }
}
