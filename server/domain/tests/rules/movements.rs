//! What a Task's movement does to its grants: each row of the contract's table, by name.

use handoff_domain::Reason;
use handoff_domain::document::DocumentStatus;
use handoff_domain::effects::Change;
use handoff_domain::redemption::{Redemption, RedemptionState, StreamEnd};
use handoff_domain::scan::Withheld;
use handoff_domain::standing::{Standing, Target};
use handoff_domain::task::TaskStatus;
use handoff_domain::workflow::Workflow;

use crate::world::{CLINIC, KIM, LANE, OTIS, World, actor, attachment, digest, document};

type Happening = fn(&mut World);

fn changes(plan: &handoff_domain::effects::Plan) -> Vec<Change> {
    plan.steps.iter().map(|s| s.change).collect()
}

#[test]
fn a_requested_task_issues_one_unbound_grant_per_content() {
    let documents = vec![document("d0", &[0, 1, 0]), document("d1", &[2])];
    let mut world = World::unsettled(TaskStatus::Requested, Some(LANE), documents, Workflow::default());
    let plan = world.settle();
    assert_eq!(changes(&plan), [Change::Issued; 3]);
    assert_eq!(world.states(), ["issued nobody"; 3]);
    assert_eq!(world.gate(LANE, 0, 0), Err(Reason::TaskNotActionable));
    world.go(TaskStatus::Received);
    assert_eq!(world.grants.len(), 3);
}

#[test]
fn a_draft_issues_nothing() {
    assert!(World::new(TaskStatus::Draft, Some(LANE)).grants.is_empty());
}

#[test]
fn an_actionable_task_without_owner_or_with_an_organisation_as_owner_issues_unbound_grants() {
    for owner in [
        None,
        Some(CLINIC),
        Some("CareTeam/cardiology"),
        Some("https://elsewhere.example/Practitioner/1"),
    ] {
        let mut world = World::new(TaskStatus::Ready, owner);
        assert_eq!(world.states(), ["issued nobody"], "{owner:?}");
        assert_eq!(world.gate(LANE, 0, 0), Err(Reason::NotBound));
        world.assign(Some(LANE));
        assert_eq!(world.states(), ["bound lane"]);
        assert_eq!(world.gate(LANE, 0, 0), Ok(()));
    }
}

#[test]
fn an_issued_grant_does_not_run_out_while_it_waits() {
    let mut world = World::new(TaskStatus::Requested, None);
    world.wait(100_000);
    assert_eq!(world.states(), ["issued nobody"]);
    world.task.facts.owner = Some(LANE.to_owned());
    world.go(TaskStatus::Accepted);
    assert_eq!(
        world.grants[0].expires_at(),
        Some(world.now.plus(world.workflow.grant_window))
    );
}

#[test]
fn an_actionable_task_with_a_person_as_owner_binds_at_once() {
    for status in [TaskStatus::Ready, TaskStatus::Accepted, TaskStatus::InProgress] {
        let world = World::new(status, Some(LANE));
        assert_eq!(world.states(), ["bound lane"]);
        assert_eq!(world.gate(LANE, 0, 0), Ok(()));
        assert_eq!(world.gate(OTIS, 0, 0), Err(Reason::NotBound));
    }
}

#[test]
fn a_recipient_holds_a_grant_beside_the_owner() {
    let mut world = World::unsettled(
        TaskStatus::Ready,
        Some(CLINIC),
        vec![document("d0", &[0])],
        Workflow::default(),
    );
    world.task.facts.recipients = vec![KIM.to_owned()];
    world.settle();
    assert_eq!(world.states(), ["bound kim"]);
    world.assign(Some(LANE));
    assert_eq!(world.states(), ["bound kim", "bound lane"]);
    world.task.facts.recipients.clear();
    world.settle();
    assert_eq!(world.states(), ["revoked kim reassigned", "bound lane"]);
}

