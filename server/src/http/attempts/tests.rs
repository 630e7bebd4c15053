use super::*;

const NOW: Timestamp = Timestamp(1_000_000_000);

fn attempts(tokens: usize, address: usize, client: usize, link: usize) -> Attempts {
    Attempts::new(&Clients {
        failed_tokens_per_minute: tokens,
        failed_links_per_minute_address: address,
        failed_links_per_minute_client: client,
        failed_links_per_minute_link: link,
        ..Clients::default()
    })
}

fn source(address: &str) -> Source {
    Source::of(Some(address.parse().unwrap()))
}

fn opening(address: &str, client: &str, actor: &str, link: &str) -> Opening {
    Opening {
        source: source(address),
        client: digest(["https://issuer", client]),
        actor: digest(["default", actor]),
        link: digest(["default", link]),
    }
}

fn seconds(refusal: &AppError) -> u64 {
    match refusal.class {
        Class::RateLimited { seconds } => seconds,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_ipv6_network_is_one_source_and_an_ipv4_address_is_one_however_it_is_written() {
    assert_eq!(
        source("2001:db8:1:2::1"),
        source("2001:db8:1:2:ffff:ffff:ffff:ffff")
    );
    assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
    assert_eq!(source("::ffff:203.0.113.5"), source("203.0.113.5"));
    assert_ne!(source("203.0.113.5"), source("203.0.113.6"));
    assert_eq!(Source::of(None), Source::of(None));
}

#[test]
fn after_so_many_refused_tokens_an_address_has_only_those_looked_at_that_were_good() {
    let attempts = attempts(3, 0, 0, 0);
    let here = source("203.0.113.5");
    for _ in 0..3 {
        drop(attempts.token(here, || None, NOW).unwrap());
    }
    let refused = attempts.token(here, || None, NOW).unwrap_err();
    assert_eq!((refused.reason, seconds(&refused)), (Reason::RateLimited, 20));
    attempts
        .token(source("203.0.113.6"), || None, NOW)
        .unwrap()
        .forgive();
    let good = Some([1; 32]);
    for _ in 0..100 {
        attempts.token(here, || good, NOW).unwrap().forgive();
    }
    // One that was good, and fails all the time now, has had its attempts as well; another one has its own.
    for _ in 0..3 {
        drop(attempts.token(here, || good, NOW).unwrap());
    }
    attempts.token(here, || good, NOW).unwrap_err();
    attempts.token(here, || Some([2; 32]), NOW).unwrap().forgive();
}

#[test]
fn what_does_not_fail_is_not_counted_however_often() {
    let attempts = attempts(1, 1, 1, 1);
    let opening = opening("203.0.113.5", "app", "Practitioner/lane", "h");
    for _ in 0..100 {
        attempts.token(opening.source, || None, NOW).unwrap().forgive();
        attempts.link(opening, NOW).unwrap().forgive();
    }
}

#[test]
fn each_limit_of_links_holds_by_itself() {
    let number = |n: usize| n.to_string();
    let ways: [(&str, &dyn Fn(usize) -> Opening); 3] = [
        ("address", &|n| {
            opening("203.0.113.5", &number(n), "x", &number(n))
        }),
        ("client", &|n| {
            opening(&format!("203.0.113.{n}"), "app", "x", &number(n))
        }),
        ("link", &|n| {
            opening(&format!("203.0.113.{n}"), &number(n), "x", "h")
        }),
    ];
    for (what, way) in ways {
        let attempts = attempts(0, 3, 3, 3);
        for n in 0..3 {
            drop(attempts.link(way(n), NOW).unwrap());
        }
        let refused = attempts.link(way(3), NOW).unwrap_err();
        assert_eq!(seconds(&refused), 20, "{what}");
        let later = NOW.plus(Span::seconds(20));
        attempts.link(way(3), later).unwrap().forgive();
    }
}

#[test]
fn who_did_not_fail_herself_is_kept_out_by_nobody() {
    let attempts = attempts(0, 30, 30, 10);
    let stranger = |n: usize| opening("203.0.113.5", "app", &format!("Practitioner/{n}"), "h");
    for _ in 0..5 {
        for n in 0..10 {
            if let Ok(trial) = attempts.link(stranger(n), NOW) {
                drop(trial);
            }
        }
    }
    let lane = opening("203.0.113.5", "app", "Practitioner/lane", "h");
    for _ in 0..100 {
        attempts.link(lane, NOW).unwrap().forgive();
    }
    // One slip of her own costs her seconds, not the minute of the others.
    drop(attempts.link(lane, NOW).unwrap());
    assert_eq!(seconds(&attempts.link(lane, NOW).unwrap_err()), 6);
    attempts.link(lane, NOW.plus(Span::seconds(6))).unwrap().forgive();
}

#[test]
fn a_caller_with_many_accounts_has_one_attempt_more_for_each() {
    let attempts = attempts(0, 30, 30, 10);
    let tried = (0..100)
        .flat_map(|n| [n; 20])
        .filter(|n| {
            let name = format!("Practitioner/{n}");
            attempts
                .link(opening("203.0.113.5", "app", &name, "h"), NOW)
                .is_ok()
        })
        .count();
    assert_eq!(tried, 10 + 99);
}
