//! The places for connections: how many there are in all and for one address, who gets one, and whose time is up.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};

use super::{Connection, Ended, Patience, Transport};
use crate::config::{AddressRange, Clients, Timeouts};
use crate::telemetry::clients as metrics;

/// How often it is looked after connections.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often idle connections are let go while new ones come.
const MAKE_ROOM_EVERY: Duration = Duration::from_millis(50);
/// A connection that has been idle for less is not let go for another: its request may be under way. One of which half a
/// head has come by then is as good as idle.
const LEAST_IDLE: Duration = Duration::from_secs(1);
/// How often it is told how many clients were let go.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// What a client is told for whom there is no place.
const NO_PLACE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n";

/// Why a connection was not accepted, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPlace {
    /// All places are taken.
    Full,
    /// All that one address may have are taken.
    Address,
}

impl NoPlace {
    /// The metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Address => "address",
        }
    }
}

/// All connections of the public listener.
pub struct Connections {
    most: usize,
    most_per_address: usize,
    patience: Patience,
    trusted: Arc<[AddressRange]>,
    open: Mutex<Open>,
}

struct Open {
    all: HashMap<u64, Arc<Connection>>,
    by_address: HashMap<IpAddr, usize>,
    next: u64,
    made_room: Instant,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

impl Connections {
    /// None yet, for as many as `clients` allows. `trusted` are proxies, behind each of which there are many clients.
    pub fn new(clients: &Clients, timeouts: &Timeouts, trusted: Arc<[AddressRange]>) -> Self {
        Self {
            most: clients.max_connections,
            most_per_address: clients.max_per_address,
            patience: Patience::new(timeouts, clients),
            trusted,
            open: Mutex::new(Open {
                all: HashMap::new(),
                by_address: HashMap::new(),
                next: 0,
                made_room: Instant::now(),
            }),
        }
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.open().all.len()
    }

    /// How many there may be.
    pub const fn most(&self) -> usize {
        self.most
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for an accepted connection, or it is told that there is none, and closed.
    pub fn admit(self: &Arc<Self>, stream: TcpStream) -> Option<(Place, Transport)> {
        let peer = stream.peer_addr().ok();
        let address = peer
            .map(|peer| peer.ip().to_canonical())
            .and_then(|ip| self.counted(ip));
        self.make_room_soon();
        let (read, half) = stream.into_split();
        let connection = Arc::new(Connection::new(half, peer, self.patience));
        match self.open().enter(self, &connection, address) {
            Ok(serial) => {
                let place = Place {
                    connections: Arc::clone(self),
                    connection: Arc::clone(&connection),
                    serial,
                    address,
                };
                Some((place, Transport::new(read, connection)))
            }
            Err(why) => {
                metrics::connection_refused(why.as_str());
                // It is a help where it arrives; the connection is closed in any case.
                let _unread = SockRef::from(connection.socket()).send(NO_PLACE);
                None
            }
        }
    }

    /// What an address is counted by; `None` where many clients stand behind it.
    fn counted(&self, address: IpAddr) -> Option<IpAddr> {
        let is_proxy = if self.trusted.is_empty() {
            // Whoever passes on from this machine to itself without a word of it in the configuration.
            address.is_loopback()
        } else {
            self.trusted.iter().any(|range| range.contains(address))
        };
        (self.most_per_address > 0 && !is_proxy).then(|| network_of(address))
    }

    /// Places from which on idle connections have to go.
    fn crowded_from(&self) -> usize {
        self.most.saturating_sub(self.most.div_ceil(10))
    }

    fn make_room_soon(&self) {
        {
            let mut open = self.open();
            if open.all.len() < self.crowded_from() || open.made_room.elapsed() < MAKE_ROOM_EVERY {
                return;
            }
            open.made_room = Instant::now();
        }
        self.make_room(Instant::now());
    }

    /// Lets go of idle connections while there are nearly as many as may be: first of those that never asked for
    /// anything, then of those that have been idle for longest.
    fn make_room(&self, now: Instant) {
        let all: Vec<Arc<Connection>> = self.open().all.values().cloned().collect();
        let surplus = all.len().saturating_sub(self.crowded_from());
        if surplus == 0 {
            return;
        }
        let mut idle: Vec<_> = all
            .iter()
            .filter_map(|connection| Some((connection.progress().idle_since()?, connection)))
            .filter(|((_, since), _)| now.saturating_duration_since(*since) > LEAST_IDLE)
            .collect();
        idle.sort_by_key(|(idle, _)| *idle);
        for (_, connection) in idle.into_iter().take(surplus) {
            connection.let_go(Ended::Crowded);
        }
    }

    /// Lets go of those that take too long, for as long as the server runs.
    pub async fn watch(self: Arc<Self>) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut told, mut before) = (Instant::now(), metrics::faults());
        loop {
            ticks.tick().await;
            let now = Instant::now();
            let all: Vec<Arc<Connection>> = self.open().all.values().cloned().collect();
            for connection in &all {
                connection.look_after(now);
            }
            drop(all);
            self.make_room(now);
            if told.elapsed() >= TELL_EVERY {
                told = now;
                let faults = metrics::faults();
                let lately = faults.saturating_sub(before);
                before = faults;
                if lately > 0 {
                    // One line however many they are; the metrics say why.
                    tracing::warn!(
                        connections = lately,
                        open = self.count(),
                        "clients were refused or let go"
                    );
                }
            }
        }
    }
}