#[test]
fn a_change_of_owner_revokes_and_binds_afresh_but_not_twice_for_the_same_person() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.assign(Some(OTIS));
    assert_eq!(world.states(), ["revoked lane reassigned", "bound otis"]);
    assert_eq!(world.gate(LANE, 0, 0), Err(Reason::Reassigned));
    world.assign(Some(LANE));
    assert_eq!(
        world.states(),
        ["revoked lane reassigned", "revoked otis reassigned"]
    );
    assert_eq!(world.gate(LANE, 0, 0), Err(Reason::Reassigned));
}

#[test]
fn giving_a_task_back_revokes_and_the_next_to_claim_it_is_bound() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.assign(None);
    assert_eq!(world.states(), ["revoked lane reassigned"]);
    world.assign(Some(OTIS));
    assert_eq!(world.states(), ["revoked lane reassigned", "bound otis"]);
}

#[test]
fn a_hold_suspends_and_cuts_and_coming_back_binds_and_reopens() {
    let mut world = World::new(TaskStatus::InProgress, Some(LANE));
    world.workflow.max_uses = 1;
    let download = world.take(LANE, 0, 0).unwrap();
    assert_eq!(world.states(), ["exhausted lane"]);
    let plan = world.go(TaskStatus::OnHold);
    let grant = world.grants[0].id.clone();
    assert_eq!(plan.cuts, [(grant.clone(), Reason::TaskOnHold)]);
    assert_eq!(world.gate_resume(LANE, 0, 0, &grant), Err(Reason::TaskOnHold));
    let plan = world.go(TaskStatus::InProgress);
    assert_eq!(plan.reopened, std::slice::from_ref(&grant));
    assert_eq!(world.gate_resume(LANE, 0, 0, &grant), Ok(()));
    assert_eq!(world.redemptions[download].cut_reason, None);
}

#[test]
fn an_unused_grant_is_suspended_by_a_hold_and_bound_again_with_the_same_end() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    let end = world.grants[0].expires_at();
    world.go(TaskStatus::OnHold);
    assert_eq!(world.states(), ["suspended lane task-on-hold"]);
    assert_eq!(world.gate(LANE, 0, 0), Err(Reason::TaskOnHold));
    world.wait(60);
    world.go(TaskStatus::Ready);
    assert_eq!(world.states(), ["bound lane"]);
    assert_eq!(world.grants[0].expires_at(), end);
}

#[test]
fn a_grant_whose_window_closes_during_a_hold_expires() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.go(TaskStatus::OnHold);
    let plan = world.wait(15 * 60);
    assert_eq!(changes(&plan), [Change::Expired]);
    world.go(TaskStatus::Ready);
    assert_eq!(world.states(), ["expired lane"]);
}

#[test]
fn reassigning_a_task_on_hold_makes_the_cut_of_its_download_final() {
    let mut world = World::new(TaskStatus::InProgress, Some(LANE));
    let download = world.take(LANE, 0, 0).unwrap();
    world.go(TaskStatus::OnHold);
    world.assign(Some(OTIS));
    world.assign(Some(LANE));
    world.go(TaskStatus::InProgress);
    assert_eq!(world.redemptions[download].cut_reason, Some(Reason::Reassigned));
}

#[test]
fn every_end_of_a_task_revokes_with_its_own_reason_and_cuts() {
    for (status, reason) in [
        (TaskStatus::Completed, Reason::TaskCompleted),
        (TaskStatus::Cancelled, Reason::TaskCancelled),
        (TaskStatus::Failed, Reason::TaskFailed),
        (TaskStatus::Rejected, Reason::TaskRejected),
        (TaskStatus::EnteredInError, Reason::TaskEnteredInError),
    ] {
        let mut world = World::new(TaskStatus::InProgress, Some(LANE));
        world.workflow.max_uses = 2;
        world.grants[0].max_uses = 2;
        world.take(LANE, 0, 0).unwrap();
        let plan = world.go(status);
        assert_eq!(world.states(), [format!("revoked lane {reason}")]);
        assert_eq!(plan.cuts, [(world.grants[0].id.clone(), reason)]);
        assert_eq!(world.gate(LANE, 0, 0), Err(reason));
    }
}

#[test]
fn deleting_a_task_revokes_issued_and_bound_grants() {
    for owner in [None, Some(LANE)] {
        let mut world = World::new(TaskStatus::Ready, owner);
        world.task.deleted = true;
        world.settle();
        assert_eq!(world.grants[0].state.reason(), Some(Reason::TaskDeleted));
    }
}

