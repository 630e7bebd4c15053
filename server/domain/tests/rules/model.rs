//! Random histories of one Task, played against the real rules and against the plain model of what they promise.

use std::collections::BTreeMap;

use handoff_domain::document::DocumentStatus;
use handoff_domain::effects::AskRefused;
use handoff_domain::grant::{GrantState, Origin};
use handoff_domain::redemption::{RedemptionState, StreamEnd};
use handoff_domain::standing::Target;
use handoff_domain::task::TaskStatus;
use handoff_domain::workflow::Workflow;
use handoff_domain::{Reason, Span};
use proptest::prelude::*;

use crate::plain::{CONTENTS, Download, Leave, Model, OWNERS, PEOPLE, Paper, Stop, WINDOW, everyone};
use crate::transitions::is_legal;
use crate::world::{KIM, World, actor, attachment, document};

const RESUME_WINDOW: i64 = 600;

#[derive(Debug, Clone)]
enum Command {
    Move(TaskStatus),
    Assign(usize),
    Recipient(bool),
    Claim(usize, TaskStatus),
    List(bool, bool),
    Status(usize, DocumentStatus),
    Supersede(usize),
    Content(usize, Vec<u8>),
    About(usize, bool),
    DeleteDocument(usize),
    DeleteTask,
    Due(Option<i64>),
    Bar(usize, bool),
    Wait(i64),
    Ask {
        herself: bool,
        pick: usize,
        uses: Option<u32>,
    },
    Take(usize),
    Send {
        redemption: usize,
        all: bool,
    },
    GiveBack(usize),
}

/// `true` three times out of four: a history in which little can happen shows little.
fn mostly() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.75)
}

fn command() -> impl Strategy<Value = Command> {
    use Command::{
        About, Ask, Assign, Bar, Claim, Content, DeleteDocument, DeleteTask, Due, GiveBack, List, Move,
        Recipient, Send, Status, Supersede, Take, Wait,
    };
    let living = prop::sample::select(vec![
        TaskStatus::Requested,
        TaskStatus::Received,
        TaskStatus::Accepted,
        TaskStatus::Ready,
        TaskStatus::InProgress,
        TaskStatus::OnHold,
    ]);
    let document = 0..2usize;
    let who = 0..PEOPLE.len();
    let content = 0..CONTENTS;
    prop_oneof![
        20 => living.clone().prop_map(Move),
        1 => prop::sample::select(TaskStatus::ALL.to_vec()).prop_map(Move),
        8 => (0..OWNERS.len()).prop_map(Assign),
        4 => any::<bool>().prop_map(Recipient),
        5 => (who.clone(), living).prop_map(|(w, s)| Claim(w, s)),
        4 => (mostly(), mostly()).prop_map(|(a, b)| List(a, b)),
        3 => (document.clone(), prop::sample::select(vec![
            DocumentStatus::Current, DocumentStatus::Current, DocumentStatus::Superseded,
            DocumentStatus::EnteredInError,
        ])).prop_map(|(d, s)| Status(d, s)),
        1 => document.clone().prop_map(Supersede),
        3 => (document.clone(), prop::collection::vec(content, 1..4)).prop_map(|(d, c)| Content(d, c)),
        3 => (document.clone(), mostly()).prop_map(|(d, a)| About(d, a)),
        1 => document.prop_map(DeleteDocument),
        1 => Just(DeleteTask),
        4 => prop::option::weighted(0.4, prop::sample::select(vec![0, 300, 899, 2000])).prop_map(Due),
        5 => (who, mostly()).prop_map(|(w, free)| Bar(w, !free)),
        12 => prop::sample::select(vec![1, 1, 60, 60, 299, 599, 600, 899, 900]).prop_map(Wait),
        25 => (any::<bool>(), 0..720usize, prop::option::weighted(0.3, 0..4u32))
            .prop_map(|(herself, pick, uses)| Ask { herself, pick, uses }),
        50 => (0..720usize).prop_map(Take),
        20 => (0..60usize, any::<bool>()).prop_map(|(redemption, all)| Send { redemption, all }),
        20 => (0..60usize).prop_map(GiveBack),
    ]
}

/// The real rules and the model, side by side.
struct Play {
    world: World,
    model: Model,
    start: i64,
}

