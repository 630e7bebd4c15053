//! What `retention.toml` may say, and every problem with what it may not.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use handoff_domain::retention::{KeptFrom, Schedule, Schedules};
use handoff_domain::time::Span;
use handoff_policies::{SHIPPED_RETENTION, parse_retention};

const DAY: Span = Span::hours(24);

fn problems(text: &str) -> Vec<String> {
    parse_retention(text)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn what_ships_disposes_of_nothing_and_withholds_nothing() {
    let schedules = parse_retention(SHIPPED_RETENTION).unwrap();
    assert_eq!(schedules, Schedules::default());
    assert!(!schedules.dispose());
}

#[test]
fn a_class_changes_only_what_it_says() {
    let schedules = parse_retention(
        r#"
        [default]
        keep = "10y"
        grace = "36h"
        [class.progress-note]
        keep = "30d"
        from = "last-changed"
        available = "7d"
        [class.consent]
        keep = "forever"
        "#,
    )
    .unwrap();
    let default = Schedule {
        keep: Some(Span::hours(10 * 366 * 24)),
        from: KeptFrom::Created,
        available: None,
        grace: Span::hours(36),
    };
    assert_eq!(*schedules.of(None), default);
    assert_eq!(*schedules.of(Some("other")), default);
    let consent = Schedule {
        keep: None,
        ..default
    };
    assert_eq!(*schedules.of(Some("consent")), consent);
    let note = Schedule {
        keep: Some(Span(30 * DAY.0)),
        from: KeptFrom::LastChanged,
        available: Some(Span(7 * DAY.0)),
        grace: Span::hours(36),
    };
    assert_eq!(*schedules.of(Some("progress-note")), note);
    assert!(schedules.dispose());
}

#[test]
fn every_problem_is_named_with_its_line_and_key() {
    let found = problems(
        r#"[default]
keep = "1h"
from = "birth"
shelf = 3
[class.Progress_Note]
available = "10m"
grace = "400d"
[class.consent]
keep = 30
[clas.other]
"#,
    );
    assert_eq!(
        found,
        [
            r#"line 2: `default.keep`: must be "forever", or from 24 h to 1000 years"#,
            r#"line 3: `default.from`: must be "created" or "last-changed""#,
            "line 4: `default.shelf`: no such key",
            "line 5: `class.Progress_Note`: `Progress_Note` is not a document class",
            r#"line 6: `class.Progress_Note.available`: `10m` is not a duration: write "1h", "30d" or "10y""#,
            "line 7: `class.Progress_Note.grace`: must be a year or less",
            r#"line 9: `class.consent.keep`: expected a duration as a string, like "1h", "30d" or "10y", found integer"#,
            "line 10: `clas`: no such key",
        ]
    );
    assert_eq!(problems("keep =")[0].split(':').next(), Some("line 1"));
}