#[test]
fn losing_an_input_revokes_that_document_alone() {
    let documents = vec![document("d0", &[0]), document("d1", &[1])];
    let mut world = World::unsettled(TaskStatus::Ready, Some(LANE), documents, Workflow::default());
    world.settle();
    world.task.documents.remove(0);
    world.settle();
    assert_eq!(world.states(), ["revoked lane input-removed", "bound lane"]);
    assert_eq!(world.gate(LANE, 0, 0), Err(Reason::InputRemoved));
    assert_eq!(world.gate(LANE, 1, 1), Ok(()));
}

#[test]
fn passing_the_due_date_expires_issued_and_bound_grants_and_cuts() {
    let mut world = World::unsettled(
        TaskStatus::Ready,
        Some(LANE),
        vec![document("d0", &[0])],
        Workflow::default(),
    );
    world.task.facts.due = Some(world.now.plus(handoff_domain::Span::seconds(30)));
    world.settle();
    world.take(LANE, 0, 0).unwrap();
    let plan = world.wait(30);
    assert_eq!(plan.cuts, [(world.grants[0].id.clone(), Reason::Expired)]);
    assert_eq!(world.gate(LANE, 0, 0), Err(Reason::Expired));
    let mut waiting = World::new(TaskStatus::Requested, None);
    waiting.task.facts.due = Some(waiting.now);
    waiting.settle();
    assert_eq!(waiting.states(), ["expired nobody"]);
}

#[test]
fn ordinary_expiry_forbids_starting_and_does_not_cut() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.grants[0].max_uses = 2;
    world.take(LANE, 0, 0).unwrap();
    let plan = world.wait(15 * 60);
    assert!(plan.cuts.is_empty());
    assert_eq!(world.gate(LANE, 0, 0), Err(Reason::Expired));
    assert_eq!(world.gate_resume(LANE, 0, 0, &world.grants[0].id), Ok(()));
}

#[test]
fn going_back_to_requested_suspends_and_ready_binds_the_same_grant() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.go(TaskStatus::Requested);
    assert_eq!(world.states(), ["suspended lane task-not-actionable"]);
    world.go(TaskStatus::Ready);
    assert_eq!(world.states(), ["bound lane"]);
}

#[test]
fn a_document_that_is_superseded_entered_in_error_deleted_or_withheld_takes_its_grants_with_it() {
    let cases: [(Happening, Reason); 6] = [
        (|w| w.documents[0].superseded = true, Reason::DocumentSuperseded),
        (
            |w| w.documents[0].facts.status = DocumentStatus::Superseded,
            Reason::DocumentSuperseded,
        ),
        (
            |w| w.documents[0].facts.status = DocumentStatus::EnteredInError,
            Reason::DocumentEnteredInError,
        ),
        (|w| w.documents[0].deleted = true, Reason::DocumentDeleted),
        (
            |w| w.documents[0].facts.subject = Some("Patient/ben".to_owned()),
            Reason::DocumentWithheld,
        ),
        (
            |w| w.workflow.releases = Some(["consent".to_owned()].into()),
            Reason::DocumentWithheld,
        ),
    ];
    for (change, reason) in cases {
        let mut world = World::new(TaskStatus::Ready, Some(LANE));
        world.take(LANE, 0, 0).unwrap();
        let mut unused = World::new(TaskStatus::Ready, Some(LANE));
        change(&mut world);
        change(&mut unused);
        unused.settle();
        assert_eq!(unused.states(), [format!("revoked lane {reason}")]);
        assert_eq!(world.settle().cuts, [(world.grants[0].id.clone(), reason)]);
        assert_eq!(world.gate(LANE, 0, 0), Err(reason));
    }
}

#[test]
fn new_content_revokes_the_old_grant_and_binds_one_for_the_new() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.documents[0].attachments = vec![attachment(1)];
    world.documents[0].content_version = 2;
    world.settle();
    assert_eq!(world.states(), ["revoked lane document-superseded", "bound lane"]);
    assert_eq!(world.gate(LANE, 0, 0), Err(Reason::DocumentSuperseded));
    assert_eq!(world.gate(LANE, 0, 1), Ok(()));
    assert_eq!(world.grants[1].content_version, 2);
}

