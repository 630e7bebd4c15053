//! ClamAV's daemon, by its own protocol: `VERSION`, and `INSTREAM`, which takes content in chunks that begin with their length, the
//! last of length zero (manual page clamd(8)). Knows nothing of what is scanned.

use std::time::Duration;

use futures_util::StreamExt as _;
use handoff_domain::document::StoredBinary;
use handoff_domain::ports::{BlobError, BoxFuture, ByteStream, Scanner, ScannerError};
use handoff_domain::scan::{Finding, Found};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config::ScannerAddress as Address;

/// The longest answer that is read: one names a signature.
const LONGEST_ANSWER: u64 = 4 * 1024;
/// How long it may take to say why it hung up.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// What is said of content that it did not look at to its end.
const BEYOND_LIMITS: &str = "Heuristics.Limits.Exceeded";

/// A daemon.
#[derive(Debug, Clone)]
pub struct Clamd {
    /// Where it listens.
    pub address: Address,
    /// How long it may take to take a connection.
    pub connect_timeout: Duration,
    /// How long it may take no byte, or give no answer.
    pub timeout: Duration,
    /// The largest content that it is sent.
    pub max_size: u64,
}

/// A connection of either kind.
trait Link: AsyncRead + AsyncWrite + Unpin + Send {}
impl Link for TcpStream {}
impl Link for UnixStream {}

impl Clamd {
    async fn connect(&self) -> Result<Box<dyn Link>, ScannerError> {
        let connecting = async {
            Ok::<Box<dyn Link>, std::io::Error>(match &self.address {
                Address::Tcp(address) => Box::new(TcpStream::connect(address).await?),
                Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
            })
        };
        match timeout(self.connect_timeout, connecting).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(error)) => Err(ScannerError::Unreachable(error.kind().to_string())),
            Err(_) => Err(ScannerError::Unreachable("it takes no connection".to_owned())),
        }
    }

    /// Which version it is, with that of its signatures: `ClamAV 1.4.1/27500/Mon Dec 30 09:34:36 2024`.
    async fn version(&self) -> Result<String, ScannerError> {
        let mut link = self.connect().await?;
        let asking = async {
            link.write_all(b"zVERSION\0").await?;
            answer(&mut link).await
        };
        match timeout(self.connect_timeout, asking).await {
            Ok(Ok(said)) if said.starts_with("ClamAV ") => Ok(said),
            Ok(Ok(_)) => Err(ScannerError::Unreachable("it is no clamd".to_owned())),
            Ok(Err(error)) => Err(ScannerError::Unreachable(error.kind().to_string())),
            Err(_) => Err(ScannerError::Unreachable("it does not answer".to_owned())),
        }
    }

    async fn scan_stream(&self, mut bytes: ByteStream) -> Result<Found, ScannerError> {
        let (mut reading, mut writing) = tokio::io::split(self.connect().await?);
        let answered = answer(&mut reading);
        tokio::pin!(answered);
        let sent = tokio::select! {
            biased;
            // Before the end: it has had enough.
            said = &mut answered => {
                let said = said.map_err(|error| broke_off(&error.kind().to_string()))?;
                return of_a_part(&said);
            }
            sent = self.send(&mut writing, &mut bytes) => sent,
        };
        let patience = match &sent {
            Ok(()) => self.timeout,
            Err(Unsent::Content(error)) => return Err(ScannerError::Content(error.clone())),
            Err(Unsent::Slow) => return Err(broke_off("it takes nothing more")),
            Err(Unsent::HungUp) => LAST_WORDS,
        };
        let judge = if sent.is_ok() { found } else { of_a_part };
        match timeout(patience, answered).await {
            Ok(Ok(said)) => judge(&said),
            Ok(Err(error)) => Err(broke_off(&error.kind().to_string())),
            Err(_) => Err(broke_off("it does not answer")),
        }
    }

    async fn send(
        &self,
        writing: &mut (impl AsyncWrite + Unpin),
        bytes: &mut ByteStream,
    ) -> Result<(), Unsent> {
        self.write(writing, b"zINSTREAM\0").await?;
        while let Some(chunk) = bytes.next().await {
            let chunk = chunk.map_err(Unsent::Content)?;
            // An empty chunk would be the end.
            if chunk.is_empty() {
                continue;
            }
            let length = u32::try_from(chunk.len()).map_err(|_| Unsent::HungUp)?;
            self.write(writing, &length.to_be_bytes()).await?;
            self.write(writing, &chunk).await?;
        }
        self.write(writing, &0_u32.to_be_bytes()).await
    }

    async fn write(&self, writing: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), Unsent> {
        match timeout(self.timeout, writing.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Unsent::HungUp),
            Err(_) => Err(Unsent::Slow),
        }
    }
}

