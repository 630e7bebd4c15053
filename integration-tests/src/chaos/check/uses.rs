//! No grant is used more often than it allows: by the store's own count, and by what reached the clients, whatever
//! the store says.

use std::collections::{BTreeSet, HashMap};

use super::{Findings, Known, Rule};

pub(super) fn check(known: &Known<'_>, findings: &mut Findings) {
    let mut delivered: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for stream in known.record.streams.iter().filter(|s| s.received() > 0) {
        let Some(redemption) = stream
            .redemption
            .as_deref()
            .and_then(|id| known.redemptions.get(id))
        else {
            // Told by the rule of authorizations.
            continue;
        };
        delivered
            .entry(redemption.grant.as_str())
            .or_default()
            .insert(redemption.id.as_str());
        if redemption.is_given_back() {
            findings.add(
                Rule::Uses,
                format!(
                    "redemption {} delivered {} bytes ({}), and its use was given back",
                    redemption.id,
                    stream.received(),
                    stream.correlation
                ),
            );
        }
    }
    let mut taken: HashMap<&str, (i64, i64)> = HashMap::new();
    for redemption in &known.store.redemptions {
        let (had, given_back) = taken.entry(redemption.grant.as_str()).or_default();
        *had += i64::from(!redemption.is_given_back());
        *given_back += i64::from(redemption.is_given_back());
    }
    for grant in &known.store.grants {
        let reached = delivered.get(grant.id.as_str()).map_or(0, BTreeSet::len);
        if i64::try_from(reached).is_ok_and(|n| n > grant.max_uses) {
            findings.add(
                Rule::Uses,
                format!(
                    "grant {} allows {} uses, and {reached} redemptions delivered bytes: {:?}",
                    grant.id,
                    grant.max_uses,
                    delivered[grant.id.as_str()]
                ),
            );
        }
        let (had, given_back) = taken.get(grant.id.as_str()).copied().unwrap_or_default();
        let is_counted = (had..=had + given_back).contains(&grant.uses) && grant.uses <= grant.max_uses;
        if !is_counted || had > grant.max_uses {
            findings.add(
                Rule::Uses,
                format!(
                    "grant {} says {} of {} uses; {had} redemptions had one, {given_back} gave it back",
                    grant.id, grant.uses, grant.max_uses
                ),
            );
        }
    }
}
