//! Pushes gibibytes through a blob store and back, and tells rates and memory:
//! `cargo run -p handoff-blobs --example five_gib -- --blob URL [--gib N]`.
//! Fails where the digests differ or memory passed 128 MiB.

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use handoff_blobs::{BlobConfig, Digester, open};
use handoff_domain::ports::ByteStream;

const CHUNK: usize = 64 * 1024;
const MOST_MEMORY_KIB: u64 = 128 * 1024;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    let (url, gib) = arguments()?;
    let size = gib << 30;
    let store = open(&BlobConfig::parse(&url)?).await?;
    store.ready().await?;

    let key = format!("bench/five-gib-{}", std::process::id());
    let start = Instant::now();
    let cpu = cpu_seconds();
    let put = store
        .put(&key, "application/octet-stream", source(size), size)
        .await?;
    report("put", size, start, cpu);

    let start = Instant::now();
    let cpu = cpu_seconds();
    let mut seen = Digester::new(size);
    let mut back = store.get(&put.pin, 0..size).await?;
    while let Some(chunk) = back.next().await {
        seen.update(&chunk?)?;
    }
    report("get", size, start, cpu);
    store.delete(&put.pin).await?;

    let seen = seen.finish();
    let same =
        (seen.size, seen.sha1, seen.sha256, &seen.blocks) == (put.size, put.sha1, put.sha256, &put.blocks);
    let peak = peak_memory_kib();
    println!(
        "digests {}, peak RSS {} MiB",
        if same { "equal" } else { "DIFFER" },
        peak / 1024
    );
    Ok(if same && peak <= MOST_MEMORY_KIB {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn arguments() -> Result<(String, u64), Box<dyn Error>> {
    let mut url = None;
    let mut gib = 5;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| format!("`{name}` needs a value"))?;
        match name.as_str() {
            "--blob" => url = Some(value),
            "--gib" => gib = value.parse()?,
            _ => return Err(format!("unknown argument `{name}`").into()),
        }
    }
    Ok((url.ok_or("--blob URL is missing")?, gib))
}

/// Chunks that all differ, at the cost of one copy.
fn source(size: u64) -> ByteStream {
    let chunks = size / CHUNK as u64;
    Box::pin(stream::iter((0..chunks).map(|index| {
        let mut chunk = vec![0x5a; CHUNK];
        for (slot, byte) in chunk.iter_mut().zip(index.to_le_bytes()) {
            *slot = byte;
        }
        Ok(Bytes::from(chunk))
    })))
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn report(what: &str, size: u64, start: Instant, cpu_before: Option<f64>) {
    let gib = size as f64 / f64::from(1 << 30);
    let seconds = start.elapsed().as_secs_f64();
    let cpu = cpu_before
        .zip(cpu_seconds())
        .map_or(f64::NAN, |(before, after)| (after - before) / gib);
    println!(
        "{what}: {gib:.1} GiB in {seconds:.1} s, {:.0} MiB/s, {cpu:.2} CPU-s/GiB",
        gib * 1024.0 / seconds
    );
}

/// CPU time of this process and all its threads, in clock ticks of 10 ms; `None` where `/proc` is missing.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / 100.0)
}

fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(u64::MAX)
}
