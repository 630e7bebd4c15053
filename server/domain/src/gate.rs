//! The one gate: whether this caller may have these bytes now, and if not, the first reason that applies.
//! Every route to content asks it inside the transaction that takes the use.

use crate::access::Principal;
use crate::document::{Document, StoredBinary};
use crate::grant::{Constraints, Grant, GrantState};
use crate::reason::Reason;
use crate::scan::Withheld;
use crate::standing::Standing;
use crate::task::Task;
use crate::time::Timestamp;
use crate::workflow::Workflow;

/// Everything that decides over one redemption, read under lock.
#[derive(Debug, Clone, Copy)]
pub struct Gate<'a> {
    /// Who asks.
    pub caller: &'a Principal,
    /// From where.
    pub address: Option<std::net::IpAddr>,
    /// The Task that would justify it.
    pub task: &'a Task,
    /// The document that the bytes belong to; `None` where it is gone.
    pub document: Option<&'a Document>,
    /// The caller's newest grant for these bytes under this Task.
    pub grant: Option<&'a Grant>,
    /// The bytes.
    pub binary: &'a StoredBinary,
    /// The rules for the Task's code.
    pub workflow: &'a Workflow,
    /// What an operator has blocked.
    pub standing: &'a Standing,
    /// Why the bytes wait for a malware scan, or are known to be bad; `None` where they may go, or where nothing is asked of that.
    pub withheld: Option<Withheld>,
    /// Whether the policy lets this caller fetch at all.
    pub policy_allows: bool,
    /// Now.
    pub now: Timestamp,
}

impl Gate<'_> {
    /// Whether a use may be taken; else the first reason that applies.
    pub fn check(&self) -> Result<(), Reason> {
        self.check_standing()?;
        let Some(grant) = self.grant else {
            return Err(Reason::NotBound);
        };
        if let Some(reason) = grant.state.reason() {
            return Err(reason);
        }
        if grant.expires_at().is_none_or(|at| at <= self.now) {
            return Err(Reason::Expired);
        }
        if grant.uses >= grant.max_uses {
            return Err(Reason::Exhausted);
        }
        self.check_caller(grant)
    }

    /// Whether a stream of an open redemption may go on: as [`Gate::check`], but exhaustion and ordinary expiry
    /// only forbid starting.
    pub fn check_resume(&self) -> Result<(), Reason> {
        self.check_standing()?;
        let Some(grant) = self.grant else {
            return Err(Reason::NotBound);
        };
        match &grant.state {
            GrantState::Bound(_) | GrantState::Exhausted(..) | GrantState::Expired(..) => {}
            GrantState::Issued => return Err(Reason::NotBound),
            GrantState::Suspended(_, reason) | GrantState::Revoked(_, _, reason) => return Err(*reason),
        }
        self.check_caller(grant)
    }

    /// Caller, Task and document, in the order in which reasons are told: whether any grant could be used now.
    pub fn check_standing(&self) -> Result<(), Reason> {
        let holder = self.task.facts.holders().contains(&self.caller.actor);
        if !holder && self.task.former_owners.contains(&self.caller.actor) {
            return Err(Reason::Reassigned);
        }
        if let Some(reason) = self.task.blocks_release(self.workflow, self.now) {
            return Err(reason);
        }
        let Some(document) = self.document else {
            return Err(Reason::DocumentDeleted);
        };
        if !self.task.documents.contains(&document.id) {
            return Err(Reason::InputRemoved);
        }
        if let Some(reason) = document.blocks_content(&self.binary.sha256) {
            return Err(reason);
        }
        if self.binary.deleted {
            return Err(Reason::DocumentDeleted);
        }
        if let Some(reason) = document.withheld_at(self.now) {
            return Err(reason);
        }
        if !self.workflow.may_release(document.class.as_deref())
            || !document.is_about(self.task.facts.subject.as_deref())
        {
            return Err(Reason::DocumentWithheld);
        }
        if self.withheld.is_some() {
            return Err(Reason::DocumentWithheld);
        }
        let blocked = self.standing.on_release(self.task, document);
        let caller = || self.standing.on_caller(self.caller);
        let holder = || self.standing.on_holder(self.task, &self.caller.actor);
        let held = || self.standing.holds(&self.task.id, &document.id);
        match blocked.or_else(held).or_else(caller).or_else(holder) {
            Some(reason) => Err(reason),
            None => Ok(()),
        }
    }

    fn check_caller(&self, grant: &Grant) -> Result<(), Reason> {
        let holder = self.task.facts.holders().contains(&self.caller.actor);
        if !holder || grant.grantee() != Some(&self.caller.actor) {
            return Err(Reason::NotGrantee);
        }
        // A grant opens its own document's bytes under its own Task, whatever it was looked up by.
        let named = self.document.is_some_and(|d| d.id == grant.document);
        if !named || grant.task != self.task.id || grant.sha256 != self.binary.sha256 {
            return Err(Reason::NotBound);
        }
        if !self.policy_allows {
            return Err(Reason::PolicyDenied);
        }
        check_constraints(
            &grant.constraints,
            self.caller,
            self.address,
            &self.binary.content_type,
        )
    }
}

/// Whether the caller meets what the grant asks beyond identity.
fn check_constraints(
    constraints: &Constraints,
    caller: &Principal,
    address: Option<std::net::IpAddr>,
    content_type: &str,
) -> Result<(), Reason> {
    if !constraints.client.is_empty() && !constraints.client.contains(&caller.client) {
        return Err(Reason::ConstraintClient);
    }
    if !constraints.ip.is_empty() {
        let inside = address.is_some_and(|a| constraints.ip.iter().any(|range| in_range(a, range)));
        if !inside {
            return Err(Reason::ConstraintIp);
        }
    }
    if constraints.key.is_some() && constraints.key != caller.key {
        return Err(Reason::ConstraintKey);
    }
    if !constraints.content_type.is_empty() && !constraints.content_type.iter().any(|t| t == content_type) {
        return Err(Reason::ConstraintContentType);
    }
    Ok(())
}

/// Whether `range` is an address or a CIDR range.
pub fn is_address_range(range: &str) -> bool {
    parse_range(range).is_some()
}

fn parse_range(range: &str) -> Option<(std::net::IpAddr, u32)> {
    let (address, length) = match range.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
        None => (range, None),
    };
    let address: std::net::IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(most);
    (length <= most).then_some((address, length))
}

/// Whether an address lies in a CIDR range; an IPv4 address mapped into IPv6 counts as IPv4.
fn in_range(address: std::net::IpAddr, range: &str) -> bool {
    let Some((base, length)) = parse_range(range) else {
        return false;
    };
    let bits = |a: std::net::IpAddr| match a.to_canonical() {
        std::net::IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32u32),
        std::net::IpAddr::V6(v6) => (v6.to_bits(), 128u32),
    };
    let ((a, width), (b, base_width)) = (bits(address), bits(base));
    let shift = base_width.saturating_sub(length);
    width == base_width && a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_its_range_only() {
        let ip = |text: &str| text.parse().unwrap();
        assert!(in_range(ip("10.1.2.3"), "10.0.0.0/8"));
        assert!(in_range(ip("::ffff:10.1.2.3"), "10.0.0.0/8"));
        assert!(!in_range(ip("11.1.2.3"), "10.0.0.0/8"));
        assert!(in_range(ip("127.0.0.1"), "0.0.0.0/0"));
        assert!(in_range(ip("fe80::1"), "fe80::/10"));
        assert!(!in_range(ip("10.0.0.1"), "not-a-range"));
        assert!(!is_address_range("10.0.0.0/33"));
    }
}
