//! What a person would try.

use super::model::{Event, World, desired, place};
use crate::controller::plan::{Next, OPERATION_REFUSED, Refusal, Step, plan, plan_past};
use crate::controller::world::{Said, ring::Ended};
use std::collections::BTreeSet;

fn blocked_for(world: &World, desired: &crate::controller::world::Desired) -> &'static str {
    plan(&world.observe(), desired).blocked.map_or("", |blocked| blocked.reason)
}

#[test]
fn a_paused_cluster_is_left_alone() {
    let world = World::running(3);
    let paused = crate::controller::world::Desired { paused: true, ..desired(5) };
    assert!(matches!(plan(&world.observe(), &paused).next, Next::Wait(_)));
}

#[test]
fn a_cluster_at_rest_is_at_rest() {
    assert_eq!(plan(&World::running(3).observe(), &desired(3)).next, Next::Rest);
}

#[test]
fn a_cluster_hibernates_and_wakes_with_its_nodes_even_where_fewer_are_asked_for_meanwhile() {
    let mut world = World::running(4);
    let nodes: Vec<_> = (0..4).map(|ordinal| world.node_at(ordinal)).collect();
    let mut asleep = desired(4);
    asleep.hibernate = true;
    world.settle(&asleep, plan).unwrap();
    assert_eq!((world.pods.len(), world.volumes.len()), (0, 4));
    let next = plan(&world.observe(), &desired(2)).next;
    assert!(matches!(next, Next::Do(Step::Scale { from: 0, to: 4, .. })), "{next:?}");
    world.settle(&desired(4), plan).unwrap();
    assert_eq!((0..4).map(|ordinal| world.node_at(ordinal)).collect::<Vec<_>>(), nodes);
    world.settle(&desired(2), plan).unwrap();
    assert_eq!(world.unlike(&desired(2)), None);
}

#[test]
fn growing_onto_a_quarantined_volume_waits_or_is_released() {
    let mut world = World::running(3);
    let mut short = desired(2);
    for _ in 0..40 {
        let (_, step) = world.planned(&world.view(), &short, plan);
        if let Some(step) = step {
            world.act(&step).unwrap();
        }
        if let Some(event) = world.events().into_iter().find(|event| *event != Event::Tick) {
            world.happen(&event).unwrap();
        }
    }
    assert_eq!(world.volumes.len(), 3, "the volume is kept");
    short = desired(3);
    assert_eq!(blocked_for(&world, &short), "VolumeInQuarantine");
    short.release = BTreeSet::from(["data-god-a-2".to_owned()]);
    world.settle(&short, plan).unwrap();
    assert_eq!(world.unlike(&desired(3)), None);
}

#[test]
fn a_node_is_replaced_when_somebody_asks_for_it() {
    let mut world = World::running(3);
    let old = world.node_at(1);
    let mut asked = desired(3);
    asked.replace = BTreeSet::from([old]);
    world.settle(&asked, plan).unwrap();
    assert!(world.ring.as_ref().unwrap().retired.contains(&old));
    assert_eq!(world.unlike(&desired(3)), None);
}

/// A claim whose pod was never placed by the scheduler goes at once, pod or no pod.
#[test]
fn a_retired_node_whose_volume_went_under_its_pod_gives_way_to_a_new_one() {
    let mut world = World::running(3);
    let old = world.node_at(1);
    let mut asked = desired(3);
    asked.replace = BTreeSet::from([old]);
    while !world.ring.as_ref().unwrap().retired.contains(&old) {
        if let Some(step) = world.planned(&world.view(), &asked, plan).1 {
            world.act(&step).unwrap();
        }
        if let Some(event) = world.events().first() {
            world.happen(event).unwrap();
        }
    }
    let at = world.volumes.iter().position(|volume| volume.place == place("a", 1)).unwrap();
    let gone = world.volumes.remove(at);
    let mut observed = world.observe();
    let pod = observed.pods.iter_mut().find(|pod| pod.place == place("a", 1)).unwrap();
    pod.said = Said::Member { node: old, cluster: gone.cluster.unwrap() };
    let next = plan(&observed, &asked).next;
    assert!(matches!(&next, Next::Do(Step::Restart { place: at, .. }) if *at == place("a", 1)), "{next:?}");
}

#[test]
fn lost_volumes_beyond_the_budget_are_for_somebody_to_look_at() {
    let mut world = World::running(3);
    let mut frugal = desired(3);
    frugal.replace_max = 0;
    let lost = world.node_at(1);
    world.happen(&Event::LoseVolume(place("a", 1))).unwrap();
    world.settle(&frugal, plan).unwrap();
    assert_eq!(blocked_for(&world, &frugal), "ReplacementBudget");
    frugal.replace = BTreeSet::from([lost]);
    world.settle(&frugal, plan).unwrap();
    assert_eq!(world.unlike(&desired(3)), None);
}