/// Why not everything was sent.
enum Unsent {
    Content(BlobError),
    Slow,
    HungUp,
}

fn broke_off(why: &str) -> ScannerError {
    ScannerError::BrokeOff(why.to_owned())
}

/// What it says, up to the zero byte or to where it hangs up; an error where that is nothing.
async fn answer(reading: &mut (impl AsyncRead + Unpin)) -> std::io::Result<String> {
    let mut said = Vec::new();
    let mut limited = reading.take(LONGEST_ANSWER);
    loop {
        let mut piece = [0; 256];
        let count = limited.read(&mut piece).await?;
        let piece = piece.get(..count).unwrap_or_default();
        let end = piece.iter().position(|byte| *byte == 0);
        said.extend_from_slice(piece.get(..end.unwrap_or(count)).unwrap_or_default());
        if end.is_some() {
            return Ok(String::from_utf8_lossy(&said).trim().to_owned());
        }
        if count == 0 {
            // Half an answer may read like another one.
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// What an answer means that came before all of the content was sent: malware may stand in a part, but nothing is clean by a part of it.
fn of_a_part(said: &str) -> Result<Found, ScannerError> {
    match found(said)? {
        Found::Nothing => Err(broke_off("it answers before it has the content")),
        other => Ok(other),
    }
}

/// What an answer to `INSTREAM` means.
fn found(said: &str) -> Result<Found, ScannerError> {
    let about = said.strip_prefix("stream: ");
    if about == Some("OK") {
        return Ok(Found::Nothing);
    }
    if let Some(name) = about.and_then(|about| about.strip_suffix(" FOUND")) {
        // Whatever lies beyond its limits was not looked at.
        return Ok(if name.starts_with(BEYOND_LIMITS) {
            Found::TooLarge
        } else {
            Found::Malware(name.to_owned())
        });
    }
    if said.ends_with("ERROR") {
        return Ok(if said.contains("size limit exceeded") {
            Found::TooLarge
        } else {
            Found::Failure
        });
    }
    Err(broke_off("its answer is not one of those that are known"))
}

impl Scanner for Clamd {
    fn ready(&self) -> BoxFuture<'_, Result<(), ScannerError>> {
        Box::pin(async move { self.version().await.map(drop) })
    }

    fn scan<'a>(
        &'a self,
        content: &'a StoredBinary,
        bytes: ByteStream,
    ) -> BoxFuture<'a, Result<Finding, ScannerError>> {
        Box::pin(async move {
            if content.size > self.max_size {
                return Ok(Finding {
                    found: Found::TooLarge,
                    engine: None,
                });
            }
            // Asked for each time: signatures are renewed while it runs.
            let engine = self.version().await?;
            let found = self.scan_stream(bytes).await?;
            Ok(Finding {
                found,
                engine: Some(engine),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn only_a_clean_answer_means_clean() {
        let malware = |name: &str| Found::Malware(name.to_owned());
        for (said, means) in [
            ("stream: OK", Found::Nothing),
            ("stream: Eicar-Signature FOUND", malware("Eicar-Signature")),
            ("stream: A B.UNOFFICIAL FOUND", malware("A B.UNOFFICIAL")),
            (
                "stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND",
                Found::TooLarge,
            ),
            ("INSTREAM size limit exceeded. ERROR", Found::TooLarge),
            ("stream: Can't allocate memory ERROR", Found::Failure),
            ("COMMAND READ TIMED OUT ERROR", Found::Failure),
            ("UNKNOWN COMMAND ERROR", Found::Failure),
        ] {
            assert_eq!(found(said), Ok(means), "{said}");
        }
        for said in [
            "",
            "OK",
            "stream: ",
            "stream: OKAY",
            "stream: ok",
            "stream: OK OK",
            "file: OK",
            "Eicar FOUND",
            "stream: FOUND",
            "1: stream: OK",
        ] {
            assert!(matches!(found(said), Err(ScannerError::BrokeOff(_))), "{said}");
        }
    }

    /// A daemon that reads what is sent to it until it has all of `until`, answers this and hangs up. Answers what it read.
    async fn daemon(answer: &'static [u8], until: usize) -> (Clamd, tokio::task::JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let served = tokio::spawn(async move {
            let (mut link, _) = listener.accept().await.unwrap();
            let mut read = vec![0; until];
            link.read_exact(&mut read).await.unwrap();
            link.write_all(answer).await.unwrap();
            read
        });
        let clamd = Clamd {
            address,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            max_size: 1000,
        };
        (clamd, served)
    }

    fn content(chunks: &[&'static [u8]]) -> ByteStream {
        let chunks: Vec<_> = chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk))).collect();
        Box::pin(stream::iter(chunks))
    }

    const SENT: &[u8] = b"zINSTREAM\0\0\0\0\x03abc\0\0\0\x02de\0\0\0\0";

    #[tokio::test]
    async fn content_goes_in_chunks_with_their_lengths_and_an_end() {
        let (clamd, served) = daemon(b"stream: OK\0", SENT.len()).await;
        let said = clamd.scan_stream(content(&[b"abc", b"", b"de"])).await;
        assert_eq!(said, Ok(Found::Nothing));
        assert_eq!(served.await.unwrap(), SENT);
    }

    #[tokio::test]
    async fn half_an_answer_is_none() {
        for half in [&b"stream: OK"[..], b"", b"stream: Eicar"] {
            let (clamd, _) = daemon(half, SENT.len()).await;
            let said = clamd.scan_stream(content(&[b"abc", b"de"])).await;
            assert!(matches!(said, Err(ScannerError::BrokeOff(_))), "{said:?}");
        }
    }

    #[tokio::test]
    async fn what_it_says_before_the_end_ends_it() {
        let (clamd, _) = daemon(b"INSTREAM size limit exceeded. ERROR\0", 14).await;
        let first = stream::iter([Ok(Bytes::from_static(b"abc"))]);
        let endless: ByteStream = Box::pin(first.chain(stream::pending()));
        assert_eq!(clamd.scan_stream(endless).await, Ok(Found::TooLarge));
    }

    #[tokio::test]
    async fn nothing_is_clean_by_a_part_of_it() {
        for (answer, found) in [
            (&b"stream: OK\0"[..], None),
            (b"stream: Eicar FOUND\0", Some(Found::Malware("Eicar".to_owned()))),
        ] {
            let (clamd, _) = daemon(answer, 14).await;
            let first = stream::iter([Ok(Bytes::from_static(b"abc"))]);
            let endless: ByteStream = Box::pin(first.chain(stream::pending()));
            let said = clamd.scan_stream(endless).await;
            match found {
                Some(found) => assert_eq!(said, Ok(found)),
                None => assert!(matches!(said, Err(ScannerError::BrokeOff(_))), "{said:?}"),
            }
        }
    }

    #[tokio::test]
    async fn content_that_cannot_be_read_has_no_verdict() {
        let (clamd, _) = daemon(b"stream: OK\0", 1000).await;
        let broken = stream::iter([Ok(Bytes::from_static(b"abc")), Err(BlobError::Changed)]);
        assert_eq!(
            clamd.scan_stream(Box::pin(broken)).await,
            Err(ScannerError::Content(BlobError::Changed))
        );
    }

    #[tokio::test]
    async fn a_daemon_that_is_gone_or_another_is_not_reached() {
        let (clamd, _) = daemon(b"HTTP/1.1 400 Bad Request\0", 9).await;
        assert!(matches!(clamd.version().await, Err(ScannerError::Unreachable(_))));
        let gone = Clamd {
            address: Address::Unix("/nonexistent/clamd.ctl".into()),
            ..clamd
        };
        assert!(matches!(gone.ready().await, Err(ScannerError::Unreachable(_))));
    }
}
