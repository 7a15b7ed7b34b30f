//! How others lost data or stuck for ever; each has an issue in their trackers.

use super::model::{Event, World, desired, place};
use crate::controller::{
    plan::{Next, Step, plan},
    world::{
        RingView,
        ring::{OperationPhase, Wish},
    },
};

/// A label that said "decommissioned" was left from an earlier time; the node's 21 TB were orphaned.
#[test]
fn a_stale_mark_never_stands_in_for_a_leave() {
    let mut world = World::running(3);
    for volume in &mut world.volumes {
        volume.quarantined_until = Some(0);
    }
    for _ in 0..3 {
        let (plan, step) = world.planned(&world.view(), &desired(2), plan);
        assert!(matches!(plan.next, Next::Do(Step::Unquarantine { .. })), "{plan:?}");
        world.act(&step.unwrap()).unwrap();
    }
    let next = plan(&world.observe(), &desired(2)).next;
    assert!(matches!(next, Next::Do(Step::Begin { wish: Wish::Leave { lost: false, .. }, .. })), "{next:?}");
}

/// Down and then up while a node left: it stuck for ever.
#[test]
fn a_shrink_that_is_turned_round_midway_is_undone() {
    for phase in [OperationPhase::Waiting, OperationPhase::Moving, OperationPhase::Cleaning] {
        let mut world = World::running(3);
        let (_, step) = world.planned(&world.view(), &desired(2), plan);
        world.act(&step.unwrap()).unwrap();
        let leaver = world.node_at(2);
        while world.ring.as_ref().unwrap().operations[0].phase != phase {
            world.happen(&Event::RingStep).unwrap();
        }
        let next = plan(&world.observe(), &desired(3)).next;
        assert!(matches!(next, Next::Do(Step::Cancel { .. })), "{phase:?}: {next:?}");
        world.settle(&desired(3), plan).unwrap();
        assert_eq!(world.unlike(&desired(3)), None, "{phase:?}");
        assert_eq!(world.node_at(2), leaver, "{phase:?}: the leaver was rescued");
    }
}

/// An error gave an empty list, "absent from the ring" was read as done, and the volume was deleted.
#[test]
fn an_error_an_empty_ring_or_a_minority_is_not_evidence() {
    let world = World::running(3);
    let silent = RingView::Unknown("it timed out".to_owned());
    let RingView::Known(whole) = world.view() else { panic!("the ring is known") };
    let mut empty = whole.clone();
    empty.members.clear();
    let mut alone = whole.clone();
    let leaver = world.node_at(2);
    alone.members.remove(&leaver);
    alone.retired.insert(leaver);
    alone.epoch += 1;
    let mut of_others = whole.clone();
    of_others.cluster = uuid::Uuid::from_u128(7);
    of_others.retired.insert(leaver);
    // A node knows a newer one, in which the leaver may have been called back.
    let mut superseded = whole.clone();
    superseded.members.remove(&leaver);
    superseded.retired.insert(leaver);
    let report = superseded.members.values_mut().find_map(|member| member.report.as_mut()).unwrap();
    report.epoch += 1;
    let superseded = RingView::Known(superseded);
    for ring in
        [silent, RingView::Known(empty), RingView::Known(alone), RingView::Known(of_others), superseded]
    {
        let next = plan(&world.observe_with(&ring), &desired(2)).next;
        assert!(matches!(next, Next::Wait(_)), "{ring:?}: {next:?}");
    }
}

/// A recreated pod was taken for the node that had its name, or its address.
#[test]
fn a_pod_of_the_same_name_is_another_node() {
    let mut world = World::running(3);
    let old = world.node_at(2);
    world.happen(&Event::LoseVolume(place("a", 2))).unwrap();
    for event in
        [Event::CreatePod(place("a", 2)), Event::StartPod(place("a", 2)), Event::Admit(place("a", 2))]
    {
        world.happen(&event).unwrap();
    }
    let new = world.node_at(2);
    assert_ne!(old, new);
    world.settle(&desired(3), plan).unwrap();
    let ring = world.ring.as_ref().unwrap();
    assert!(ring.retired.contains(&old) && ring.members.contains_key(&new));
    let replaced = ring.ended.iter().any(|ended| ended.id.starts_with("replace-lost-"));
    assert!(replaced, "the new node took the old one's arcs: {:?}", ring.ended);
    assert_eq!(world.unlike(&desired(3)), None);
}

