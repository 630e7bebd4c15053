//! Facts that only sources tell: a patient merged into another, consent withdrawn, a membership ended. Each follows from the
//! newest version of one resource at one source and stands until that resource says otherwise; while it stands nothing that
//! it forbids is issued or released. Knows no FHIR and no store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::{ActorRef, DocumentId, SourceId, TaskId};
use crate::reason::Reason;
use crate::standing::Target;
use crate::time::Timestamp;

/// The team of a membership that names none.
pub const EVERY_TEAM: &str = "*";
/// The most facts that one resource may tell.
pub const MOST_SAYINGS: usize = 1000;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $code:literal),+ $(,)?) => {
        /// What a fact says.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum FactKind { $($(#[$doc])* $variant),+ }

        impl FactKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in the store.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// The kind that a word means.
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($code => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

kinds! {
    /// The patient's record was merged into another.
    PatientMerged = "patient-merged",
    /// The patient consents.
    ConsentGiven = "consent-given",
    /// The patient does so no more.
    ConsentWithdrawn = "consent-withdrawn",
    /// The patient forbids it.
    ConsentDenied = "consent-denied",
    /// The encounter is over.
    EncounterEnded = "encounter-ended",
    /// The person is of a team.
    Member = "member",
    /// The person is of a team no more.
    MemberNoMore = "member-no-more",
    /// The person acts no more.
    ActorEnded = "actor-ended",
    /// The Task has ended, and what says so can't be applied here.
    TaskEnded = "task-ended",
    /// The Task rests, or is of somebody else, or is not known as it is now.
    TaskHeld = "task-held",
    /// The document was withdrawn, and what says so can't be applied here.
    DocumentEnded = "document-ended",
    /// The document is not known as it is now.
    DocumentHeld = "document-held",
}

impl FactKind {
    /// Whether what it stands in the way of goes on once it stands no more.
    pub const fn only_holds(self) -> bool {
        matches!(self, Self::TaskHeld | Self::DocumentHeld)
    }
}

/// What a version of a resource says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Saying {
    /// What.
    pub kind: FactKind,
    /// Of whom: `Patient/1`, `Practitioner/1`, `Encounter/1`; of our own `Task/1` and `DocumentReference/1`.
    pub subject: String,
    /// The team of a membership; empty for the others.
    pub team: String,
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Who tells it.
    pub source: SourceId,
    /// From which resource there: `Type/id`.
    pub resource: String,
    /// What it says.
    pub saying: Saying,
    /// Since when.
    pub at: Timestamp,
    /// Whether it stands; else the resource says so no more.
    pub stands: bool,
}

impl Fact {
    /// Of what something may be open that is not to be, because of this fact.
    pub fn target(&self) -> Option<Target> {
        match self.saying.kind {
            FactKind::PatientMerged | FactKind::ConsentWithdrawn | FactKind::ConsentDenied => {
                Target::parse("patient", &self.saying.subject).ok()
            }
            FactKind::MemberNoMore | FactKind::ActorEnded => {
                Target::parse("actor", &self.saying.subject).ok()
            }
            FactKind::TaskEnded | FactKind::TaskHeld => Target::parse("task", &self.saying.subject).ok(),
            FactKind::DocumentEnded | FactKind::DocumentHeld => {
                Target::parse("document", &self.saying.subject).ok()
            }
            FactKind::ConsentGiven | FactKind::EncounterEnded | FactKind::Member => None,
        }
    }
}

/// What the sayings of a resource become when a new version says `now`: those that it was known for before and does not
/// repeat stand no more, and members that are not listed any more are members no more.
pub fn follow(before: &[Fact], now: Vec<Saying>) -> Vec<Saying> {
    let mut sayings: BTreeSet<Saying> = now.into_iter().collect();
    for fact in before.iter().filter(|fact| fact.stands) {
        let was_member = matches!(fact.saying.kind, FactKind::Member | FactKind::MemberNoMore);
        let is_of = |kind| Saying {
            kind,
            ..fact.saying.clone()
        };
        if was_member && !sayings.contains(&is_of(FactKind::Member)) {
            sayings.insert(is_of(FactKind::MemberNoMore));
        }
    }
    sayings.into_iter().take(MOST_SAYINGS).collect()
}

/// By which resource of which source, what, and of which team.
type Key = (SourceId, String, FactKind, String);

/// Facts that stand, by whom they are about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts(BTreeMap<String, Arc<BTreeMap<Key, Timestamp>>>);

impl Facts {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One more fact, or that one stands no more. Answers whether that is news.
    pub fn learn(&mut self, fact: &Fact) -> bool {
        let key = (
            fact.source.clone(),
            fact.resource.clone(),
            fact.saying.kind,
            fact.saying.team.clone(),
        );
        if fact.stands {
            let known = self.0.entry(fact.saying.subject.clone()).or_default();
            if known.get(&key) == Some(&fact.at) {
                return false;
            }
            Arc::make_mut(known).insert(key, fact.at);
            return true;
        }
        let Some(known) = self.0.get_mut(&fact.saying.subject) else {
            return false;
        };
        if !known.contains_key(&key) {
            return false;
        }
        Arc::make_mut(known).remove(&key);
        if known.is_empty() {
            self.0.remove(&fact.saying.subject);
        }
        true
    }

    /// Whether it stands here as it is told.
    pub fn knows(&self, fact: &Fact) -> bool {
        let saying = &fact.saying;
        let key = (
            fact.source.clone(),
            fact.resource.clone(),
            saying.kind,
            saying.team.clone(),
        );
        let known = self.0.get(&saying.subject).and_then(|known| known.get(&key));
        match known {
            Some(at) => !fact.stands || *at == fact.at,
            None => false,
        }
    }

    fn of(&self, subject: &str) -> impl Iterator<Item = (FactKind, &str, Timestamp)> {
        let known = self.0.get(subject).map(Arc::as_ref);
        known
            .into_iter()
            .flatten()
            .map(|((_, _, kind, team), at)| (*kind, team.as_str(), *at))
    }

    /// Why nothing about this patient is released, whichever server and version the reference names.
    pub fn on_patient(&self, reference: &str) -> Option<Reason> {
        if self.0.is_empty() {
            return None;
        }
        let known = self.0.get(bare(reference)?)?;
        // By source: none lifts what another one told.
        let mut said: BTreeMap<&SourceId, (Option<Timestamp>, Option<Timestamp>)> = BTreeMap::new();
        for ((source, _, kind, _), at) in known.as_ref() {
            let (given, withdrawn) = said.entry(source).or_default();
            match kind {
                FactKind::PatientMerged => return Some(Reason::PatientMerged),
                FactKind::ConsentDenied => *withdrawn = Some(Timestamp(i64::MAX)),
                FactKind::ConsentWithdrawn => *withdrawn = (*withdrawn).max(Some(*at)),
                FactKind::ConsentGiven => *given = (*given).max(Some(*at)),
                _ => {}
            }
        }
        // What the patient said last counts, and of two at once the stricter.
        said.values()
            .any(|(given, withdrawn)| withdrawn.is_some() && withdrawn >= given)
            .then_some(Reason::ConsentWithdrawn)
    }

    /// Why nothing is released under this Task any more.
    pub fn on_task(&self, task: &TaskId) -> Option<Reason> {
        self.says(|| format!("Task/{task}"), FactKind::TaskEnded)
            .then_some(Reason::TaskNotActionable)
    }

    /// Why nothing of this document is released any more.
    pub fn on_document(&self, document: &DocumentId) -> Option<Reason> {
        self.says(
            || format!("DocumentReference/{document}"),
            FactKind::DocumentEnded,
        )
        .then_some(Reason::DocumentWithheld)
    }

    /// Why nothing of this document is released under this Task for now.
    pub fn holds(&self, task: &TaskId, document: &DocumentId) -> Option<Reason> {
        let rests = self.says(|| format!("Task/{task}"), FactKind::TaskHeld);
        let unknown = || self.says(|| format!("DocumentReference/{document}"), FactKind::DocumentHeld);
        rests
            .then_some(Reason::TaskOnHold)
            .or_else(|| unknown().then_some(Reason::DocumentWithheld))
    }

    fn says(&self, subject: impl FnOnce() -> String, kind: FactKind) -> bool {
        !self.0.is_empty() && self.of(&subject()).any(|(known, ..)| known == kind)
    }

    /// Why nothing is done for this actor at all.
    pub fn on_actor(&self, actor: &ActorRef) -> Option<Reason> {
        self.of(actor.as_str())
            .any(|(kind, ..)| kind == FactKind::ActorEnded)
            .then_some(Reason::ActorRevoked)
    }

    /// Why nothing is released to this actor in the name of these teams. A membership that ended without naming its team
    /// may have been of any of them, as long as none that stands is known.
    pub fn on_member(&self, actor: &ActorRef, teams: &BTreeSet<String>) -> Option<Reason> {
        if self.0.is_empty() {
            return None;
        }
        let (mut ended, mut member, mut some_ended, mut some_member) = (false, false, false, false);
        for (kind, team, _) in self.of(actor.as_str()) {
            match kind {
                FactKind::ActorEnded => return Some(Reason::ActorRevoked),
                FactKind::MemberNoMore if team == EVERY_TEAM => some_ended = true,
                FactKind::MemberNoMore => ended |= teams.contains(team),
                FactKind::Member => {
                    some_member = true;
                    member |= teams.contains(team);
                }
                _ => {}
            }
        }
        ((ended && !member) || (some_ended && !some_member)).then_some(Reason::ActorRevoked)
    }

    /// The teams that the actor is known to be of.
    pub fn teams_of(&self, actor: &ActorRef) -> BTreeSet<String> {
        let teams = self.of(actor.as_str());
        teams
            .filter(|(kind, team, _)| *kind == FactKind::Member && *team != EVERY_TEAM)
            .map(|(_, team, _)| team.to_owned())
            .collect()
    }

    /// Whether the encounter is known to be over.
    pub fn is_over(&self, encounter: &str) -> bool {
        bare(encounter).is_some_and(|subject| {
            self.of(subject)
                .any(|(kind, ..)| kind == FactKind::EncounterEnded)
        })
    }
}

impl FromIterator<Fact> for Facts {
    fn from_iter<I: IntoIterator<Item = Fact>>(facts: I) -> Self {
        let mut known = Self::default();
        for fact in facts {
            known.learn(&fact);
        }
        known
    }
}

/// `Type/id` of a reference, whichever server's and version.
pub fn bare(reference: &str) -> Option<&str> {
    let named = reference.split("/_history/").next().unwrap_or(reference);
    let id = named.rfind('/')?;
    let before = named.get(..id)?;
    let start = before.rfind('/').map_or(0, |at| at.saturating_add(1));
    named.get(start..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(resource: &str, kind: FactKind, subject: &str, team: &str, at: i64) -> Fact {
        Fact {
            source: SourceId::parse("ehr").unwrap(),
            resource: resource.to_owned(),
            saying: Saying {
                kind,
                subject: subject.to_owned(),
                team: team.to_owned(),
            },
            at: Timestamp(at),
            stands: true,
        }
    }

    fn lane() -> ActorRef {
        ActorRef::parse("Practitioner/lane").unwrap()
    }

    fn teams(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_the_patient_said_last_counts_and_denial_always() {
        let ada = "Patient/ada";
        let mut facts = Facts::default();
        assert_eq!(facts.on_patient(ada), None);
        facts.learn(&fact("Consent/1", FactKind::ConsentWithdrawn, ada, "", 5));
        assert_eq!(facts.on_patient(ada), Some(Reason::ConsentWithdrawn));
        facts.learn(&fact("Consent/2", FactKind::ConsentGiven, ada, "", 5));
        assert_eq!(facts.on_patient(ada), Some(Reason::ConsentWithdrawn));
        let elsewhere = Fact {
            source: SourceId::parse("other").unwrap(),
            ..fact("Consent/2", FactKind::ConsentGiven, ada, "", 9)
        };
        facts.learn(&elsewhere);
        assert_eq!(
            facts.on_patient(ada),
            Some(Reason::ConsentWithdrawn),
            "another source lifts nothing"
        );
        facts.learn(&fact("Consent/2", FactKind::ConsentGiven, ada, "", 6));
        assert_eq!(facts.on_patient(ada), None);
        let denied = fact("Consent/3", FactKind::ConsentDenied, ada, "", 1);
        facts.learn(&denied);
        for reference in [
            "Patient/ada",
            "https://x/fhir/Patient/ada",
            "Patient/ada/_history/2",
        ] {
            assert_eq!(facts.on_patient(reference), Some(Reason::ConsentWithdrawn));
        }
        assert_eq!(facts.on_patient("Patient/ben"), None);
        facts.learn(&Fact {
            stands: false,
            ..denied
        });
        assert_eq!(facts.on_patient(ada), None);
    }

    #[test]
    fn a_membership_that_ended_counts_for_its_team_alone() {
        let gone = fact(
            "CareTeam/1",
            FactKind::MemberNoMore,
            "Practitioner/lane",
            "cardiology",
            1,
        );
        let mut facts: Facts = [gone].into_iter().collect();
        assert_eq!(
            facts.on_member(&lane(), &teams(&["cardiology"])),
            Some(Reason::ActorRevoked)
        );
        assert_eq!(facts.on_member(&lane(), &teams(&["oncology"])), None);
        assert_eq!(facts.on_member(&lane(), &teams(&[])), None);
        // Another resource places her there still.
        facts.learn(&fact(
            "PractitionerRole/1",
            FactKind::Member,
            "Practitioner/lane",
            "cardiology",
            1,
        ));
        assert_eq!(facts.on_member(&lane(), &teams(&["cardiology"])), None);
        assert_eq!(facts.teams_of(&lane()), teams(&["cardiology"]));
    }

    #[test]
    fn a_role_that_ended_without_a_team_ends_everything_where_there_is_no_other() {
        let ended = fact(
            "PractitionerRole/1",
            FactKind::MemberNoMore,
            "Practitioner/lane",
            EVERY_TEAM,
            1,
        );
        let mut facts: Facts = [ended].into_iter().collect();
        assert_eq!(facts.on_member(&lane(), &teams(&[])), Some(Reason::ActorRevoked));
        assert_eq!(facts.on_actor(&lane()), None, "she may do what needs no team");
        facts.learn(&fact(
            "PractitionerRole/2",
            FactKind::Member,
            "Practitioner/lane",
            "oncology",
            1,
        ));
        assert_eq!(facts.on_member(&lane(), &teams(&["cardiology"])), None);
        facts.learn(&fact(
            "Practitioner/lane",
            FactKind::ActorEnded,
            "Practitioner/lane",
            "",
            1,
        ));
        assert_eq!(facts.on_actor(&lane()), Some(Reason::ActorRevoked));
    }

    #[test]
    fn who_is_listed_no_more_is_a_member_no_more_until_listed_again() {
        let member = |name: &str| Saying {
            kind: FactKind::Member,
            subject: name.to_owned(),
            team: "cardiology".to_owned(),
        };
        let stored = |sayings: &[Saying]| -> Vec<Fact> {
            let as_fact = |saying: &Saying| Fact {
                saying: saying.clone(),
                ..fact("CareTeam/1", FactKind::Member, "", "", 1)
            };
            sayings.iter().map(as_fact).collect()
        };
        let first = follow(
            &[],
            vec![member("Practitioner/lane"), member("Practitioner/otis")],
        );
        let second = follow(&stored(&first), vec![member("Practitioner/otis")]);
        let gone = Saying {
            kind: FactKind::MemberNoMore,
            ..member("Practitioner/lane")
        };
        assert!(second.contains(&gone), "{second:?}");
        let third = follow(&stored(&second), vec![member("Practitioner/otis")]);
        assert!(third.contains(&gone));
        let back = follow(&stored(&third), vec![member("Practitioner/lane")]);
        assert!(!back.contains(&gone) && back.contains(&member("Practitioner/lane")));
    }

    #[test]
    fn a_reference_is_known_by_its_last_two_parts() {
        assert_eq!(bare("https://x/fhir/Patient/1/_history/2"), Some("Patient/1"));
        assert_eq!(bare("Patient/1"), Some("Patient/1"));
        assert_eq!(bare("urn:uuid:1"), None);
        assert_eq!(bare("Patient"), None);
    }
}
