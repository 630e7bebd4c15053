//! A TCP proxy between the server and one of its parts, to make the part fail: gone, silent, slow, broken off or
//! half closed.
//! Knows no protocol, only bytes and their direction, and words to look for in them.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::free_address;

/// What happens to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Bytes pass both ways.
    Forward,
    /// Nobody listens.
    Refuse,
    /// Connections stand, and no byte passes.
    Stall,
    /// Requests pass, answers don't.
    StallAnswers,
    /// Bytes pass both ways, each piece after a while.
    Delay(Duration),
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the part.
    Requests,
    /// To the server.
    Answers,
}

#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    /// Raised to break what is connected.
    generation: u64,
    /// Raised to end what is connected in one direction: of requests, of answers.
    half_closed: [u64; 2],
}

impl State {
    fn closings(&self, direction: Direction) -> u64 {
        let [requests, answers] = self.half_closed;
        match direction {
            Direction::Requests => requests,
            Direction::Answers => answers,
        }
    }
}

struct Shared {
    state: watch::Sender<State>,
    target: SocketAddr,
    /// Bytes that went towards the part.
    requests: AtomicU64,
    /// When that many have, the part is gone.
    gone_after: AtomicU64,
    /// What a connection has to ask, one after the other, for the answer to the last to be lost.
    losing: Mutex<&'static [&'static str]>,
}

/// A proxy on a port of its own, forwarding until told otherwise.
pub struct Proxy {
    /// Where the server finds the part now.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.change(Mode::Refuse, true);
    }
}

impl Proxy {
    /// A proxy before the part at `target` (`127.0.0.1:5432`).
    pub async fn before(target: &str) -> Self {
        // It comes back to the same port after the part was gone.
        let listener = loop {
            // Another process may have taken it since.
            match TcpListener::bind(free_address()).await {
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                bound => break bound.expect("a free port"),
            }
        };
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            state: watch::Sender::new(State {
                mode: Mode::Forward,
                generation: 0,
                half_closed: [0; 2],
            }),
            target: target.parse().expect("host and port in numbers"),
            requests: AtomicU64::new(0),
            gone_after: AtomicU64::new(u64::MAX),
            losing: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(Arc::clone(&shared), address, listener));
        Self {
            address,
            shared,
            accepting,
        }
    }

    /// Forwards again.
    pub fn forward(&self) {
        self.shared.gone_after.store(u64::MAX, Ordering::SeqCst);
        self.shared.change(Mode::Forward, false);
    }

    /// The part is gone: connections break, and new ones are refused.
    pub fn refuse(&self) {
        self.shared.change(Mode::Refuse, true);
    }

    /// The part goes after this many bytes more.
    pub fn refuse_after(&self, more: u64) {
        let now = self.shared.requests.load(Ordering::SeqCst);
        self.shared
            .gone_after
            .store(now.saturating_add(more), Ordering::SeqCst);
    }

    /// Once: a connection that asks all of this, one after the other, breaks when the last of it is answered. What was
    /// asked has been done by then, and nobody is told.
    pub fn lose_answer(&self, asked: &'static [&'static str]) {
        *self.shared.losing.lock().expect("no panic") = asked;
    }

    /// Whether the answer that was to be lost is.
    pub fn has_lost_it(&self) -> bool {
        self.shared.losing.lock().expect("no panic").is_empty()
    }

    /// The part is silent: connections stand, and no byte passes.
    pub fn stall(&self) {
        self.shared.change(Mode::Stall, false);
    }

    /// Requests reach the part, its answers are held back.
    pub fn stall_answers(&self) {
        self.shared.change(Mode::StallAnswers, false);
    }

    /// Breaks what is connected, and goes on as before with what connects anew.
    pub fn cut(&self) {
        let mode = self.shared.state.borrow().mode;
        self.shared.change(mode, true);
    }

    /// The part is slow: every piece takes this long.
    pub fn delay(&self, each: Duration) {
        self.shared.change(Mode::Delay(each), false);
    }

    /// Ends what is connected in one direction, as if that side had nothing more to say; the other goes on.
    pub fn half_close(&self, direction: Direction) {
        self.shared.state.send_modify(|state| {
            let [requests, answers] = &mut state.half_closed;
            match direction {
                Direction::Requests => *requests = requests.wrapping_add(1),
                Direction::Answers => *answers = answers.wrapping_add(1),
            }
        });
    }

    /// Bytes that went towards the part so far.
    pub fn requested(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn change(&self, mode: Mode, cut: bool) {
        self.state.send_modify(|state| {
            state.mode = mode;
            state.generation = state.generation.wrapping_add(u64::from(cut));
        });
    }

    /// Whether these bytes of a connection ask the last of what makes it lose the answer; `asked` is how far it had come.
    fn look_for_the_last(&self, bytes: &[u8], asked: &mut usize, lost: &AtomicBool) {
        let mut losing = self.losing.lock().expect("no panic");
        while let Some(next) = losing.get(*asked)
            && bytes.windows(next.len()).any(|window| window == next.as_bytes())
        {
            *asked += 1;
        }
        if !losing.is_empty() && *asked >= losing.len() {
            *losing = &[];
            lost.store(true, Ordering::SeqCst);
        }
    }

    /// Waits until bytes of one direction may pass.
    async fn may_pass(&self, direction: Direction) {
        let mut states = self.state.subscribe();
        let passes = |state: &State| match state.mode {
            Mode::Forward | Mode::Delay(_) => true,
            Mode::StallAnswers => direction == Direction::Requests,
            Mode::Refuse | Mode::Stall => false,
        };
        // The sender lives as long as `self`.
        let mode = states.wait_for(passes).await.map(|state| state.mode);
        if let Ok(Mode::Delay(each)) = mode {
            tokio::time::sleep(each).await;
        }
    }
}