/// The wanted size was derived from the pods that were seen, after one was lost.
#[test]
fn the_wanted_size_follows_the_spec_and_not_what_is_seen() {
    let mut world = World::running(3);
    world.happen(&Event::EndPod(place("a", 2))).unwrap();
    world.happen(&Event::EndPod(place("a", 1))).unwrap();
    let next = plan(&world.observe(), &desired(3)).next;
    assert!(!matches!(next, Next::Do(_)), "{next:?}");
    // Somebody scales the set down by hand: its volumes are needed.
    world.sets.get_mut("a").unwrap().replicas = 1;
    let next = plan(&world.observe(), &desired(2)).next;
    assert!(matches!(next, Next::Do(Step::Scale { from: 1, to: 3, .. })), "{next:?}");
}

/// A pod that waits for a volume that was being deleted when it was made waits for ever.
#[test]
fn a_pod_that_waits_for_a_volume_that_goes_is_made_again() {
    let mut world = World::running(3);
    world.happen(&Event::CrashPod(place("a", 1))).unwrap();
    world.volumes[1].terminating = true;
    let next = plan(&world.observe(), &desired(3)).next;
    assert!(matches!(next, Next::Do(Step::Restart { .. })), "{next:?}");
    let gone = world.volumes.remove(1);
    world.disks.remove(&gone.uid);
    let next = plan(&world.observe(), &desired(3)).next;
    assert!(matches!(next, Next::Do(Step::Restart { .. })), "{next:?}");
    world.settle(&desired(3), plan).unwrap();
    assert_eq!(world.unlike(&desired(3)), None);
}

/// A claim was removed by force, or lost its labels, while its pod ran: what is not seen was taken for what is not
/// there.
#[test]
fn a_node_that_runs_without_a_claim_leaves_before_its_pod_goes() {
    let mut world = World::running(3);
    let node = world.node_at(2);
    world.happen(&Event::RemoveClaim(place("a", 2))).unwrap();
    let seen = world.observe();
    assert!(!seen.is_homeless(node), "it says that it is there");
    assert_eq!(plan(&seen, &desired(3)).blocked.unwrap().reason, "ClaimMissing");
    let next = plan(&seen, &desired(2)).next;
    assert!(matches!(next, Next::Do(Step::Begin { wish: Wish::Leave { lost: false, .. }, .. })), "{next:?}");
    world.settle(&desired(2), plan).unwrap();
    assert_eq!(world.unlike(&desired(2)), None);
    assert!(world.ring.unwrap().ended.iter().all(|ended| !ended.id.starts_with("lost-")));
}

#[test]
fn a_pod_without_a_claim_is_neither_restarted_nor_put_to_sleep() {
    let mut world = World::running(3);
    world.happen(&Event::RemoveClaim(place("a", 2))).unwrap();
    world.sets.get_mut("a").unwrap().revision = Some("r2".to_owned());
    let restarted = plan(&world.observe(), &desired(3));
    assert_eq!(restarted.blocked.unwrap().reason, "ClaimMissing");
    let mut silent = world.observe();
    silent.pods[2].said = crate::controller::world::Said::Nothing;
    silent.pods[2].ready = false;
    assert!(!silent.is_homeless(world.node_at(2)));
    assert!(
        !matches!(plan(&silent, &desired(3)).next, Next::Do(_)),
        "a pod that is silent may be the member"
    );
    assert!(
        !matches!(plan(&silent, &desired(2)).next, Next::Do(_)),
        "a pod that is silent may be the member"
    );
    let mut asleep = desired(3);
    asleep.hibernate = true;
    let next = plan(&world.observe(), &asleep).next;
    assert!(!matches!(next, Next::Do(_)), "{next:?}");
}

