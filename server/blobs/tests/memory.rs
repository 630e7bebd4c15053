//! That memory does not grow with the content. Alone in its process, which it measures.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]
#![cfg(target_os = "linux")]

mod support;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use handoff_domain::ports::ByteStream;
use sha2::{Digest as _, Sha256};
use support::{NO_LIMIT, Subject, content};

const SIZE: u64 = 256 << 20;
const CHUNK: u64 = 64 << 10;

fn source(chunk: Bytes) -> ByteStream {
    let chunks = usize::try_from(SIZE / CHUNK).unwrap();
    Box::pin(stream::iter(std::iter::repeat_n(chunk, chunks).map(Ok)))
}

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(field)).unwrap();
    line.trim_start_matches(':')
        .trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .unwrap()
        * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarter_of_a_gibibyte_passes_in_constant_memory() {
    for subject in [Subject::directory().await, Subject::azure().await] {
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = status("VmRSS");
        let chunk = content(usize::try_from(CHUNK).unwrap());
        let uploaded = subject
            .store
            .put("north/big", "video/mp4", source(chunk), NO_LIMIT)
            .await
            .unwrap();
        let mut back = subject.store.get(&uploaded.pin, 0..SIZE).await.unwrap();
        let mut sha256 = Sha256::new();
        while let Some(chunk) = back.next().await {
            sha256.update(chunk.unwrap());
        }
        let grown = status("VmHWM").saturating_sub(before);
        assert_eq!(uploaded.sha256.0, <[u8; 32]>::from(sha256.finalize()));
        assert!(grown < 64 << 20, "grew by {} MiB", grown >> 20);
        eprintln!("grew by {} MiB", grown >> 20);
        subject.store.delete(&uploaded.pin).await.unwrap();
    }
}
