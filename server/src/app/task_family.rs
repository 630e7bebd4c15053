//! What a parent Task's movement does to its children (`partOf`): they are suspended and resumed with it,
//! and cancelled when it ends, each with its own grants, versions and records.

use std::collections::BTreeSet;

use handoff_domain::ids::TaskId;
use handoff_domain::ports::{Kind, Tx};
use handoff_domain::task::{MAX_TASK_DEPTH, Task, TaskStatus};

use super::json_edit::{TaskEdit, edit_task};
use super::tasks::{index, settle_move};
use super::{AppError, Cuts, Scope};

/// What happens to the children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Following {
    Suspend,
    Resume,
    Cancel,
}

/// Brings the children along after a parent went from `before` to `after`.
pub fn follow(tx: &mut dyn Tx, scope: &Scope, before: &Task, after: &Task) -> Result<Cuts, AppError> {
    let (from, to) = (before.facts.status, after.facts.status);
    let following = if after.deleted || (to.is_terminal() && !from.is_terminal()) {
        Following::Cancel
    } else if to == TaskStatus::OnHold && from != TaskStatus::OnHold {
        Following::Suspend
    } else if from == TaskStatus::OnHold && to != TaskStatus::OnHold {
        Following::Resume
    } else {
        return Ok(Cuts::none());
    };
    let mut seen = BTreeSet::from([after.id.clone()]);
    descend(tx, scope, after, following, MAX_TASK_DEPTH, &mut seen)
}

fn descend(
    tx: &mut dyn Tx,
    scope: &Scope,
    parent: &Task,
    following: Following,
    depth: usize,
    seen: &mut BTreeSet<TaskId>,
) -> Result<Cuts, AppError> {
    let mut cuts = Cuts::none();
    let Some(depth) = depth.checked_sub(1) else {
        return Ok(cuts);
    };
    let mut ids = tx.children(scope.tenant(), &parent.id)?;
    // Each once, however many ways lead to it.
    ids.retain(|id| seen.insert(id.clone()));
    if ids.is_empty() {
        return Ok(cuts);
    }
    for child in scope.lock_tasks(tx, &ids)? {
        if child.deleted || !is_part(&child, parent) {
            continue;
        }
        if let Some((status, held_by_parent)) = next_of(&child, following) {
            cuts.extend(move_child(tx, scope, &child, status, held_by_parent)?);
        }
        cuts.extend(descend(tx, scope, &child, following, depth, seen)?);
    }
    Ok(cuts)
}

/// The Tasks that a move of this one would bring along, all the way down.
pub fn parts(tx: &mut dyn Tx, scope: &Scope, id: &TaskId) -> Result<Vec<TaskId>, AppError> {
    let mut found = Vec::new();
    let mut level: Vec<Task> = tx.task(scope.tenant(), id)?.into_iter().collect();
    let mut seen = BTreeSet::from([id.clone()]);
    for _ in 0..MAX_TASK_DEPTH {
        let mut below = Vec::new();
        for parent in &level {
            for child in tx.children(scope.tenant(), &parent.id)? {
                if seen.contains(&child) {
                    continue;
                }
                let child = tx.task(scope.tenant(), &child)?;
                let child = child.filter(|child| !child.deleted && is_part(child, parent));
                below.extend(child.filter(|child| seen.insert(child.id.clone())));
            }
        }
        if below.is_empty() {
            break;
        }
        found.extend(below.iter().map(|task| task.id.clone()));
        level = below;
    }
    Ok(found)
}

/// Whether `partOf` took effect: who named the parent may act on it. Named by others it is kept as text.
fn is_part(child: &Task, parent: &Task) -> bool {
    let placer = &child.created_by;
    *placer == parent.created_by
        || parent.facts.owner_actor().as_ref() == Some(placer)
        || parent.facts.requester_actor().as_ref() == Some(placer)
}

/// The status that a child goes to, and whether its parent then holds it; `None` where it stays.
fn next_of(child: &Task, following: Following) -> Option<(TaskStatus, bool)> {
    let status = child.facts.status;
    match following {
        Following::Cancel => (!status.is_terminal()).then_some((TaskStatus::Cancelled, false)),
        Following::Suspend => matches!(
            status,
            TaskStatus::Accepted | TaskStatus::Ready | TaskStatus::InProgress
        )
        .then_some((TaskStatus::OnHold, true)),
        Following::Resume => {
            let held = status == TaskStatus::OnHold && child.held_by_parent;
            child.held_from.filter(|_| held).map(|origin| (origin, false))
        }
    }
}

fn move_child(
    tx: &mut dyn Tx,
    scope: &Scope,
    before: &Task,
    status: TaskStatus,
    held_by_parent: bool,
) -> Result<Cuts, AppError> {
    let stored = tx
        .current(scope.tenant(), Kind::Task, before.id.as_str())?
        .ok_or_else(AppError::not_found)?;
    let version = before.version.saturating_add(1);
    let at = before.last_updated.max(scope.now());
    let edit = TaskEdit {
        status: Some(status),
        ..TaskEdit::default()
    };
    let resource = edit_task(&stored.body, edit, version, at)?;
    let mut after = Task {
        version,
        last_updated: at,
        held_from: (status == TaskStatus::OnHold).then_some(before.facts.status),
        held_by_parent,
        ..before.clone()
    };
    after.facts.status = status;
    tx.update_task(
        scope.tenant(),
        &after,
        &resource.to_json(),
        Some(&index(scope, &resource)),
    )?;
    settle_move(tx, scope, before, &after)
}
