//! What a connection may do, for how long, and what it may read, told event by event.

use super::*;

fn patience() -> Patience {
    let timeouts = Timeouts {
        request_header: Duration::from_secs(5),
        body_idle: Duration::from_secs(30),
        keep_alive: Duration::from_secs(75),
        disconnect: Duration::from_secs(5),
        ..Timeouts::default()
    };
    let clients = Clients {
        max_header: 1000,
        least_download_rate: 100,
        rate_window: Duration::from_mins(1),
        ..Clients::default()
    };
    Patience::new(&timeouts, &clients)
}

/// A connection, and the time as seconds from its opening.
struct Case {
    progress: Progress,
    opened: Instant,
}

impl Case {
    fn opened() -> Self {
        let opened = Instant::now();
        Self {
            progress: Progress::new(opened),
            opened,
        }
    }

    fn served() -> Self {
        let mut case = Self::opened();
        case.progress.begin(Due::Nothing);
        case.progress.answered(case.opened);
        case
    }

    fn at(&self, seconds: u64) -> Instant {
        self.opened + Duration::from_secs(seconds)
    }

    fn ended(&mut self, seconds: u64) -> Option<Ended> {
        let now = self.at(seconds);
        self.progress.look(&patience(), now).end
    }
}

#[test]
fn a_head_has_its_time_from_its_first_byte_on_every_request() {
    for mut case in [Case::opened(), Case::served()] {
        let at = case.at(3);
        case.progress.head(b"G", at);
        assert_eq!(case.ended(8), None);
        assert_eq!(case.ended(9), Some(Ended::SlowHeader));
    }
}

#[test]
fn a_connection_may_rest_between_requests_but_not_before_the_first() {
    assert_eq!(Case::opened().ended(6), Some(Ended::Idle));
    assert_eq!(Case::served().ended(74), None);
    assert_eq!(Case::served().ended(76), Some(Ended::Idle));
}

#[test]
fn a_request_that_is_being_answered_has_all_time() {
    let mut case = Case::opened();
    case.progress.begin(Due::Bytes(5000));
    assert_eq!(case.ended(100_000), None);
}

#[test]
fn a_body_that_nobody_reads_ends_soon_after_the_answer() {
    let mut case = Case::opened();
    case.progress.begin(Due::Bytes(5000));
    let at = case.at(10);
    case.progress.answered(at);
    assert_eq!(case.ended(14), None);
    assert_eq!(case.ended(16), Some(Ended::UnreadBody));
    let mut case = Case::opened();
    case.progress.begin(Due::Bytes(5000));
    case.progress.body_read();
    case.progress.answered(at);
    assert_eq!(case.ended(16), None);
}

#[test]
fn a_client_that_takes_nothing_is_stalled_whatever_the_phase() {
    for serving in [true, false] {
        let mut case = Case::opened();
        case.progress.begin(Due::Nothing);
        if !serving {
            case.progress.answered(case.opened);
        }
        let at = case.at(10);
        case.progress.waits(at, Waker::noop());
        assert_eq!(case.ended(39), None);
        assert_eq!(case.ended(41), Some(Ended::Stalled));
    }
}

#[test]
fn a_client_that_takes_too_little_for_a_minute_is_too_slow_and_one_that_takes_enough_is_not() {
    for (bytes, end) in [(450, Some(Ended::TooSlow)), (550, None)] {
        let mut case = Case::opened();
        case.progress.begin(Due::Nothing);
        let mut found = None;
        for second in 1..600 {
            let now = case.at(second);
            // Every five seconds some.
            if second % 5 == 0 {
                case.progress.wrote(bytes, now);
            }
            case.progress.waits(now, Waker::noop());
            found = found.or(case.ended(second));
        }
        assert_eq!(found, end, "{bytes}");
    }
}

#[test]
fn time_in_which_nothing_waits_for_the_client_is_not_held_against_it() {
    let mut case = Case::opened();
    case.progress.begin(Due::Nothing);
    for second in 1..600 {
        let now = case.at(second);
        // The store gives a byte a second, and the client takes each at once.
        case.progress.waits(now, Waker::noop());
        case.progress.wrote(1, now);
        assert_eq!(case.ended(second), None);
    }
}

#[test]
fn a_writer_that_waits_is_woken_now_and_then_to_try() {
    let mut case = Case::opened();
    case.progress.begin(Due::Nothing);
    let at = case.at(0);
    assert!(!case.progress.waits(at, Waker::noop()));
    let at = case.at(3);
    assert!(case.progress.look(&patience(), at).wake.is_none());
    let at = case.at(4);
    assert!(case.progress.look(&patience(), at).wake.is_some());
    assert!(case.progress.waits(at, Waker::noop()), "it tries");
    assert!(!case.progress.waits(at, Waker::noop()), "once");
}

fn leave(case: &mut Case) -> Leave {
    case.progress.may_read(&patience(), Waker::noop())
}

#[test]
fn a_head_may_be_as_large_as_the_limit_and_no_larger() {
    let mut case = Case::opened();
    let at = case.at(0);
    assert_eq!(leave(&mut case), Leave::Head(1000));
    case.progress.head(&[b'x'; 999], at);
    assert_eq!(leave(&mut case), Leave::Head(1));
    case.progress.head(b"x", at);
    assert_eq!(leave(&mut case), Leave::TooLarge);
}

