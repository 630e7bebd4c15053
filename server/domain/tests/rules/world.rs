//! A Task with its documents, grants and redemptions in memory, to which plans are applied the way a store does.

use std::collections::BTreeSet;

use handoff_domain::access::{Principal, Role};
use handoff_domain::document::{Attachment, Document, DocumentFacts, DocumentStatus, Sha256, StoredBinary};
use handoff_domain::effects::{AskRefused, Asked, Plan, Scene, issue, reconcile};
use handoff_domain::gate::Gate;
use handoff_domain::grant::{Constraints, Grant, GrantState, Origin};
use handoff_domain::ports::BlobPin;
use handoff_domain::redemption::{Redemption, RedemptionState};
use handoff_domain::retention::Availability;
use handoff_domain::scan::Withheld;
use handoff_domain::standing::Standing;
use handoff_domain::task::{PlacerElements, Priority, Task, TaskFacts, TaskStatus};
use handoff_domain::workflow::Workflow;
use handoff_domain::{
    ActorRef, BinaryId, DocumentId, GrantId, Handle, Reason, RedemptionId, Span, TaskId, TenantId, Timestamp,
};

pub const LANE: &str = "Practitioner/lane";
pub const OTIS: &str = "Practitioner/otis";
pub const KIM: &str = "Practitioner/kim";
pub const CLINIC: &str = "Organization/clinic";
pub const PLACER: &str = "Organization/ehr";

pub fn actor(reference: &str) -> ActorRef {
    ActorRef::parse(reference).unwrap()
}

pub fn digest(content: u8) -> Sha256 {
    Sha256([content; 32])
}

pub fn attachment(content: u8) -> Attachment {
    Attachment {
        binary: BinaryId::parse(format!("b{content}")).unwrap(),
        sha256: digest(content),
        size: 10,
        content_type: "application/pdf".to_owned(),
        title: None,
        infected: false,
    }
}

pub fn document(id: &str, contents: &[u8]) -> Document {
    Document {
        id: DocumentId::parse(id).unwrap(),
        version: 1,
        content_version: 1,
        last_updated: Timestamp(0),
        facts: DocumentFacts {
            status: DocumentStatus::Current,
            doc_status: None,
            subject: Some("Patient/ada".to_owned()),
            kind: Vec::new(),
            category: Vec::new(),
            security: Vec::new(),
            replaces: Vec::new(),
            encounters: Vec::new(),
            attachments: Vec::new(),
        },
        class: None,
        created_by: actor(PLACER),
        attachments: contents.iter().map(|c| attachment(*c)).collect(),
        superseded: false,
        deleted: false,
        availability: Availability::default(),
        retain_until: None,
        past_classes: Vec::new(),
        disposed: false,
    }
}

pub fn facts(status: TaskStatus, owner: Option<&str>) -> TaskFacts {
    TaskFacts {
        status,
        intent: "order".to_owned(),
        priority: Priority::Routine,
        code: Vec::new(),
        focus: None,
        inputs: Vec::new(),
        subject: Some("Patient/ada".to_owned()),
        encounter: None,
        requester: None,
        owner: owner.map(str::to_owned),
        recipients: Vec::new(),
        due: None,
        performer_types: Vec::new(),
        part_of: Vec::new(),
        placer_elements: PlacerElements::default(),
    }
}

pub fn principal(who: &str, roles: &[Role], teams: &[&str]) -> Principal {
    Principal {
        tenant: TenantId::default_tenant(),
        issuer: "https://issuer.example".to_owned(),
        subject: who.to_owned(),
        client: "app".to_owned(),
        actor: actor(who),
        delegate: None,
        roles: roles.iter().copied().collect(),
        teams: teams.iter().map(|t| (*t).to_owned()).collect(),
        scopes: BTreeSet::new(),
        patient: None,
        key: None,
        token_id: "t".to_owned(),
        attributes: handoff_domain::access::Attributes::default(),
    }
}

/// Everything about one Task.
#[derive(Debug, Clone)]
pub struct World {
    pub now: Timestamp,
    pub task: Task,
    pub documents: Vec<Document>,
    pub grants: Vec<Grant>,
    pub redemptions: Vec<Redemption>,
    pub workflow: Workflow,
    pub standing: Standing,
    pub withheld: Option<Withheld>,
    minted: u32,
}

impl World {
    /// A Task just created, with one document of one content, and its grants settled.
    pub fn new(status: TaskStatus, owner: Option<&str>) -> Self {
        let documents = vec![document("d0", &[0])];
        let mut world = Self::unsettled(status, owner, documents, Workflow::default());
        world.settle();
        world
    }

