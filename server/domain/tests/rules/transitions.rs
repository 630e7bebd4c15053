//! The closed table of Task moves, written down a second time, as a picture, and compared cell by cell.

use handoff_domain::task::{TaskStatus, check_move};
use handoff_domain::workflow::Workflow;

/// Columns: the statuses in the order of the R4 value set. `x`: legal, `.`: not, `=`: keeps the status.
const TABLE: [(&str, &str); 13] = [
    //                  d r r a r r c i o f c e
    //                  r e e c e e a n n a o r
    //                  a q c c j a n p h i m r
    ("(create)", "x x x x . x . x . . . ."),
    ("draft", "= x . . . x x . . . . x"),
    ("requested", ". = x x x x x . . . . x"),
    ("received", ". . = x x x x . . . . x"),
    ("accepted", ". . . = . x x x x x . x"),
    ("rejected", ". . . . = . . . . . . x"),
    ("ready", ". x . . . = x x x x x x"),
    ("cancelled", ". . . . . . = . . . . x"),
    ("in-progress", ". . . . . x x = x x x x"),
    ("on-hold", ". . . . . . x . = x . x"),
    ("failed", ". . . . . . . . . = . x"),
    ("completed", ". . . . . . . . . . = x"),
    ("entered-in-error", ". . . . . . . . . . . ="),
];

/// Whether the picture allows a move; on hold also back to where the Task was held.
pub fn is_legal(from: Option<TaskStatus>, held_from: Option<TaskStatus>, to: TaskStatus) -> bool {
    let name = from.map_or("(create)", TaskStatus::as_str);
    let (_, row) = TABLE.iter().find(|(status, _)| *status == name).unwrap();
    let column = TaskStatus::ALL.iter().position(|s| *s == to).unwrap();
    let cell = row.split(' ').nth(column).unwrap();
    cell != "." || (from == Some(TaskStatus::OnHold) && held_from == Some(to))
}

#[test]
fn every_move_is_legal_exactly_where_the_picture_says_so() {
    let workflow = Workflow::default();
    let mut cells = 0;
    for from in std::iter::once(None).chain(TaskStatus::ALL.map(Some)) {
        for to in TaskStatus::ALL {
            let answer = check_move(&workflow, from, None, to);
            assert_eq!(answer.is_ok(), is_legal(from, None, to), "{from:?} to {to:?}");
            if let Err(error) = answer {
                assert_eq!((error.from, error.to), (from, to));
                for next in TaskStatus::ALL {
                    let named = error.legal.contains(&next);
                    assert_eq!(
                        named,
                        Some(next) != from && is_legal(from, None, next),
                        "{from:?}: {next:?}"
                    );
                }
            }
            cells += 1;
        }
    }
    assert_eq!(cells, 12 * 13);
}

#[test]
fn a_task_on_hold_goes_back_only_to_where_it_was_held() {
    let workflow = Workflow::default();
    for held_from in [TaskStatus::Accepted, TaskStatus::Ready, TaskStatus::InProgress] {
        for to in TaskStatus::ALL {
            let from = Some(TaskStatus::OnHold);
            let answer = check_move(&workflow, from, Some(held_from), to);
            assert_eq!(
                answer.is_ok(),
                is_legal(from, Some(held_from), to),
                "{held_from:?} {to:?}"
            );
        }
    }
}

#[test]
fn where_a_task_was_held_matters_only_while_it_is_on_hold() {
    let workflow = Workflow::default();
    let answer = check_move(
        &workflow,
        Some(TaskStatus::Completed),
        Some(TaskStatus::Ready),
        TaskStatus::Ready,
    );
    assert!(answer.is_err());
}