#[test]
fn one_head_is_handed_on_at_a_time() {
    let mut case = Case::opened();
    let at = case.at(0);
    assert_eq!(case.progress.head(b"GET / HTTP/1.1\r\n\r\nGET /next", at), 18);
    assert_eq!(leave(&mut case), Leave::Parked, "until it begins a request");
    case.progress.begin(Due::Nothing);
    assert_eq!(leave(&mut case), Leave::Parked, "until that is answered");
    assert!(case.progress.answered(at).is_some(), "the reader goes on");
    assert_eq!(leave(&mut case), Leave::Head(1000));
}

#[test]
fn of_a_body_comes_as_much_as_was_stated() {
    let mut case = Case::opened();
    let at = case.at(0);
    case.progress.head(b"POST / HTTP/1.1\r\n\r\n", at);
    assert_eq!(leave(&mut case), Leave::Parked);
    assert!(
        case.progress.begin(Due::Bytes(5000)).is_some(),
        "the reader goes on"
    );
    assert_eq!(leave(&mut case), Leave::Body(5000));
    case.progress.body(4000);
    assert_eq!(leave(&mut case), Leave::Body(1000));
    case.progress.answered(at);
    assert_eq!(leave(&mut case), Leave::Body(1000), "though nobody wants it");
    case.progress.body(1000);
    assert_eq!(leave(&mut case), Leave::Head(1000));
}

#[test]
fn chunks_come_in_small_pieces_and_not_for_ever_where_nobody_wants_them() {
    let mut case = Case::opened();
    let at = case.at(0);
    case.progress.begin(Due::CHUNKS);
    for _ in 0..100 {
        assert_eq!(leave(&mut case), Leave::Body(4096));
        case.progress.body(4096);
        assert_eq!(leave(&mut case), Leave::Later);
    }
    case.progress.answered(at);
    assert_eq!(leave(&mut case), Leave::Body(4096));
    case.progress.body(1000);
    assert_eq!(leave(&mut case), Leave::Parked);
    assert_eq!(case.ended(6), Some(Ended::UnreadBody));
}

#[test]
fn only_a_connection_without_anything_to_do_is_idle() {
    let mut case = Case::opened();
    let at = case.at(1);
    assert_eq!(case.progress.idle_since(), Some((false, case.opened)));
    case.progress.begin(Due::Nothing);
    assert_eq!(case.progress.idle_since(), None);
    case.progress.answered(at);
    assert_eq!(case.progress.idle_since(), Some((true, at)));
    case.progress.waits(at, Waker::noop());
    assert_eq!(case.progress.idle_since(), None);
    let at = case.at(2);
    case.progress.wrote(1, at);
    assert_eq!(case.progress.idle_since(), Some((true, at)));
    let later = case.at(3);
    case.progress.head(b"G", later);
    assert_eq!(case.progress.idle_since(), Some((false, later)));
    case.progress.head(b"ET / HTTP/1.1\r\n\r\n", later);
    assert_eq!(case.progress.idle_since(), None);
}

#[test]
fn more_of_an_answer_waits_until_the_client_has_taken_what_waits() {
    let mut case = Case::opened();
    case.progress.begin(Due::Nothing);
    assert!(case.progress.may_fill(Waker::noop()));
    let at = case.at(1);
    case.progress.waits(at, Waker::noop());
    assert!(!case.progress.may_fill(Waker::noop()));
    assert!(case.progress.wrote(1, at).is_some(), "who waited is woken");
    assert!(case.progress.may_fill(Waker::noop()));
    assert!(case.progress.wrote(1, at).is_none(), "once");
}

#[test]
fn what_was_upgraded_is_handed_on_as_it_comes_and_ends_with_its_answer() {
    let mut case = Case::opened();
    case.progress.begin(Due::Nothing);
    let waker = Waker::noop();
    assert_eq!(case.progress.may_read(&patience(), waker), Leave::Parked);
    assert!(case.progress.upgrade().is_some(), "who waits is woken");
    for _ in 0..3 {
        assert_eq!(
            case.progress.may_read(&patience(), waker),
            Leave::Body(Due::PIECE)
        );
        case.progress.body(Due::PIECE);
    }
    assert_eq!(case.ended(100_000), None);
    assert_eq!(case.progress.idle_since(), None, "its place is not another's");
    let at = case.at(0);
    case.progress.answered(at);
    assert_eq!(case.progress.may_read(&patience(), waker), Leave::End);
}

#[test]
fn what_was_upgraded_has_a_while_longer_to_take_what_it_is_told_last() {
    let mut case = Case::opened();
    case.progress.begin(Due::Nothing);
    case.progress.upgrade();
    let at = case.at(0);
    case.progress.waits(at, Waker::noop());
    assert_eq!(
        case.progress.blocked_for(case.at(7)),
        Some(Duration::from_secs(7))
    );
    assert_eq!(case.ended(34), None);
    assert_eq!(case.ended(36), Some(Ended::Stalled));
}
