//! What a parent Task's movement does to its children (`partOf`): they are suspended and resumed with it,
//! and cancelled when it ends, each with its own grants, versions and records.

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
    descend(tx, scope, &after.id, following, MAX_TASK_DEPTH)
}

fn descend(
    tx: &mut dyn Tx,
    scope: &Scope,
    parent: &TaskId,
    following: Following,
    depth: usize,
) -> Result<Cuts, AppError> {
    let mut cuts = Cuts::none();
    let Some(depth) = depth.checked_sub(1) else {
        return Ok(cuts);
    };
    let ids = tx.children(scope.tenant(), parent)?;
    if ids.is_empty() {
        return Ok(cuts);
    }
    for child in tx.lock_tasks(scope.tenant(), &ids)? {
        if child.deleted {
            continue;
        }
        if let Some((status, held_by_parent)) = next_of(&child, following) {
            cuts.extend(move_child(tx, scope, &child, status, held_by_parent)?);
        }
        cuts.extend(descend(tx, scope, &child.id, following, depth)?);
    }
    Ok(cuts)
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
    let edit = TaskEdit {
        status: Some(status),
        ..TaskEdit::default()
    };
    let resource = edit_task(&stored.body, edit, version, scope.now())?;
    let mut after = Task {
        version,
        last_updated: before.last_updated.max(scope.now()),
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