    pub fn unsettled(
        status: TaskStatus,
        owner: Option<&str>,
        documents: Vec<Document>,
        workflow: Workflow,
    ) -> Self {
        let task = Task {
            id: TaskId::parse("t1").unwrap(),
            version: 1,
            last_updated: Timestamp(0),
            facts: facts(status, owner),
            created_by: actor(PLACER),
            held_from: None,
            held_by_parent: false,
            documents: documents.iter().map(|d| d.id.clone()).collect(),
            former_owners: Vec::new(),
            reissues: 0,
            accessed: false,
            deleted: false,
        };
        Self {
            now: Timestamp(1_000_000_000),
            task,
            documents,
            grants: Vec::new(),
            redemptions: Vec::new(),
            workflow,
            standing: Standing::default(),
            withheld: None,
            minted: 0,
        }
    }

    pub fn plan(&self) -> Plan {
        let mut minted = self.minted;
        reconcile(&self.scene(), &mut || fresh(&mut minted))
    }

    /// Asks what must change, and makes it so.
    pub fn settle(&mut self) -> Plan {
        let plan = self.plan();
        self.apply(&plan);
        plan
    }

    pub fn go(&mut self, to: TaskStatus) -> Plan {
        let from = self.task.facts.status;
        if from != to {
            self.task.held_from = (to == TaskStatus::OnHold).then_some(from);
        }
        self.task.facts.status = to;
        self.settle()
    }

    pub fn assign(&mut self, owner: Option<&str>) -> Plan {
        if let Some(before) = self.task.facts.owner_actor() {
            self.task.former_owners.push(before);
        }
        self.task.facts.owner = owner.map(str::to_owned);
        let now_owner = self.task.facts.owner_actor();
        self.task.former_owners.retain(|a| Some(a) != now_owner.as_ref());
        self.settle()
    }

    pub fn wait(&mut self, seconds: i64) -> Plan {
        self.now = self.now.plus(Span::seconds(seconds));
        self.settle()
    }

