//! What a source tells of patients, consent, encounters, people and teams: facts that stand in the way of releases. Written
//! first, so that nothing is issued or fetched any more; then what was issued before is taken back, running downloads
//! included; and only then the notice is done.

use std::collections::BTreeSet;

use handoff_domain::audit::{About, Outcome};
use handoff_domain::facts::{Fact, FactKind, follow};
use handoff_domain::inbox::SourceVersion;
use handoff_domain::ports::Tx;
use handoff_domain::reason::Reason;
use handoff_domain::source::Source;
use handoff_domain::standing::Target;
use handoff_fhir_model::{Resource, clinical_sayings};

use super::{Applying, Held, hold, mirrored, settle, settle_old, told};
use crate::app::standing::take_back;
use crate::app::{App, AppError, Cuts, Scope};

/// Applies a notice about one of these.
pub(super) async fn apply(
    app: &App,
    applying: &Applying,
    resource: &Resource,
    version: SourceVersion,
) -> Result<(), AppError> {
    let (scope, of, tenant) = (
        app.scope(&applying.caller),
        applying.clone(),
        applying.caller.tenant().clone(),
    );
    let (at, read) = (version.clone(), resource.clone());
    let targets: Option<BTreeSet<Target>> = app
        .write(&tenant, move |tx| {
            let (notice, before) = match hold(tx, &of, &at)? {
                Held::Settled => return Ok((None, Cuts::none())),
                Held::Old(notice) => {
                    return Ok((None, settle_old(tx, &scope, notice)?));
                }
                Held::Open(notice, before) => (notice, before),
            };
            let since = at.updated.unwrap_or(notice.received_at);
            let facts = write(tx, &scope, &of.source, &read, since)?;
            let reason = reason_of(&facts);
            let row =
                told(&scope, &notice, Outcome::Success, reason).detail("facts", facts.len().to_string());
            tx.record(scope.tenant(), row.about(about(&facts)));
            tx.put_mirror(scope.tenant(), &mirrored(&notice, before, None, Vec::new()))?;
            let targets = facts.iter().filter(|fact| fact.stands).filter_map(Fact::target);
            Ok((Some(targets.collect()), Cuts::none()))
        })
        .await?;
    let Some(targets) = targets else { return Ok(()) };
    app.see_change().await;
    for target in &targets {
        take_back(app, &tenant, target).await?;
    }
    let (scope, of) = (app.scope(&applying.caller), applying.clone());
    app.write(&tenant, move |tx| {
        if let Held::Open(notice, _) = hold(tx, &of, &version)? {
            settle(tx, &scope, &of, notice, None, About::default())?;
        }
        Ok(((), Cuts::none()))
    })
    .await
}

/// Writes what a resource says now, and that what it said before stands no more. Answers what changed or was said again.
fn write(
    tx: &mut dyn Tx,
    scope: &Scope,
    source: &Source,
    resource: &Resource,
    since: handoff_domain::Timestamp,
) -> Result<Vec<Fact>, AppError> {
    let theirs = format!("{}/{}", resource.type_name(), resource.id().unwrap_or_default());
    let before = tx.facts_of(scope.tenant(), &source.id, &theirs)?;
    let now = follow(&before, clinical_sayings(resource, scope.now()));
    let mut changed = Vec::new();
    for saying in &now {
        let known = before.iter().find(|fact| fact.stands && fact.saying == *saying);
        changed.push(Fact {
            source: source.id.clone(),
            resource: theirs.clone(),
            saying: saying.clone(),
            // Since when it is so; consent is as new as the version that says it.
            at: match (known, saying.kind) {
                (Some(known), FactKind::PatientMerged | FactKind::MemberNoMore) => known.at,
                _ => since,
            },
            stands: true,
        });
    }
    let gone = before
        .iter()
        .filter(|fact| fact.stands && !now.contains(&fact.saying));
    changed.extend(gone.map(|fact| Fact {
        stands: false,
        ..fact.clone()
    }));
    for fact in &changed {
        tx.put_fact(scope.tenant(), fact, scope.now())?;
    }
    Ok(changed)
}

/// Why releases end by these facts.
fn reason_of(facts: &[Fact]) -> Reason {
    let mut standing = facts.iter().filter(|fact| fact.stands);
    standing
        .find_map(|fact| match fact.saying.kind {
            FactKind::PatientMerged => Some(Reason::PatientMerged),
            FactKind::ConsentWithdrawn | FactKind::ConsentDenied => Some(Reason::ConsentWithdrawn),
            FactKind::MemberNoMore | FactKind::ActorEnded => Some(Reason::ActorRevoked),
            FactKind::ConsentGiven
            | FactKind::EncounterEnded
            | FactKind::Member
            | FactKind::TaskEnded
            | FactKind::TaskHeld
            | FactKind::DocumentEnded
            | FactKind::DocumentHeld => None,
        })
        .unwrap_or(Reason::Permitted)
}

fn about(facts: &[Fact]) -> About {
    let patient = facts.iter().map(|fact| &fact.saying.subject);
    About {
        patient: patient
            .into_iter()
            .find(|subject| subject.starts_with("Patient/"))
            .cloned(),
        ..About::default()
    }
}