impl Play {
    fn new(status: TaskStatus, owner: usize, most: u32, self_reissue: u32) -> Self {
        let workflow = Workflow {
            max_uses: most,
            self_reissue,
            ..Workflow::default()
        };
        let documents = vec![document("d0", &[0]), document("d1", &[1, 2, 1])];
        let world = World::unsettled(status, OWNERS[owner], documents, workflow);
        let paper = |contents: &[u8]| Paper {
            listed: true,
            status: DocumentStatus::Current,
            superseded: false,
            deleted: false,
            same_patient: true,
            contents: contents.to_vec(),
        };
        let model = Model {
            now: 0,
            status,
            owner: OWNERS[owner],
            kim_receives: false,
            deleted: false,
            due: None,
            barred: [false; 3],
            papers: [paper(&[0]), paper(&[1, 2])],
            most,
            self_reissue: usize::try_from(self_reissue).unwrap(),
            leaves: BTreeMap::new(),
            downloads: Vec::new(),
        };
        let start = world.now.0;
        let mut play = Self { world, model, start };
        play.settle();
        play
    }

    /// Does one thing to both.
    fn play(&mut self, command: &Command) {
        let (world, model) = (&mut self.world, &mut self.model);
        let changes_nothing_after_deletion = model.deleted;
        match command {
            Command::Wait(seconds) => {
                world.now = world.now.plus(Span::seconds(*seconds));
                model.now += seconds;
                // Nobody has looked at the Task since: what has run out must not open all the same.
                self.nothing_opens_that_should_not();
            }
            Command::Bar(who, bars) => {
                model.barred[*who] = *bars;
                let barred = PEOPLE.iter().zip(model.barred).filter(|(_, bars)| *bars);
                world.standing = barred.map(|(name, _)| Target::Actor(actor(name))).collect();
            }
            Command::Take(pick) => {
                let (document, content, who) = self.model.picked(*pick);
                self.take(who, document, content);
            }
            Command::Send { redemption, all } => self.send(*redemption, *all),
            Command::GiveBack(redemption) => self.give_back(*redemption),
            Command::Ask { herself, pick, uses } => {
                let key = self.model.picked(*pick);
                self.ask(*herself, key, *uses);
            }
            Command::Supersede(d) => {
                world.documents[*d].superseded = true;
                model.papers[*d].superseded = true;
            }
            Command::Status(d, status) => {
                world.documents[*d].facts.status = *status;
                model.papers[*d].status = *status;
            }
            Command::Content(d, contents) => {
                world.documents[*d].attachments = contents.iter().map(|c| attachment(*c)).collect();
                world.documents[*d].content_version += 1;
                model.papers[*d].contents.clone_from(contents);
            }
            Command::About(d, same) => {
                let patient = if *same { "Patient/ada" } else { "Patient/ben" };
                world.documents[*d].facts.subject = Some(patient.to_owned());
                model.papers[*d].same_patient = *same;
            }
            Command::DeleteDocument(d) => {
                world.documents[*d].deleted = true;
                model.papers[*d].deleted = true;
            }
            _ if changes_nothing_after_deletion => {}
            Command::DeleteTask => {
                world.task.deleted = true;
                model.deleted = true;
            }
            Command::Move(to) => self.go(*to),
            Command::Claim(who, to) => {
                if self.model.owner.is_none() {
                    self.assign(Some(PEOPLE[*who]));
                    self.go(*to);
                }
            }
            Command::Assign(owner) => self.assign(OWNERS[*owner]),
            Command::Recipient(receives) => {
                world.task.facts.recipients = receives.then(|| KIM.to_owned()).into_iter().collect();
                model.kim_receives = *receives;
            }
            Command::List(first, second) => {
                model.papers[0].listed = *first;
                model.papers[1].listed = *second;
                let listed = world
                    .documents
                    .iter()
                    .zip([*first, *second])
                    .filter(|(_, listed)| *listed);
                world.task.documents = listed.map(|(d, _)| d.id.clone()).collect();
            }
            Command::Due(seconds) => {
                model.due = seconds.map(|s| model.now + s);
                world.task.facts.due = seconds.map(|s| world.now.plus(Span::seconds(s)));
            }
        }
        self.settle();
    }