#[test]
fn a_new_template_reaches_one_pod_at_a_time_and_only_while_the_others_are_up() {
    let mut world = World::running(3);
    world.sets.get_mut("a").unwrap().revision = Some("r2".to_owned());
    let (_, step) = world.planned(&world.view(), &desired(3), plan);
    assert!(matches!(&step, Some((Step::Restart { place: at, .. }, _)) if *at == place("a", 2)), "{step:?}");
    world.act(&step.unwrap()).unwrap();
    for event in [Event::EndPod(place("a", 2)), Event::CreatePod(place("a", 2))] {
        assert!(!matches!(plan(&world.observe(), &desired(3)).next, Next::Do(_)));
        world.happen(&event).unwrap();
    }
    world.settle(&desired(3), plan).unwrap();
    assert!(world.pods.iter().all(|pod| pod.revision == "r2"));
}

#[test]
fn a_restart_that_would_cost_a_quorum_is_blocked_unless_it_is_allowed() {
    let mut world = World::running(2);
    let ring = world.ring.as_mut().unwrap();
    ring.keyspaces[0].copies.write_quorum = 2;
    world.sets.get_mut("a").unwrap().revision = Some("r2".to_owned());
    let mut wish = desired(2);
    wish.keyspaces[0].copies.write_quorum = 2;
    assert_eq!(blocked_for(&world, &wish), "NoQuorumToSpare");
    wish.allow_downtime = true;
    assert!(matches!(plan(&world.observe(), &wish).next, Next::Do(Step::Restart { .. })));
}

#[test]
fn a_pod_that_is_stuck_on_an_older_template_is_restarted_at_once() {
    let mut world = World::running(3);
    world.happen(&Event::CrashPod(place("a", 0))).unwrap();
    world.sets.get_mut("a").unwrap().revision = Some("r2".to_owned());
    let next = plan(&world.observe(), &desired(3)).next;
    assert!(matches!(&next, Next::Do(Step::Restart { place: at, .. }) if at.ordinal == 0), "{next:?}");
}

#[test]
fn volumes_grow_first_and_then_the_set_that_makes_them() {
    let mut world = World::running(3);
    let mut larger = desired(3);
    larger.pools[0].volume_bytes = 200;
    let mut steps = Vec::new();
    for _ in 0..5 {
        let (_, step) = world.planned(&world.view(), &larger, plan);
        let Some(step) = step else { break };
        steps.push(step.0.reason());
        world.act(&step).unwrap();
    }
    let grown = ["VolumeExpanded", "VolumeExpanded", "VolumeExpanded", "PoolRecreated", "PoolCreated"];
    assert_eq!(steps, grown);
    assert_eq!(world.sets["a"].replicas, 3);
}

#[test]
fn a_pool_that_is_taken_out_of_the_spec_empties_first() {
    let mut world = World::running(2);
    let mut two = desired(2);
    two.pools.push(crate::controller::world::PoolWish { name: "b".to_owned(), ..two.pools[0].clone() });
    world.settle(&two, plan).unwrap();
    assert_eq!(world.ring.as_ref().unwrap().members.len(), 4);
    world.settle(&desired(2), plan).unwrap();
    assert_eq!(world.unlike(&desired(2)), None);
    assert!(!world.sets.contains_key("b"));
}

#[test]
fn volumes_that_were_kept_are_taken_over_by_an_object_of_the_same_name() {
    let mut world = World::running(3);
    let nodes: Vec<_> = (0..3).map(|ordinal| world.node_at(ordinal)).collect();
    world.recorded = crate::controller::world::Recorded::default();
    world.sets.clear();
    world.pods.clear();
    let mut other = desired(3);
    other.cluster = uuid::Uuid::from_u128(99);
    world.settle(&other, plan).unwrap();
    assert_eq!((0..3).map(|ordinal| world.node_at(ordinal)).collect::<Vec<_>>(), nodes);
    assert_eq!(world.recorded.cluster, Some(world.ring.as_ref().unwrap().cluster));
}

#[test]
fn what_is_refused_is_in_the_way_of_its_own_matter_only() {
    let mut world = World::running(3);
    world.sets.get_mut("a").unwrap().revision = Some("r2".to_owned());
    let (_, step) = world.planned(&world.view(), &desired(2), plan);
    let refusal = Refusal { step: step.unwrap().0, why: "node 1 has no room".to_owned() };
    assert!(matches!(refusal.step, Step::Begin { .. }), "{refusal:?}");
    let plan = plan_past(&world.observe(), &desired(2), Some(&refusal));
    assert!(matches!(plan.next, Next::Do(Step::Restart { .. })), "{plan:?}");
    let blocked = plan.blocked.unwrap();
    assert!(blocked.reason == "StepRefused" && blocked.message.contains("no room"), "{blocked:?}");
}

#[test]
fn a_cluster_is_not_at_rest_while_pods_that_were_asked_for_are_not_there() {
    let mut world = World::running(3);
    let (_, step) = world.planned(&world.view(), &desired(5), plan);
    world.act(&step.unwrap()).unwrap();
    assert!(matches!(plan(&world.observe(), &desired(5)).next, Next::Wait(_)), "no pod is there yet");
    for ordinal in [3, 4] {
        world.happen(&Event::CreatePod(place("a", ordinal))).unwrap();
    }
    assert!(matches!(plan(&world.observe(), &desired(5)).next, Next::Wait(_)), "the pods are pending");
    let mut crashing = World::running(3).observe();
    crashing.pods[1].ready = false;
    assert!(matches!(plan(&crashing, &desired(3)).next, Next::Wait(_)), "a pod is not ready");
}