    fn scene(&self) -> Scene<'_> {
        Scene {
            task: &self.task,
            documents: &self.documents,
            grants: &self.grants,
            workflow: &self.workflow,
            standing: &self.standing,
            now: self.now,
        }
    }

    fn apply(&mut self, plan: &Plan) {
        for step in &plan.steps {
            if step.new {
                assert!(
                    self.grants.iter().all(|g| g.id != step.grant.id),
                    "a new grant has a new id"
                );
                self.minted += 1;
                self.grants.push(step.grant.clone());
                continue;
            }
            let stored = self.grants.iter_mut().find(|g| g.id == step.grant.id).unwrap();
            assert!(
                stored.state.is_open(),
                "an ended grant stays ended: {stored:?} {step:?}"
            );
            assert_eq!(step.grant.revision, stored.revision + 1);
            *stored = step.grant.clone();
        }
        for (grant, reason) in &plan.cuts {
            for redemption in self.redemptions.iter_mut().filter(|r| r.grant == *grant) {
                let open = matches!(
                    redemption.state,
                    RedemptionState::Authorized | RedemptionState::Streaming | RedemptionState::Interrupted
                );
                let held = redemption.state == RedemptionState::CutOff
                    && redemption.cut_reason == Some(Reason::TaskOnHold);
                if open || held {
                    redemption.state = RedemptionState::CutOff;
                    redemption.cut_reason = Some(*reason);
                }
            }
        }
        for grant in &plan.reopened {
            for redemption in self.redemptions.iter_mut().filter(|r| r.grant == *grant) {
                if redemption.state == RedemptionState::CutOff
                    && redemption.cut_reason == Some(Reason::TaskOnHold)
                {
                    redemption.state = RedemptionState::Interrupted;
                    redemption.cut_reason = None;
                }
            }
        }
    }

    /// The newest grant of an actor for a content.
    pub fn newest(&self, who: &str, document: usize, content: u8) -> Option<&Grant> {
        let id = &self.documents[document].id;
        self.grants
            .iter()
            .rfind(|g| g.document == *id && g.sha256 == digest(content) && g.grantee() == Some(&actor(who)))
    }

    /// The codes of all grants, oldest first.
    pub fn states(&self) -> Vec<String> {
        self.grants
            .iter()
            .map(|g| {
                let who = g
                    .grantee()
                    .map_or("nobody", |a| a.as_str().rsplit('/').next().unwrap());
                let reason = match &g.state {
                    GrantState::Revoked(_, _, reason) | GrantState::Suspended(_, reason) => {
                        format!(" {reason}")
                    }
                    _ => String::new(),
                };
                format!("{} {who}{reason}", g.state.code())
            })
            .collect()
    }

    fn ask_gate(
        &self,
        who: &str,
        document: usize,
        content: u8,
        grant: Option<&Grant>,
        starts: bool,
    ) -> Result<(), Reason> {
        let caller = principal(who, &[Role::Fulfiller], &[]);
        let document = &self.documents[document];
        let binary = StoredBinary {
            id: BinaryId::parse(format!("b{content}")).unwrap(),
            created: Timestamp(0),
            uploaded_by: actor(PLACER),
            document: Some(document.id.clone()),
            content_type: "application/pdf".to_owned(),
            security_context: None,
            size: 10,
            sha1: [0; 20],
            sha256: digest(content),
            pin: BlobPin {
                key: "k".to_owned(),
                version_id: None,
                etag: "e".to_owned(),
            },
            deleted: false,
        };
        let gate = Gate {
            caller: &caller,
            address: None,
            task: &self.task,
            document: Some(document),
            grant,
            binary: &binary,
            workflow: &self.workflow,
            standing: &self.standing,
            withheld: self.withheld,
            policy_allows: true,
            now: self.now,
        };
        if starts { gate.check() } else { gate.check_resume() }
    }

    /// Whether an actor could start a download now.
    pub fn gate(&self, who: &str, document: usize, content: u8) -> Result<(), Reason> {
        let grant = self.newest(who, document, content);
        self.ask_gate(who, document, content, grant, true)
    }

    /// Whether a download could go on now, as far as grant, Task and document go.
    pub fn gate_resume(
        &self,
        who: &str,
        document: usize,
        content: u8,
        grant: &GrantId,
    ) -> Result<(), Reason> {
        let grant = self.grants.iter().find(|g| g.id == *grant);
        self.ask_gate(who, document, content, grant, false)
    }

    /// Takes a use: the index of the redemption, or the reason why not.
    pub fn take(&mut self, who: &str, document: usize, content: u8) -> Result<usize, Reason> {
        self.gate(who, document, content)?;
        let id = self.newest(who, document, content).unwrap().id.clone();
        let grant = self.grants.iter_mut().find(|g| g.id == id).unwrap();
        *grant = grant.clone().take_use(self.now).unwrap();
        self.redemptions.push(Redemption {
            id: RedemptionId::parse(format!("r{}", self.redemptions.len())).unwrap(),
            grant: id,
            grantee: actor(who),
            client: "app".to_owned(),
            key: None,
            session: None,
            state: RedemptionState::Authorized,
            cut_reason: None,
            opened_at: self.now,
            window_end: self.now.plus(self.workflow.redemption_window),
            ended_at: None,
            size: 10,
            bytes_sent: 0,
            sent_up_to: 0,
            streams: 0,
            process: None,
            revision: 1,
        });
        Ok(self.redemptions.len() - 1)
    }

    /// Gives back the use of a redemption of which no byte was sent; the redemption itself is over.
    pub fn give_back(&mut self, redemption: usize) {
        let redemption = &mut self.redemptions[redemption];
        assert_eq!(redemption.bytes_sent, 0);
        redemption.state = RedemptionState::CutOff;
        redemption.cut_reason = None;
        let grant = self.grants.iter_mut().find(|g| g.id == redemption.grant).unwrap();
        *grant = grant.clone().give_back_use().unwrap();
        self.settle();
    }

    /// Asks for a grant by name.
    pub fn ask(
        &mut self,
        origin: Origin,
        who: &str,
        document: usize,
        content: u8,
        uses: Option<u32>,
    ) -> Result<Grant, AskRefused> {
        self.ask_with(origin, who, document, content, uses, Constraints::default())
    }

    pub fn ask_with(
        &mut self,
        origin: Origin,
        who: &str,
        document: usize,
        content: u8,
        uses: Option<u32>,
        constraints: Constraints,
    ) -> Result<Grant, AskRefused> {
        let attachment = attachment(content);
        let mut minted = self.minted;
        let asked = Asked {
            document: &self.documents[document],
            attachment: &attachment,
            grantee: actor(who),
            uses,
            window: None,
            constraints,
            origin,
            secret_hash: None,
        };
        let (plan, grant) = issue(&self.scene(), asked, &mut || fresh(&mut minted))?;
        self.apply(&plan);
        self.settle();
        Ok(grant)
    }
}

fn fresh(minted: &mut u32) -> (GrantId, Handle) {
    *minted += 1;
    (
        GrantId::parse(format!("g{minted}")).unwrap(),
        Handle::parse(format!("h{minted}")).unwrap(),
    )
}