    fn assign(&mut self, owner: Option<&'static str>) {
        let task = &mut self.world.task;
        task.former_owners.extend(task.facts.owner_actor());
        task.facts.owner = owner.map(str::to_owned);
        let now_owner = task.facts.owner_actor();
        task.former_owners.retain(|a| Some(a) != now_owner.as_ref());
        self.model.owner = owner;
    }

    fn go(&mut self, to: TaskStatus) {
        let task = &mut self.world.task;
        let from = task.facts.status;
        if from == to || !is_legal(Some(from), task.held_from, to) {
            return;
        }
        task.held_from = (to == TaskStatus::OnHold).then_some(from);
        task.facts.status = to;
        self.model.status = to;
    }

    fn take(&mut self, who: usize, document: usize, content: u8) {
        let expected = self.model.may_fetch(who, document, content);
        let taken = self.world.take(PEOPLE[who], document, content);
        assert_eq!(taken.is_ok(), expected, "{taken:?}");
        if taken.is_err() {
            return;
        }
        let turns = self.model.leaves.get_mut(&(document, content, who)).unwrap();
        let turn = turns.len() - 1;
        turns[turn].uses += 1;
        self.model.downloads.push(Download {
            who,
            document,
            content,
            turn,
            opened: self.model.now,
            sent: 0,
            streams: 0,
            stop: Stop::No,
            done: false,
        });
    }

    fn ask(&mut self, herself: bool, key: (usize, u8, usize), uses: Option<u32>) {
        let (document, content, who) = key;
        let expected = self.model.may_ask(herself, key, uses);
        let origin = if herself {
            Origin::SelfService
        } else {
            Origin::Requested
        };
        let answer = self.world.ask(origin, PEOPLE[who], document, content, uses);
        assert_eq!(answer.as_ref().ok().map(|g| g.max_uses), expected, "{answer:?}");
        assert_ne!(
            answer.as_ref().err(),
            Some(&AskRefused::Because(Reason::NotBound))
        );
        if let Some(most) = expected {
            let expires = self.model.now + WINDOW;
            let leave = Leave {
                expires,
                uses: 0,
                most,
                own: herself,
                ended: None,
            };
            self.model.leaves.entry(key).or_default().push(leave);
        }
    }

    /// Streams what is left, or three bytes of it.
    fn send(&mut self, index: usize, all: bool) {
        let Some(index) = index.checked_rem(self.model.downloads.len()) else {
            return;
        };
        let download = &mut self.model.downloads[index];
        let left = 10 - download.sent;
        let redemption = self.world.redemptions[index].clone();
        let who = PEOPLE[download.who];
        let leave = self
            .world
            .gate_resume(who, download.document, download.content, &redemption.grant)
            .is_ok();
        let started = redemption.start(download.sent, left, "p", self.world.now);
        let expected = download.stop == Stop::No
            && !download.done
            && download.streams < 20
            && self.model.now < download.opened + RESUME_WINDOW;
        assert_eq!(
            leave && started.is_ok(),
            expected,
            "{leave} {started:?} {download:?}"
        );
        if !expected {
            return;
        }
        let sent = if all { left } else { left.min(3) };
        let end = if all { StreamEnd::Sent } else { StreamEnd::Gone };
        self.world.redemptions[index] = started
            .unwrap()
            .end_stream(download.sent, sent, end, self.world.now);
        download.sent += sent;
        download.streams += 1;
        // One that went away before it was told of the last byte may come back for it.
        download.done = all && download.sent == 10;
    }

    fn give_back(&mut self, index: usize) {
        let unsent = |d: &Download| !d.done && d.sent == 0;
        let unsent: Vec<usize> = (0..self.model.downloads.len())
            .filter(|i| unsent(&self.model.downloads[*i]))
            .collect();
        let Some(pick) = index.checked_rem(unsent.len()) else {
            return;
        };
        let index = unsent[pick];
        let download = &mut self.model.downloads[index];
        download.done = true;
        let turns = self
            .model
            .leaves
            .get_mut(&(download.document, download.content, download.who))
            .unwrap();
        turns[download.turn].uses -= 1;
        self.world.give_back(index);
    }

    fn settle(&mut self) {
        self.model.observe();
        self.world.settle();
        self.both_agree();
        self.invariants_hold();
        self.settling_again_changes_nothing();
    }