#[test]
fn a_pod_that_cannot_start_is_told_with_its_reason_from_the_birth_on() {
    let mut world = World::empty();
    while world.pods.len() < 3 {
        match world.planned(&world.view(), &desired(3), plan).1 {
            Some(step) => world.act(&step).unwrap(),
            None => world.happen(&world.events()[0].clone()).unwrap(),
        }
    }
    world.pods[0].stuck = Some("ImagePullBackOff: no such image".to_owned());
    let told = plan(&world.observe(), &desired(3)).blocked.unwrap();
    assert!(told.reason == "PodStuck" && told.message.contains("no such image"), "{told:?}");
    let mut running = World::running(3).observe();
    running.pods[2].stuck = Some("CrashLoopBackOff".to_owned());
    running.pods[2].ready = false;
    let told = plan(&running, &desired(3));
    assert!(matches!(told.next, Next::Wait(_)), "{told:?}");
    assert_eq!(told.blocked.unwrap().reason, "PodStuck");
}

#[test]
fn nodes_that_keep_silent_for_long_are_for_somebody_to_look_at() {
    let world = World::running(3);
    let mut seen =
        world.observe_with(&crate::controller::world::RingView::Unknown("it timed out".to_owned()));
    assert_eq!(plan(&seen, &desired(3)).blocked, None, "they may have been restarted just now");
    seen.recorded.silent_since = Some(seen.now - 60);
    let told = plan(&seen, &desired(3));
    assert_eq!(told.blocked.unwrap().reason, "RingUnknown");
    assert!(matches!(told.next, Next::Wait(_)));
}

#[test]
fn too_few_who_decide_the_ring_are_for_somebody_to_look_at_at_once() {
    let mut world = World::running(3);
    world.happen(&Event::CrashPod(place("a", 0))).unwrap();
    assert_eq!(blocked_for(&world, &desired(3)), "", "two of three decide");
    world.happen(&Event::CrashPod(place("a", 2))).unwrap();
    let told = plan(&world.observe(), &desired(3)).blocked.unwrap();
    assert_eq!(told.reason, "NoMajority");
    assert!(told.message.ends_with("1, 3") && told.action.contains("recover"), "{told:?}");
}

#[test]
fn what_the_ring_refused_several_times_is_asked_again_once_that_is_excused() {
    let mut world = World::running(3);
    let (_, step) = world.planned(&world.view(), &desired(2), plan);
    let Some((Step::Begin { id, .. }, _)) = step else { panic!("a node leaves: {step:?}") };
    let base = id.split_once('.').unwrap().0.to_owned();
    let refused = |attempt: u64| Ended {
        id: format!("{base}.{attempt}"),
        cancelled: false,
        refused: "there is no room".to_owned(),
        epoch: 10 + attempt,
    };
    world.ring.as_mut().unwrap().ended.extend((1..4).map(refused));
    let mut seen = world.observe();
    let told = plan(&seen, &desired(2));
    assert!(!matches!(told.next, Next::Do(_)), "{told:?}");
    assert_eq!(told.blocked.unwrap().reason, OPERATION_REFUSED);
    seen.excused = 13;
    assert!(matches!(plan(&seen, &desired(2)).next, Next::Do(Step::Begin { .. })));
}

#[test]
fn a_pod_is_not_restarted_while_it_is_not_known_whose_data_its_volume_holds() {
    let mut world = World::running(2);
    world.sets.get_mut("a").unwrap().revision = Some("r2".to_owned());
    let ring = world.ring.as_mut().unwrap();
    ring.keyspaces[0].copies.write_quorum = 2;
    let mut wish = desired(2);
    wish.keyspaces[0].copies.write_quorum = 2;
    world.volumes[1].node = None;
    let mut seen = world.observe();
    seen.pods[1].said = Said::Nothing;
    let told = plan(&seen, &wish);
    assert!(matches!(told.next, Next::Wait(_)), "both copies are needed: {told:?}");
}

#[test]
fn a_cluster_that_is_named_too_late_is_told_and_the_one_that_is_there_goes_on() {
    let mut world = World::running(3);
    let mut late = desired(4);
    late.named = Some(uuid::Uuid::from_u128(7));
    assert_eq!(blocked_for(&world, &late), "ClusterFixed");
    world.settle(&late, plan).unwrap();
    assert_eq!(world.unlike(&desired(4)), None);
    late.named = world.recorded.cluster;
    assert_eq!(plan(&world.observe(), &late).blocked, None);
}

#[test]
fn a_volume_of_another_cluster_is_told_with_what_can_be_done_about_it() {
    let mut seen = World::running(3).observe();
    seen.volumes[1].cluster = Some(uuid::Uuid::from_u128(7));
    let told = plan(&seen, &desired(3)).blocked.unwrap();
    assert_eq!(told.reason, "ForeignVolume");
    assert!(told.action.contains("delete data-god-a-1") && told.action.contains("clusterId"), "{told:?}");
}
