//! What stands between the source and its mirror: of the notifications that pass, a third are lost, cut off, late, repeated,
//! overtaken or refused. What is lost is answered as taken, so that nobody sends it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::deliveries::endpoint::{Headers, read_request};
use crate::http_client;

/// What becomes of one notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It passes.
    Passed,
    /// It is answered as taken, and never passes.
    Dropped,
    /// The connection is cut, and it does not pass.
    CutBefore,
    /// It passes, and the connection is cut: it comes again.
    CutAfter,
    /// It passes after a while.
    Delayed,
    /// It passes twice.
    Repeated,
    /// It is answered as taken, and passes after some that came later.
    Overtaken,
    /// It is answered with 500.
    Refused,
}

impl Fate {
    /// Each of them.
    pub const ALL: [Self; 8] = [
        Self::Passed,
        Self::Dropped,
        Self::CutBefore,
        Self::CutAfter,
        Self::Delayed,
        Self::Repeated,
        Self::Overtaken,
        Self::Refused,
    ];

    fn of(choice: &mut fastrand::Rng) -> Self {
        if choice.u8(..3) > 0 {
            return Self::Passed;
        }
        Self::ALL[1 + choice.usize(..7)]
    }

    /// What it is called in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Dropped => "dropped",
            Self::CutBefore => "cut off unread",
            Self::CutAfter => "cut off once passed",
            Self::Delayed => "delayed",
            Self::Repeated => "repeated",
            Self::Overtaken => "overtaken",
            Self::Refused => "refused with 500",
        }
    }
}

/// One notification.
struct Letter {
    headers: Headers,
    body: Vec<u8>,
}

struct State {
    choice: fastrand::Rng,
    is_on: bool,
    /// What is held back, and how many are to pass before it.
    held: Vec<(u8, Letter)>,
    fates: BTreeMap<Fate, usize>,
}

struct Between {
    target: String,
    client: reqwest::Client,
    state: Mutex<State>,
}

/// The proxy. It listens until it is dropped.
pub struct Trouble {
    /// `http://127.0.0.1:PORT`, as the mirror is called by its source.
    pub base: String,
    between: Arc<Between>,
    listening: JoinHandle<()>,
}

impl Drop for Trouble {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Trouble {
    /// Stands before `target`, and lets everything pass until it is told otherwise.
    pub async fn before(target: String, choice: fastrand::Rng) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let between = Arc::new(Between {
            target,
            client: http_client(),
            state: Mutex::new(State {
                choice,
                is_on: false,
                held: Vec::new(),
                fates: BTreeMap::new(),
            }),
        });
        let shared = Arc::clone(&between);
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&shared)));
            }
        });
        Self {
            base: format!("http://{address}"),
            between,
            listening,
        }
    }

    /// From now on a third meets one of the faults.
    pub fn begin(&self) {
        self.between.state().is_on = true;
    }

    /// From now on everything passes; so does what was held back.
    pub async fn end(&self) {
        let held = {
            let mut state = self.between.state();
            state.is_on = false;
            std::mem::take(&mut state.held)
        };
        for (_, letter) in held {
            self.between.pass(&letter).await;
        }
    }

    /// How many met which fate while there was trouble.
    pub fn fates(&self) -> BTreeMap<Fate, usize> {
        self.between.state().fates.clone()
    }
}

impl Between {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends it on; answers the status.
    async fn pass(&self, letter: &Letter) -> u16 {
        let mut request = self.client.post(&self.target).body(letter.body.clone());
        for (name, value) in &letter.headers {
            if matches!(name.as_str(), "authorization" | "content-type") {
                request = request.header(name, value);
            }
        }
        request
            .send()
            .await
            .map_or(502, |answer| answer.status().as_u16())
    }

    /// Sends on what was held back for long enough.
    async fn pass_overtaken(&self) {
        let due: Vec<Letter> = {
            let mut state = self.state();
            for (left, _) in &mut state.held {
                *left = left.saturating_sub(1);
            }
            let (due, held) = std::mem::take(&mut state.held)
                .into_iter()
                .partition(|(left, _)| *left == 0);
            state.held = held;
            let due: Vec<(u8, Letter)> = due;
            due.into_iter().map(|(_, letter)| letter).collect()
        };
        for letter in due {
            self.pass(&letter).await;
        }
    }

    /// What becomes of the next one, and a number to go with it.
    fn decide(&self) -> (Fate, u64) {
        let mut state = self.state();
        if !state.is_on {
            return (Fate::Passed, 0);
        }
        let fate = Fate::of(&mut state.choice);
        *state.fates.entry(fate).or_default() += 1;
        (fate, state.choice.u64(20..300))
    }
}

async fn converse(mut stream: TcpStream, between: Arc<Between>) {
    let mut buffer = Vec::new();
    while let Some((headers, body)) = Box::pin(read_request(&mut stream, &mut buffer)).await {
        let letter = Letter { headers, body };
        let (fate, number) = between.decide();
        let status = match fate {
            Fate::CutBefore => return,
            Fate::Dropped => 200,
            Fate::Refused => 500,
            Fate::Overtaken => {
                let after = u8::try_from(1 + number % 4).unwrap_or(1);
                between.state().held.push((after, letter));
                200
            }
            Fate::CutAfter => {
                between.pass(&letter).await;
                return;
            }
            Fate::Delayed => {
                sleep(Duration::from_millis(number)).await;
                between.pass(&letter).await
            }
            Fate::Repeated => {
                between.pass(&letter).await;
                between.pass(&letter).await
            }
            Fate::Passed => {
                let status = between.pass(&letter).await;
                between.pass_overtaken().await;
                status
            }
        };
        let answer = format!("HTTP/1.1 {status} As It Is\r\nContent-Length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