    fn nothing_opens_that_should_not(&self) {
        for (who, document, content) in everyone() {
            if self.world.gate(PEOPLE[who], document, content).is_ok() {
                assert!(self.model.may_fetch(who, document, content));
            }
        }
    }

    fn both_agree(&self) {
        assert_eq!(self.world.now.0 - self.start, Span::seconds(self.model.now).0);
        for (who, document, content) in everyone() {
            let gate = self.world.gate(PEOPLE[who], document, content);
            let expected = self.model.may_fetch(who, document, content);
            assert_eq!(
                gate.is_ok(),
                expected,
                "{} d{document} c{content}: {gate:?}",
                PEOPLE[who]
            );
        }
        for (download, redemption) in self.model.downloads.iter().zip(&self.world.redemptions) {
            if !download.done {
                let stopped = redemption.state == RedemptionState::CutOff;
                assert_eq!(stopped, download.stop != Stop::No, "{download:?} {redemption:?}");
                let by_hold = redemption.cut_reason == Some(Reason::TaskOnHold);
                assert_eq!(
                    by_hold,
                    download.stop == Stop::ByHold,
                    "{download:?} {redemption:?}"
                );
            }
        }
    }

    fn invariants_hold(&self) {
        let grants = &self.world.grants;
        let mut open = BTreeMap::new();
        let mut automatic = BTreeMap::new();
        for grant in grants {
            assert!(grant.uses <= grant.max_uses && grant.max_uses <= self.model.most);
            let key = (grant.document.clone(), grant.sha256, grant.grantee().cloned());
            if grant.state.is_open() {
                *open.entry(key.clone()).or_insert(0) += 1;
            }
            if grant.origin == Origin::Automatic && grant.grantee().is_some() {
                *automatic.entry(key).or_insert(0) += 1;
            }
            match &grant.state {
                GrantState::Bound(binding) => {
                    assert!(
                        self.model.is_actionable(),
                        "bound while nothing may be released: {grant:?}"
                    );
                    assert!(self.world.now < binding.expires_at && grant.uses < grant.max_uses);
                }
                GrantState::Suspended(..) => assert!(!self.model.is_actionable(), "{grant:?}"),
                GrantState::Exhausted(..) => assert_eq!(grant.uses, grant.max_uses),
                GrantState::Issued | GrantState::Expired(..) | GrantState::Revoked(..) => {}
            }
            if self.model.has_ended() || self.model.is_past_due() {
                assert!(!grant.state.is_open(), "open under an ended Task: {grant:?}");
            }
        }
        assert!(
            open.values().all(|n| *n == 1),
            "two open grants of one kind: {:?}",
            self.world.states()
        );
        assert!(
            automatic.values().all(|n| *n == 1),
            "a second automatic grant: {:?}",
            self.world.states()
        );
    }

    fn settling_again_changes_nothing(&self) {
        let plan = self.world.plan();
        assert!(plan.steps.is_empty(), "{:?}", plan.steps);
        let mut again = self.world.clone();
        again.settle();
        assert_eq!(again.redemptions, self.world.redemptions);
        for grant in self.world.grants.iter().filter(|g| g.uses > 0) {
            let cut = plan.cuts.iter().any(|(id, _)| *id == grant.id);
            let reopened = plan.reopened.contains(&grant.id);
            assert!(!(cut && reopened));
            let key = self.model.leaves.keys().find(|(d, c, w)| {
                self.world.documents[*d].id == grant.document
                    && crate::world::digest(*c) == grant.sha256
                    && grant.grantee() == Some(&actor(PEOPLE[*w]))
            });
            let lost = !self.model.is_actionable() || self.model.loses(*key.unwrap()).is_some();
            assert_eq!(cut, lost, "a used grant that lost its standing is cut: {grant:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn content_opens_exactly_while_its_task_calls_for_it(
        status in prop::sample::select(vec![
            TaskStatus::Draft, TaskStatus::Requested, TaskStatus::Received,
            TaskStatus::Accepted, TaskStatus::Ready, TaskStatus::InProgress,
        ]),
        owner in 0..OWNERS.len(),
        most in 1..=2u32,
        self_reissue in 0..=2u32,
        commands in prop::collection::vec(command(), 1..80),
    ) {
        let mut play = Play::new(status, owner, most, self_reissue);
        for command in &commands {
            play.play(command);
        }
    }
}
