use super::*;
use crate::controller::plan::model::{World, desired};
use crate::controller::{
    plan::plan,
    world::{
        RingView,
        ring::{Operation, Progress},
    },
};

fn told(world: &World, desired: &Desired, change: impl Fn(&mut Observed)) -> GodClusterStatus {
    told_after(&GodCluster::default(), world, desired, change)
}

fn told_after(
    cluster: &GodCluster,
    world: &World,
    desired: &Desired,
    change: impl Fn(&mut Observed),
) -> GodClusterStatus {
    let mut observed = world.observe();
    change(&mut observed);
    let plan = plan(&observed, desired);
    status(&Facts { cluster, observed: &observed, desired, plan: Some(&plan), problems: &[], refused: None })
}

fn condition<'a>(status: &'a GodClusterStatus, kind: &str) -> &'a str {
    &status.conditions.iter().find(|condition| condition.type_ == kind).unwrap().status
}

#[test]
fn a_cluster_at_rest_is_ready_and_its_status_stays_as_it_is() {
    let world = World::running(3);
    let first = told(&world, &desired(3), |_| {});
    assert_eq!((first.phase, first.nodes_ready.as_str(), &first.blocked), (Phase::Ready, "3/3", &None));
    let all = ["Available", "Progressing", "Degraded", "Reconciled"].map(|kind| condition(&first, kind));
    assert_eq!(all, ["True", "False", "False", "True"]);
    let cluster = GodCluster { status: Some(first.clone()), ..GodCluster::default() };
    let later = told_after(&cluster, &world, &desired(3), |observed| observed.now += 1_000);
    assert_eq!(first, later, "nothing changed, so nothing is written");
}

#[test]
fn a_cluster_is_not_ready_before_services_reach_each_of_its_pods() {
    for (before, expected) in [
        (Phase::Creating, Phase::Creating),
        (Phase::Growing, Phase::Growing),
        (Phase::Ready, Phase::Degraded),
    ] {
        let status = GodClusterStatus { phase: before, ..GodClusterStatus::default() };
        let cluster = GodCluster { status: Some(status), ..GodCluster::default() };
        let shown = told_after(&cluster, &World::running(3), &desired(3), |observed| {
            observed.pods[1].ready = false;
        });
        assert_eq!((shown.phase, condition(&shown, "Reconciled")), (expected, "False"));
        let shown = told_after(&cluster, &World::running(3), &desired(3), |observed| {
            let RingView::Known(ring) = &mut observed.ring else { panic!("the ring is known") };
            ring.members.values_mut().next().unwrap().state = MemberHealth::Unready;
        });
        assert_eq!((shown.phase, condition(&shown, "Degraded")), (expected, "True"));
    }
}

#[test]
fn an_operation_is_shown_with_its_progress() {
    let progress = Progress { arcs_done: 3, arcs_total: 12, eta_ms: 4_500, ..Progress::default() };
    let shown = told(&World::running(3), &desired(2), |observed| {
        let RingView::Known(ring) = &mut observed.ring else { panic!("the ring is known") };
        ring.operations.push(Operation {
            id: "leave-3.1".to_owned(),
            wish: Wish::Leave { node: 3, lost: false },
            phase: ring::OperationPhase::Moving,
            progress,
            blocked: String::new(),
        });
    });
    let operation = shown.operation.unwrap();
    assert_eq!(
        (operation.progress.as_str(), operation.eta_seconds, shown.phase),
        ("25%", Some(5), Phase::Shrinking)
    );
    assert_eq!(operation.what, "node 3 leaves");
}

#[test]
fn what_is_blocked_says_why_and_what_to_do() {
    let mut world = World::running(3);
    world.volumes.iter_mut().for_each(|volume| volume.bytes = 500);
    world.sets.values_mut().for_each(|set| set.volume_bytes = 500);
    let shown = told(&world, &desired(3), |_| {});
    let blocked = shown.blocked.clone().unwrap();
    assert_eq!((shown.phase, blocked.reason.as_str()), (Phase::Blocked, "VolumeCannotShrink"));
    assert!(!blocked.action.is_empty());
    assert_eq!(condition(&shown, "Reconciled"), "False");
}

#[test]
fn a_ring_that_is_not_known_is_said_to_be_so_and_its_members_are_not_forgotten() {
    let world = World::running(3);
    let cluster = GodCluster { status: Some(told(&world, &desired(3), |_| {})), ..GodCluster::default() };
    let shown = told_after(&cluster, &world, &desired(3), |observed| {
        observed.ring = RingView::Unknown("it timed out".to_owned());
    });
    assert_eq!(
        (condition(&shown, "Available"), shown.nodes.len(), shown.phase),
        ("Unknown", 3, Phase::Degraded)
    );
}

#[test]
fn a_spec_that_breaks_a_rule_is_told_with_the_way_out() {
    let problems = ["there are too few: ask for more".to_owned()];
    let observed = World::empty().observe();
    let desired = desired(3);
    let cluster = GodCluster::default();
    let facts = Facts {
        cluster: &cluster,
        observed: &observed,
        desired: &desired,
        plan: None,
        problems: &problems,
        refused: None,
    };
    let shown = status(&facts);
    let blocked = shown.blocked.unwrap();
    assert_eq!((shown.phase, blocked.message.as_str()), (Phase::Invalid, "there are too few"));
    assert_eq!(blocked.action, "ask for more");
}

/// How long nodes have kept silent is counted from when they were asked, and not from when they went to sleep.
#[test]
fn a_cluster_that_sleeps_is_not_available_and_its_nodes_do_not_count_as_silent() {
    let mut asleep = desired(3);
    asleep.hibernate = true;
    let shown = told(&World::running(3), &asleep, |observed| {
        observed.ring = RingView::Unknown("nobody is there".to_owned());
        observed.pods.clear();
    });
    assert_eq!((condition(&shown, "Available"), shown.phase), ("False", Phase::Hibernated));
}