async fn accept(shared: Arc<Shared>, address: SocketAddr, first: TcpListener) {
    let mut states = shared.state.subscribe();
    let mut listener = Some(first);
    loop {
        if states.borrow_and_update().mode == Mode::Refuse {
            drop(listener.take());
            let holder = hold(address).await;
            if states.wait_for(|state| state.mode != Mode::Refuse).await.is_err() {
                return;
            }
            listener = Some(holder.listen(1024).expect("our port"));
        }
        let Some(listening) = &listener else { return };
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            accepted = listening.accept() => {
                if let Ok((client, _)) = accepted {
                    tokio::spawn(carry(Arc::clone(&shared), client));
                }
            }
        }
    }
}

/// Bound and not listening: the port stays ours, and who connects is refused. A program that another test starts has the listener
/// open too until it runs, which keeps the port taken for a moment.
async fn hold(address: SocketAddr) -> TcpSocket {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let holder = TcpSocket::new_v4().expect("a socket");
        holder.set_reuseaddr(true).expect("an option");
        match holder.bind(address) {
            Ok(()) => return holder,
            Err(error) => assert!(Instant::now() < deadline, "our port: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn carry(shared: Arc<Shared>, client: TcpStream) {
    let mut states = shared.state.subscribe();
    let generation = states.borrow_and_update().generation;
    let Ok(part) = TcpStream::connect(shared.target).await else {
        return;
    };
    let ((from_client, to_client), (from_part, to_part)) = (client.into_split(), part.into_split());
    let lost = AtomicBool::new(false);
    let both = async {
        tokio::join!(
            pipe(&shared, &lost, from_client, to_part, Direction::Requests),
            pipe(&shared, &lost, from_part, to_client, Direction::Answers)
        )
    };
    tokio::select! {
        _ = both => {}
        // Dropping both ends breaks the connection.
        _ = states.wait_for(|state| state.generation != generation) => {}
    }
}

async fn pipe(
    shared: &Shared,
    lost: &AtomicBool,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut asked = 0;
    let mut states = shared.state.subscribe();
    let closings = states.borrow_and_update().closings(direction);
    loop {
        shared.may_pass(direction).await;
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = states.wait_for(|state| state.closings(direction) != closings) => break,
        };
        let Ok(read @ 1..) = read else {
            break;
        };
        shared.may_pass(direction).await;
        if direction == Direction::Requests {
            shared.look_for_the_last(&buffer[..read], &mut asked, lost);
        } else if lost.load(Ordering::SeqCst) {
            break;
        }
        if direction == Direction::Requests {
            let all = shared
                .requests
                .fetch_add(read as u64, Ordering::SeqCst)
                .saturating_add(read as u64);
            if all >= shared.gone_after.load(Ordering::SeqCst) {
                shared.change(Mode::Refuse, true);
                return;
            }
        }
        if to
            .write_all(buffer.get(..read).unwrap_or_default())
            .await
            .is_err()
        {
            break;
        }
    }
    // The other side learns that no more comes; that it is gone already is no matter.
    let _ended = to.shutdown().await;
}