#[test]
fn the_same_content_uploaded_again_and_a_change_of_metadata_keep_the_grant() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.documents[0].attachments[0].binary = handoff_domain::BinaryId::parse("again").unwrap();
    world.documents[0].attachments[0].title = Some("letter".to_owned());
    assert!(world.settle().is_empty());
    assert_eq!(world.gate(LANE, 0, 0), Ok(()));
}

#[test]
fn a_barred_actor_loses_the_grant_and_gets_none_when_the_bar_is_lifted() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.standing = [Target::Actor(actor(LANE))].into_iter().collect();
    world.settle();
    assert_eq!(world.states(), ["revoked lane actor-revoked"]);
    assert_eq!(world.gate(LANE, 0, 0), Err(Reason::ActorRevoked));
    world.standing = Standing::default();
    world.go(TaskStatus::InProgress);
    assert_eq!(world.states(), ["revoked lane actor-revoked"]);
}

#[test]
fn a_block_on_task_document_patient_or_tenant_takes_what_was_released_and_holds_back_what_was_not() {
    for (kind, value) in [
        ("task", "t1"),
        ("document", "d0"),
        ("patient", "ada"),
        ("all", ""),
    ] {
        let block: Standing = [Target::parse(kind, value).unwrap()].into_iter().collect();
        let mut world = World::new(TaskStatus::Ready, Some(LANE));
        world.standing = block.clone();
        world.settle();
        assert_eq!(world.states(), ["revoked lane emergency"], "{kind}");
        assert_eq!(world.gate(LANE, 0, 0), Err(Reason::Emergency), "{kind}");

        let documents = vec![document("d0", &[0])];
        let mut world = World::unsettled(TaskStatus::Ready, Some(LANE), documents, Workflow::default());
        world.standing = block;
        world.settle();
        assert!(world.grants.is_empty(), "{kind}");
        world.standing = Standing::default();
        world.settle();
        assert_eq!(world.states(), ["bound lane"], "{kind}");
    }
}

#[test]
fn a_block_on_a_client_or_an_issuer_stops_whoever_comes_with_it_and_takes_no_grant() {
    for (kind, value) in [("client", "app"), ("issuer", "https://issuer.example")] {
        let mut world = World::new(TaskStatus::Ready, Some(LANE));
        world.standing = [Target::parse(kind, value).unwrap()].into_iter().collect();
        world.settle();
        assert_eq!(world.states(), ["bound lane"], "{kind}");
        assert_eq!(world.gate(LANE, 0, 0), Err(Reason::Emergency), "{kind}");
    }
}

#[test]
fn a_block_on_a_patient_is_on_every_version_of_the_reference() {
    for (reference, blocked) in [
        ("Patient/ada/_history/2", true),
        ("https://ehr.example/fhir/Patient/ada", true),
        ("Patient/canada", false),
        ("Patient/ada2", false),
    ] {
        let mut world = World::new(TaskStatus::Ready, Some(LANE));
        world.task.facts.subject = Some(reference.to_owned());
        world.documents[0].facts.subject = None;
        world.standing = [Target::parse("patient", "ada").unwrap()].into_iter().collect();
        world.settle();
        let expected = if blocked {
            "revoked lane emergency"
        } else {
            "bound lane"
        };
        assert_eq!(world.states(), [expected], "{reference}");
    }
}

#[test]
fn a_block_on_another_stops_nobody() {
    let others = [
        ("task", "t2"),
        ("document", "d9"),
        ("patient", "ben"),
        ("client", "other"),
        ("issuer", "i"),
    ];
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.standing = others
        .iter()
        .map(|(kind, value)| Target::parse(kind, value).unwrap())
        .collect();
    assert!(world.settle().is_empty());
    assert_eq!(world.gate(LANE, 0, 0), Ok(()));
}

