//! Task and grants agree: the table of what a Task's status means for its grants, written down a second time and
//! independently of the server's.

use std::collections::HashMap;

use super::{DOCUMENT, Findings, Known, Rule, TASK};
use crate::chaos::record::Micros;
use crate::chaos::snapshot::{GrantRow, HeadRow, VersionRow};

/// How long after its time an expiry may be carried out, at rest.
const EXPIRY: Micros = 5_000_000;

/// Whether content may be released in this status.
pub(super) fn is_actionable(status: &str) -> bool {
    matches!(status, "ready" | "accepted" | "in-progress")
}

/// Whether the Task has ended.
fn is_ended(status: &str) -> bool {
    matches!(
        status,
        "completed" | "cancelled" | "failed" | "rejected" | "entered-in-error"
    )
}

pub(super) fn check(known: &Known<'_>, findings: &mut Findings) {
    let mut grants: HashMap<&str, Vec<&GrantRow>> = HashMap::new();
    for grant in &known.store.grants {
        grants.entry(grant.task.as_str()).or_default().push(grant);
    }
    for head in known.store.heads.iter().filter(|head| head.kind == TASK) {
        let Some(task) = known.versions(TASK, &head.id).last() else {
            continue;
        };
        let grants = grants.get(head.id.as_str()).map_or(&[][..], Vec::as_slice);
        let case = Case {
            known,
            head,
            task,
            grants,
        };
        for grant in grants {
            if let Some(what) = case.disagrees(grant) {
                findings.add(
                    Rule::Agreement,
                    format!(
                        "grant {} is {} for {:?} while Task/{} (version {}, {}, owner {:?}) {what}",
                        grant.id, grant.status, grant.grantee, head.id, head.version, task.status, task.owner
                    ),
                );
            }
        }
        case.check_what_is_missing(findings);
        case.check_doubles(findings);
        case.check_redemptions(findings);
    }
}

struct Case<'a> {
    known: &'a Known<'a>,
    head: &'a HeadRow,
    task: &'a VersionRow,
    grants: &'a [&'a GrantRow],
}

impl Case<'_> {
    fn is_over(&self) -> bool {
        self.head.is_deleted || is_ended(&self.task.status)
    }

    /// Why a grant must not be as it is.
    fn disagrees(&self, grant: &GrantRow) -> Option<&'static str> {
        let is_timed = matches!(grant.status.as_str(), "bound" | "suspended");
        if !grant.is_open() {
            return None;
        }
        if self.is_over() {
            return Some("is over");
        }
        if !self.task.names.contains(&grant.document) {
            return Some("does not name the document");
        }
        if !self.releases(&grant.document, &grant.binary) {
            return Some("names a document that is gone, or has other content by now");
        }
        if is_timed && grant.grantee != self.task.owner {
            return Some("belongs to another");
        }
        if grant
            .expires
            .is_some_and(|at| is_timed && at + EXPIRY < self.known.store.taken)
        {
            return Some("should have seen it expire");
        }
        match grant.status.as_str() {
            "bound" if !is_actionable(&self.task.status) => Some("is not actionable"),
            "suspended" if is_actionable(&self.task.status) => Some("goes on"),
            _ => None,
        }
    }

    /// Whether the document, as it now stands, has this content and may be released.
    fn releases(&self, document: &str, binary: &str) -> bool {
        self.known
            .versions(DOCUMENT, document)
            .last()
            .is_some_and(|d| !d.is_deleted && d.status == "current" && d.names.iter().any(|b| b == binary))
    }

    /// A Task that may release has, or has had, a grant for each content and its owner.
    fn check_what_is_missing(&self, findings: &mut Findings) {
        let status = self.task.status.as_str();
        let prepares = matches!(status, "requested" | "received");
        if self.head.is_deleted || !(prepares || is_actionable(status)) {
            return;
        }
        let owner = self.task.owner.as_ref().filter(|_| !prepares);
        for document in &self.task.names {
            let Some(version) = self.known.versions(DOCUMENT, document).last() else {
                continue;
            };
            for binary in version.names.iter().filter(|b| self.releases(document, b)) {
                let is_there = self
                    .grants
                    .iter()
                    .any(|g| g.binary == *binary && (owner.is_none() || g.grantee.as_ref() == owner));
                if !is_there {
                    findings.add(
                        Rule::Agreement,
                        format!(
                            "Task/{} is {status} and has no grant for {owner:?} to Binary/{binary}",
                            self.head.id
                        ),
                    );
                }
            }
        }
    }

    /// At most one open grant for the same content and grantee.
    fn check_doubles(&self, findings: &mut Findings) {
        let mut open: HashMap<(&str, Option<&str>), u32> = HashMap::new();
        for grant in self.grants.iter().filter(|g| g.is_open()) {
            *open
                .entry((grant.binary.as_str(), grant.grantee.as_deref()))
                .or_default() += 1;
        }
        for ((binary, grantee), count) in open.into_iter().filter(|(_, count)| *count > 1) {
            findings.add(
                Rule::Agreement,
                format!(
                    "Task/{} has {count} open grants for {grantee:?} to Binary/{binary}",
                    self.head.id
                ),
            );
        }
    }

    /// Nothing may be gone on with under a Task that pauses, is over or belongs to another.
    fn check_redemptions(&self, findings: &mut Findings) {
        for redemption in &self.known.store.redemptions {
            let Some(grant) = self.grants.iter().find(|g| g.id == redemption.grant) else {
                continue;
            };
            let may_go_on = matches!(
                redemption.state.as_str(),
                "authorized" | "streaming" | "interrupted"
            ) && redemption.window_end > self.known.store.taken;
            let is_allowed = !self.is_over()
                && is_actionable(&self.task.status)
                && self.task.owner.as_ref() == Some(&redemption.grantee)
                && self.task.names.contains(&grant.document)
                && self.releases(&grant.document, &grant.binary)
                && grant.status != "revoked";
            if may_go_on && !is_allowed {
                findings.add(
                    Rule::Agreement,
                    format!(
                        "redemption {} of {} is {} and could go on while Task/{} is {} and its grant {}",
                        redemption.id,
                        redemption.grantee,
                        redemption.state,
                        self.head.id,
                        self.task.status,
                        grant.status
                    ),
                );
            }
        }
    }
}