impl Open {
    /// One more connection, if there may be one more.
    fn enter(
        &mut self,
        limits: &Connections,
        connection: &Arc<Connection>,
        address: Option<IpAddr>,
    ) -> Result<u64, NoPlace> {
        if self.all.len() >= limits.most {
            return Err(NoPlace::Full);
        }
        if let Some(address) = address {
            let count = self.by_address.entry(address).or_default();
            if *count >= limits.most_per_address {
                return Err(NoPlace::Address);
            }
            *count = count.saturating_add(1);
        }
        let serial = self.next;
        self.next = serial.wrapping_add(1);
        self.all.insert(serial, Arc::clone(connection));
        Ok(serial)
    }

    fn leave(&mut self, serial: u64, address: Option<IpAddr>) {
        self.all.remove(&serial);
        let Some(address) = address else { return };
        let left = self.by_address.get_mut(&address).map_or(0, |count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == 0 {
            self.by_address.remove(&address);
        }
    }
}

/// What one client has of its own: an IPv4 address, or the first half of an IPv6 address.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
    }
}

/// The place of one connection, free again when this is dropped.
pub struct Place {
    connections: Arc<Connections>,
    connection: Arc<Connection>,
    serial: u64,
    address: Option<IpAddr>,
}

impl Place {
    /// Whose it is.
    pub const fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().leave(self.serial, self.address);
        let ended = self.connection.ended.get().copied().unwrap_or(Ended::Closed);
        metrics::connection_ended(ended.as_str(), ended.is_fault());
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A listener, and the places of its connections.
    struct Case {
        listener: TcpListener,
        connections: Arc<Connections>,
    }

    impl Case {
        async fn new(clients: &Clients, trusted: &[&str]) -> Self {
            let trusted = trusted.iter().map(|range| range.parse().unwrap()).collect();
            Self {
                listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
                connections: Arc::new(Connections::new(clients, &Timeouts::default(), trusted)),
            }
        }

        /// Connects from an address of this machine.
        async fn from(&self, address: &str) -> (TcpStream, Option<(Place, Transport)>) {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(format!("{address}:0").parse().unwrap()).unwrap();
            let client = socket.connect(self.listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = self.listener.accept().await.unwrap();
            (client, self.connections.admit(stream))
        }
    }

    fn clients(most: usize, per_address: usize) -> Clients {
        Clients {
            max_connections: most,
            max_per_address: per_address,
            ..Clients::default()
        }
    }

    #[tokio::test]
    async fn places_are_as_many_as_there_are_and_free_again_at_the_end() {
        let case = Case::new(&clients(2, 0), &[]).await;
        let first = case.from("127.0.0.1").await;
        let second = case.from("127.0.0.1").await;
        let third = case.from("127.0.0.1").await;
        assert!(first.1.is_some() && second.1.is_some());
        assert!(third.1.is_none());
        drop(second);
        assert_eq!(case.connections.count(), 1);
        assert!(case.from("127.0.0.1").await.1.is_some());
    }

    #[tokio::test]
    async fn one_address_has_no_more_than_its_share_and_a_proxy_has_all() {
        let case = Case::new(&clients(100, 2), &["127.0.0.9"]).await;
        let mut kept = Vec::new();
        for (address, admitted) in [
            ("127.0.0.2", true),
            ("127.0.0.2", true),
            ("127.0.0.2", false),
            ("127.0.0.3", true),
            ("127.0.0.9", true),
            ("127.0.0.9", true),
            ("127.0.0.9", true),
        ] {
            let connected = case.from(address).await;
            assert_eq!(connected.1.is_some(), admitted, "{address}");
            kept.push(connected);
        }
        drop(kept);
        assert_eq!(case.connections.count(), 0);
        assert!(case.connections.open().by_address.is_empty());
        assert!(case.from("127.0.0.2").await.1.is_some());
    }

    #[tokio::test]
    async fn without_named_proxies_this_machine_is_taken_for_one() {
        let case = Case::new(&clients(100, 1), &[]).await;
        let first = case.from("127.0.0.2").await;
        let second = case.from("127.0.0.2").await;
        assert!(first.1.is_some() && second.1.is_some());
    }

    #[tokio::test]
    async fn when_it_gets_crowded_the_idle_ones_go_and_first_those_that_never_asked() {
        let case = Case::new(&clients(10, 0), &[]).await;
        let mut kept = Vec::new();
        for _ in 0..10 {
            kept.push(case.from("127.0.0.1").await);
        }
        let connection = |i: usize| {
            let (_, admitted) = &kept[i];
            Arc::clone(admitted.as_ref().unwrap().0.connection())
        };
        // The first two have had an answer, the third is being answered.
        for i in [0, 1] {
            connection(i).progress().begin(super::super::Due::Nothing);
            connection(i).progress().answered(Instant::now());
        }
        connection(2).progress().begin(super::super::Due::Nothing);
        let ended = |i: usize| connection(i).ended.get().copied();
        case.connections.make_room(Instant::now());
        assert!((0..10).all(|i| ended(i).is_none()), "none has been idle for long");
        let later = Instant::now() + Duration::from_secs(2);
        case.connections.make_room(later);
        assert_eq!((0..10).filter(|i| ended(*i).is_some()).count(), 1);
        assert_eq!(ended(3), Some(Ended::Crowded));
    }

    #[test]
    fn a_client_has_half_of_its_ipv6_address_to_itself() {
        let network = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2:3::4"), network("2001:db8:1:2:ffff::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
