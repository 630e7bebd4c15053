//! Whatever comes in: no panic, a reason for every refusal, and what is taken reads back as itself.

mod mutations;

use mutations::{Random, SEEDS, holds, input};

#[test]
fn valid_resources_are_taken_and_read_back() {
    for seed in SEEDS {
        assert_eq!(holds(seed.as_bytes()), Ok(true), "{seed}");
    }
}

#[test]
fn damaged_resources_never_do_harm() {
    const ROUNDS: usize = 4_000;
    let mut random = Random::new(0x1d0c_5eed);
    let mut taken = 0usize;
    for round in 0..ROUNDS {
        let data = input(&mut random);
        match holds(&data) {
            Ok(was_taken) => taken += usize::from(was_taken),
            Err(what) => panic!("round {round}: {what}\n{}", String::from_utf8_lossy(&data)),
        }
    }
    // Both ways are walked, or the damage is too weak or too strong to find anything.
    assert!(
        taken > ROUNDS / 50 && taken < ROUNDS / 2,
        "{taken} of {ROUNDS} were taken"
    );
}