#[test]
fn a_node_without_a_claim_is_replaced_when_somebody_asks_for_it() {
    let mut world = World::running(3);
    let old = world.node_at(1);
    world.happen(&Event::RemoveClaim(place("a", 1))).unwrap();
    let mut asked = desired(3);
    asked.replace = std::collections::BTreeSet::from([old]);
    world.settle(&asked, plan).unwrap();
    assert!(world.ring.as_ref().unwrap().retired.contains(&old));
    assert_eq!(world.unlike(&desired(3)), None);
}

/// A pod's address was given to another one after it had ended: the wrong node answered for it.
#[test]
fn nothing_is_done_where_one_node_would_be_on_two_volumes() {
    let mut world = World::running(3);
    let node = world.node_at(0);
    world.volumes[2].node = Some(node);
    let told = plan(&world.observe(), &desired(2));
    assert!(matches!(told.next, Next::Wait(_)), "{told:?}");
    assert_eq!(told.blocked.unwrap().reason, "SeveralVolumes");
    world.volumes[2].node = None;
    let mut seen = world.observe();
    seen.pods[2].said = seen.pods[0].said;
    let told = plan(&seen, &desired(3));
    assert_eq!((told.blocked.unwrap().reason, matches!(told.next, Next::Do(_))), ("SeveralVolumes", false));
}

/// An operation waited for a node whose volume was lost, and nobody made up for it while the operation was there.
#[test]
fn a_lost_volume_is_made_up_for_while_an_operation_waits_for_it() {
    let mut world = World::running(3);
    while world.ring.as_ref().unwrap().operations.is_empty() {
        if let Some(step) = world.planned(&world.view(), &desired(4), plan).1 {
            world.act(&step).unwrap();
        } else {
            let event = world.events().into_iter().find(|event| *event != Event::GoLive).unwrap();
            world.happen(&event).unwrap();
        }
    }
    assert!(matches!(world.ring.as_ref().unwrap().operations[0].wish, Wish::Join(_)));
    world.happen(&Event::RingStep).unwrap();
    let lost = world.node_at(1);
    world.happen(&Event::LoseVolume(place("a", 1))).unwrap();
    let ring = world.ring.as_mut().unwrap();
    ring.operations[0].blocked = "node 2 does not answer".to_owned();
    let mut is_asked = false;
    for _ in 0..20 {
        let told = plan(&world.observe(), &desired(4));
        is_asked |= matches!(&told.next, Next::Do(Step::Begin { wish, .. }) if wish.is_for_lost());
        // The operation that waits stands still.
        let event =
            world.events().into_iter().find(|event| !matches!(event, Event::GoLive | Event::RingStep));
        match (world.planned(&world.view(), &desired(4), plan).1, event) {
            (Some(step), _) => world.act(&step).unwrap(),
            (None, Some(event)) => world.happen(&event).unwrap(),
            (None, None) => break,
        }
    }
    assert!(is_asked, "nobody makes up for node {lost}");
    let wishes: Vec<bool> =
        world.ring.as_ref().unwrap().operations.iter().map(|it| it.wish.is_for_lost()).collect();
    assert_eq!(wishes, [true, false], "it goes first");
    world.ring.as_mut().unwrap().operations[1].blocked.clear();
    world.settle(&desired(4), plan).unwrap();
    assert_eq!(world.unlike(&desired(4)), None);
}

/// Only a person can help where too many were lost lately: that is said, and not only that the operation stands still.
#[test]
fn what_keeps_a_loss_from_being_made_up_for_is_said_rather_than_that_an_operation_waits() {
    let mut world = World::running(3);
    let (_, step) = world.planned(&world.view(), &desired(2), plan);
    world.act(&step.unwrap()).unwrap();
    world.ring.as_mut().unwrap().operations[0].blocked = "node 1 does not answer".to_owned();
    world.happen(&Event::LoseVolume(place("a", 0))).unwrap();
    let mut frugal = desired(2);
    frugal.replace_max = 0;
    assert_eq!(plan(&world.observe(), &frugal).blocked.unwrap().reason, "ReplacementBudget");
}