#[test]
fn a_document_withheld_from_the_start_is_refused_and_issues_nothing() {
    let mut world = World::unsettled(
        TaskStatus::Ready,
        Some(LANE),
        vec![document("d0", &[0])],
        Workflow::default(),
    );
    world.documents[0].facts.subject = Some("Patient/ben".to_owned());
    let plan = world.settle();
    assert!(plan.steps.is_empty());
    assert_eq!(
        plan.refused,
        [(world.documents[0].id.clone(), None, Reason::DocumentWithheld)]
    );
}

#[test]
fn a_cut_after_the_last_byte_cuts_nothing_and_any_other_stays_a_cut() {
    let mut world = World::new(TaskStatus::InProgress, Some(LANE));
    let taken = world.take(LANE, 0, 0).unwrap();
    let streaming = world.redemptions[taken]
        .clone()
        .start(0, 10, "p", world.now)
        .unwrap();
    let cut = Redemption {
        state: RedemptionState::CutOff,
        cut_reason: Some(Reason::TaskOnHold),
        ..streaming
    };
    let held = (RedemptionState::CutOff, Some(Reason::TaskOnHold));
    for (sent, end, expected) in [
        (10, StreamEnd::Sent, (RedemptionState::Completed, None)),
        (9, StreamEnd::Sent, held),
        // Handed over is not sent: the cut took the connection away.
        (10, StreamEnd::Gone, held),
        (10, StreamEnd::Cut(Reason::TaskOnHold), held),
    ] {
        let ended = cut.clone().end_stream(0, sent, end, world.now);
        assert_eq!((ended.state, ended.cut_reason), expected, "{sent} {end:?}");
    }
}

#[test]
fn content_with_malware_takes_its_grants_with_it_and_leaves_what_stands_beside_it() {
    let documents = vec![document("d0", &[0, 1])];
    let mut world = World::unsettled(TaskStatus::Ready, Some(LANE), documents, Workflow::default());
    world.settle();
    world.take(LANE, 0, 0).unwrap();
    world.documents[0] = world.documents[0].clone().with_infected(&digest(0));
    let plan = world.settle();
    assert_eq!(
        plan.cuts,
        [(world.grants[0].id.clone(), Reason::DocumentWithheld)]
    );
    assert_eq!(world.gate(LANE, 0, 0), Err(Reason::DocumentWithheld));
    assert_eq!(world.gate(LANE, 0, 1), Ok(()));

    // Another version that names the same content again has not got rid of it.
    let next = document("d0", &[1, 0, 2]).remembering_infected(&world.documents[0]);
    let infected: Vec<bool> = next.attachments.iter().map(|a| a.infected).collect();
    assert_eq!(infected, [false, true, false]);
}

#[test]
fn of_content_with_malware_nothing_is_issued() {
    let documents = vec![document("d0", &[0, 1]).with_infected(&digest(0))];
    let mut world = World::unsettled(TaskStatus::Ready, Some(LANE), documents, Workflow::default());
    let plan = world.settle();
    assert_eq!(world.states(), ["bound lane"]);
    assert_eq!(world.grants[0].sha256, digest(1));
    assert_eq!(
        plan.refused,
        [(world.documents[0].id.clone(), None, Reason::DocumentWithheld)]
    );
}

#[test]
fn content_that_waits_for_its_scan_keeps_its_grant_and_does_not_open() {
    let mut world = World::new(TaskStatus::Ready, Some(LANE));
    world.take(LANE, 0, 0).unwrap();
    let grant = world.grants[0].id.clone();
    for withheld in [
        Withheld::Waiting,
        Withheld::Stale,
        Withheld::Failed,
        Withheld::TooLarge,
    ] {
        world.withheld = Some(withheld);
        assert!(world.settle().cuts.is_empty(), "{withheld:?}");
        assert_eq!(
            world.gate(LANE, 0, 0),
            Err(Reason::DocumentWithheld),
            "{withheld:?}"
        );
        assert_eq!(
            world.gate_resume(LANE, 0, 0, &grant),
            Err(Reason::DocumentWithheld),
            "{withheld:?}"
        );
    }
    world.withheld = None;
    assert_eq!(world.gate_resume(LANE, 0, 0, &grant), Ok(()));
}
