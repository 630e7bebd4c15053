//! Binaries: their record, to whom they belong, and the hashes of their blocks, however many there are.

use handoff_domain::ports::{Kind, Method, StoreError};

use crate::rig::{NOW, after, binary, binary_id, document_id, on_both};

fn hash(number: u32) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&number.to_be_bytes());
    hash
}

on_both! {
    async fn a_binary_comes_back_as_it_was_stored_and_deleted(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| tx.insert_binary(&tenant, &binary("b1"), &[])).await.unwrap();
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            assert_eq!(tx.binary(&tenant, &binary_id("b1"))?, Some(binary("b1")));
            assert_eq!(tx.block_hashes(&tenant, &binary_id("b1"), 0, 10)?.len(), 0);
            tx.delete_binary(&tenant, &binary_id("b1"), None, after(1))?;
            let mut gone = binary("b1");
            gone.deleted = true;
            assert_eq!(tx.binary(&tenant, &binary_id("b1"))?, Some(gone));
            let history = tx.history(&tenant, Kind::Binary, "b1", None, None, 10)?;
            let all: Vec<_> = history.iter().map(|v| (v.version, v.last_updated, v.method)).collect();
            assert_eq!(all, [(2, after(1), Method::Delete), (1, NOW, Method::Create)]);
            assert_eq!(tx.current(&tenant, Kind::Binary, "b1")?.unwrap().version, 2);
            assert_eq!(tx.version(&tenant, Kind::Binary, "b1", 1)?.unwrap().method, Method::Create);
            assert_eq!(tx.current(&tenant, Kind::Binary, "b2")?, None);
            Ok(())
        }).await.unwrap();
        let tenant = rig.tenant.clone();
        let twice = rig.write(move |tx| tx.delete_binary(&tenant, &binary_id("b1"), None, after(2))).await;
        assert_eq!(twice, Err(StoreError::Conflict));
    }

    async fn a_binary_is_deleted_as_whose_it_is(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        rig.write(move |tx| {
            tx.insert_binary(&tenant, &binary("b1"), &[])?;
            tx.claim_binary(&tenant, &binary_id("b1"), &document_id("d1")).map(drop)
        }).await.unwrap();
        for of in [None, Some("d2")] {
            let tenant = rig.tenant.clone();
            let of = of.map(document_id);
            // Somebody thought that it was nobody's, and it was claimed meanwhile.
            let others = rig.write(move |tx| tx.delete_binary(&tenant, &binary_id("b1"), of.as_ref(), after(1))).await;
            assert_eq!(others, Err(StoreError::Conflict));
        }
        let tenant = rig.tenant.clone();
        rig.write(move |tx| tx.delete_binary(&tenant, &binary_id("b1"), Some(&document_id("d1")), after(1))).await.unwrap();
    }

    async fn a_binary_belongs_to_the_first_document_that_claims_it(rig: Arc<Rig>) {
        let tenant = rig.tenant.clone();
        let claims = rig.write(move |tx| {
            tx.insert_binary(&tenant, &binary("b1"), &[])?;
            let mut claim = |binary: &str, document: &str| {
                tx.claim_binary(&tenant, &binary_id(binary), &document_id(document))
            };
            Ok([claim("b1", "d1")?, claim("b1", "d2")?, claim("b1", "d1")?, claim("none", "d1")?])
        }).await.unwrap();
        assert_eq!(claims, [true, false, true, false]);
    }

    async fn any_stretch_of_block_hashes_can_be_read(rig: Arc<Rig>) {
        let all: Vec<[u8; 32]> = (0..10_000).map(hash).collect();
        let tenant = rig.tenant.clone();
        let blocks = all.clone();
        rig.write(move |tx| tx.insert_binary(&tenant, &binary("b1"), &blocks)).await.unwrap();
        let stretches = [(0, 1), (0, 4096), (4095, 2), (4096, 4096), (4000, 5000), (9_990, 100), (10_000, 1), (5, 0)];
        for (first, count) in stretches {
            let tenant = rig.tenant.clone();
            let read = rig.read(move |read| read.block_hashes(&tenant, &binary_id("b1"), first, count)).await;
            let last = (first + count).min(10_000);
            assert_eq!(read, all[first as usize..last as usize], "{first} {count}");
        }
    }
}
