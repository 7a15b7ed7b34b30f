//! Every interleaving of a crash after each write, a stale look, a lost reply and a change of mind.
//!
//! A state is the world and the step that the operator decided on and has not taken yet. From each state anything may
//! happen: an event of the world; the step is taken (its reply is never needed); the operator forgets it and looks anew
//! (a crash); the spec changes. A step that is taken late is one from a stale look.

use super::model::{Event, Planned, Planner, World, desired, place};
use crate::controller::{
    plan::{Next, plan},
    world::{Observed, RingView, Said},
};
use proptest::prelude::*;
use std::collections::{HashSet, VecDeque};

struct State {
    world: World,
    planned: Option<Planned>,
    /// Index of the spec that holds.
    spec: usize,
}

/// Visits all states from a world on, through a list of specs. Gives their number, or how an invariant broke. From some
/// states it looks whether all comes to rest as the spec says.
fn walk(world: World, sizes: &[u32], planner: Planner, faults: bool) -> Result<usize, String> {
    let is_true = std::ptr::fn_addr_eq(planner, plan as Planner);
    let mut seen = HashSet::new();
    let mut open = VecDeque::from([State { world, planned: None, spec: 0 }]);
    while let Some(state) = open.pop_front() {
        if !seen.insert((state.world.canonical(state.planned.as_ref()), state.spec)) {
            continue;
        }
        if seen.len() > MOST {
            return Err(format!("there are more than {MOST} states"));
        }
        let desired = desired(sizes[state.spec]);
        let mut reach = |world: World, planned: Option<Planned>, spec: usize| {
            open.push_back(State { world, planned, spec });
        };
        let failing = if faults { state.world.faults() } else { Vec::new() };
        for event in state.world.events().into_iter().chain(failing) {
            // A look is never as old as a quarantine is long: whoever holds the lease gives it up before.
            if event == Event::Tick && state.planned.is_some() {
                continue;
            }
            let mut next = state.world.clone();
            next.happen(&event)?;
            reach(next, state.planned.clone(), state.spec);
        }
        if let Some(planned) = &state.planned {
            let mut next = state.world.clone();
            next.act(planned)?;
            reach(next, None, state.spec);
        }
        let (plan, looked) = state.world.planned(&state.world.view(), &desired, planner);
        if is_true && plan.next == Next::Rest && plan.blocked.is_none() {
            // It is told then that everything is as wished.
            if let Some(missing) = state.world.missing(&desired) {
                return Err(format!("it rests, and {missing}"));
            }
        }
        if looked.is_some() && looked != state.planned {
            reach(state.world.clone(), looked, state.spec);
        }
        if state.spec + 1 < sizes.len() {
            reach(state.world.clone(), state.planned.clone(), state.spec + 1);
        }
        if is_true && state.spec + 1 == sizes.len() && seen.len() % 17 == 0 {
            let mut rest = state.world.clone();
            rest.settle(&desired, planner)?;
            if let Some(unlike) = rest.unlike(&desired) {
                return Err(unlike);
            }
        }
    }
    println!("{} states", seen.len());
    Ok(seen.len())
}

const MOST: usize = 400_000;

#[test]
fn every_way_of_a_birth_founds_one_cluster() {
    let states = walk(World::empty(), &[2], plan, true).unwrap();
    assert!(states > 100, "only {states} states were seen");
}

#[test]
fn every_way_of_a_shrink_deletes_no_volume_that_is_needed() {
    let states = walk(World::running(3), &[3, 2], plan, true).unwrap();
    assert!(states > 50, "only {states} states were seen");
}

#[test]
fn every_way_of_a_shrink_that_is_turned_round_deletes_no_volume_that_is_needed() {
    let states = walk(World::running(3), &[3, 2, 3], plan, true).unwrap();
    assert!(states > 200, "only {states} states were seen");
}

#[test]
fn every_way_of_a_growth_that_is_turned_round_and_back_deletes_no_volume_that_is_needed() {
    let states = walk(World::running(2), &[2, 3, 2, 3], plan, true).unwrap();
    assert!(states > 500, "only {states} states were seen");
}

#[test]
fn every_way_of_changing_the_size_of_a_cluster_that_gets_its_first_data_keeps_what_is_needed() {
    let states = walk(World::without_data(2), &[2, 3, 2], plan, false).unwrap();
    assert!(states > 200, "only {states} states were seen");
}

#[test]
fn every_way_of_a_shrink_whose_last_pod_runs_without_a_claim_lets_its_node_leave() {
    let mut world = World::running(3);
    world.happen(&Event::RemoveClaim(place("a", 2))).unwrap();
    let states = walk(world, &[3, 2], plan, true).unwrap();
    assert!(states > 50, "only {states} states were seen");
}

#[test]
fn every_way_of_making_up_for_a_lost_volume_deletes_no_volume_that_is_needed() {
    let mut world = World::running(3);
    world.happen(&Event::LoseVolume(place("a", 1))).unwrap();
    let states = walk(world, &[3], plan, true).unwrap();
    assert!(states > 50, "only {states} states were seen");
}

#[test]
fn every_way_of_making_up_for_a_volume_that_is_lost_while_a_node_joins_deletes_no_volume_that_is_needed() {
    let mut world = World::running(3);
    while world.ring.as_ref().unwrap().operations.is_empty() {
        match world.planned(&world.view(), &desired(4), plan).1 {
            Some(step) => world.act(&step).unwrap(),
            None => world.happen(&world.events()[0].clone()).unwrap(),
        }
    }
    world.happen(&Event::LoseVolume(place("a", 1))).unwrap();
    let states = walk(world, &[4], plan, false).unwrap();
    assert!(states > 30, "only {states} states were seen");
}

/// Plans with a ring about which it is lied to.
fn lied_to(observed: &Observed, lie: fn(&mut Observed)) -> Observed {
    let mut observed = observed.clone();
    lie(&mut observed);
    observed
}

/// An absent answer is read as "it has left".
fn absence_is_evidence(observed: &mut Observed) {
    let nodes: Vec<_> = observed.volumes.iter().filter_map(|volume| volume.node).collect();
    if let RingView::Known(ring) = &mut observed.ring {
        for node in nodes {
            if ring.operations.iter().any(|it| ring.members.get(&node).is_some_and(|member| {
                matches!(it.wish, crate::controller::world::ring::Wish::Leave { node, .. } if node == member.number)
            })) {
                ring.members.remove(&node);
                ring.retired.insert(node);
            }
        }
        ring.operations.clear();
    }
}

/// The last pod is taken for whoever left last.
fn names_are_identity(observed: &mut Observed) {
    if let RingView::Known(ring) = &observed.ring
        && let Some(left) = ring.retired.iter().next_back().copied()
        && let Some(last) = observed.volumes.iter_mut().max_by_key(|volume| volume.place.clone())
    {
        last.node = Some(left);
        observed.pods.iter_mut().for_each(|pod| pod.said = Said::Nothing);
    }
}

/// Nobody is asked what is on a volume: each is taken for its neighbour.
fn marks_are_guessed(observed: &mut Observed) {
    let mut marks: Vec<_> = observed.volumes.iter().map(|volume| volume.node).collect();
    if !marks.is_empty() {
        marks.rotate_left(1);
    }
    for (volume, mark) in observed.volumes.iter_mut().zip(marks) {
        volume.node = mark;
    }
    observed.pods.iter_mut().for_each(|pod| pod.said = Said::Nothing);
}

#[test]
fn a_plan_that_takes_absence_for_evidence_is_caught() {
    let broken: Planner = |observed, desired| plan(&lied_to(observed, absence_is_evidence), desired);
    let found = walk(World::running(3), &[3, 2], broken, false).unwrap_err();
    assert!(found.contains("holds arcs"), "{found}");
}

#[test]
fn a_plan_that_takes_names_for_identity_is_caught() {
    let broken: Planner = |observed, desired| plan(&lied_to(observed, names_are_identity), desired);
    let found = walk(World::running(4), &[4, 3, 2], broken, false).unwrap_err();
    assert!(found.contains("holds arcs"), "{found}");
}

#[test]
fn a_plan_that_guesses_what_is_on_volumes_is_caught() {
    let broken: Planner = |observed, desired| plan(&lied_to(observed, marks_are_guessed), desired);
    assert!(walk(World::running(3), &[3, 2], broken, false).is_err());
}

#[test]
fn a_plan_that_founds_without_writing_down_who_does_is_caught() {
    let broken: Planner = |observed, desired| {
        let mut forgetful = observed.clone();
        forgetful.ring = RingView::Unknown("nobody was asked".to_owned());
        forgetful.volumes.iter_mut().for_each(|volume| volume.cluster = None);
        for pod in &mut forgetful.pods {
            if matches!(pod.said, Said::Member { .. }) {
                pod.said = Said::Nothing;
            }
        }
        let fresh = forgetful.pods.iter().find(|pod| pod.said != Said::Nothing);
        forgetful.recorded.founder =
            fresh.and_then(|pod| Some((pod.said.node()?, observed.volume_at(&pod.place)?.uid.clone())));
        plan(&forgetful, desired)
    };
    let found = walk(World::empty(), &[2], broken, false).unwrap_err();
    assert!(found.contains("second cluster"), "{found}");
}

/// What a random walk does next; numbers choose among what is possible.
#[derive(Clone, Debug)]
enum Turn {
    Event(usize),
    Look,
    LookAtRing,
    Act,
    Size(u32),
    Crash(u32),
    Lose(u32),
    Unclaim(u32),
    Hibernate(bool),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        20 => any::<usize>().prop_map(Turn::Event),
        10 => Just(Turn::Look),
        3 => Just(Turn::LookAtRing),
        12 => Just(Turn::Act),
        2 => (2..6u32).prop_map(Turn::Size),
        1 => (0..6u32).prop_map(Turn::Crash),
        1 => (0..6u32).prop_map(Turn::Lose),
        1 => (0..6u32).prop_map(Turn::Unclaim),
        1 => any::<bool>().prop_map(Turn::Hibernate),
    ]
}

fn run(start: u32, with_data: bool, turns: &[Turn]) -> Result<(), String> {
    let mut world = if with_data { World::running(start) } else { World::without_data(start) };
    let mut desired = desired(start);
    let mut planned: Option<Planned> = None;
    // What the API server said at the last look, before the ring was looked at.
    let mut looked = world.clone();
    let mut lost = 0;
    for turn in turns {
        match turn {
            Turn::Event(at) => {
                let events = world.events();
                if let Some(event) = events.get(at % events.len().max(1)) {
                    if *event == Event::Tick {
                        planned = None;
                        looked = world.clone();
                    }
                    world.happen(event)?;
                }
            }
            Turn::Look => {
                looked = world.clone();
                planned = world.planned(&world.view(), &desired, plan).1;
            }
            // The API server was read a while ago, the ring just now: that is the order of every look.
            Turn::LookAtRing => planned = looked.planned(&world.view(), &desired, plan).1,
            Turn::Act => {
                if let Some(planned) = planned.take() {
                    world.act(&planned)?;
                }
            }
            Turn::Size(size) => desired = super::model::desired(*size),
            Turn::Crash(ordinal) => world.happen(&Event::CrashPod(place("a", *ordinal)))?,
            // One copy of two may be lost, and no other before it is made up for.
            Turn::Lose(ordinal) | Turn::Unclaim(ordinal) => {
                let served = world.unlike(&super::model::desired(world.pods.len() as u32)).is_none();
                if served && world.has_all_volumes() && lost < 2 {
                    lost += 1;
                    world.happen(&match turn {
                        Turn::Lose(_) => Event::LoseVolume(place("a", *ordinal)),
                        _ => Event::RemoveClaim(place("a", *ordinal)),
                    })?;
                }
            }
            Turn::Hibernate(on) => desired.hibernate = *on,
        }
    }
    desired.hibernate = false;
    // Whose claim is gone runs until its pod ends.
    for place in world.mounted.keys().cloned().collect::<Vec<_>>() {
        world.happen(&Event::CrashPod(place))?;
    }
    world.settle(&desired, plan)?;
    match world.unlike(&desired) {
        Some(unlike) => Err(format!("{unlike}; {:?}", plan(&world.observe(), &desired))),
        None => Ok(()),
    }
}

/// Who was to join and lost its volume holds no arc yet: all are served, and still it is to be made up for.
#[test]
fn no_walk_loses_a_volume_while_one_of_a_node_that_holds_nothing_yet_is_gone() {
    let (live, pod_comes, joins) = (Turn::Event(0), Turn::Event(6_129_954_414_186_994_574), Turn::Event(0));
    let turns = [live, Turn::Look, Turn::Act, Turn::Lose(3), pod_comes, Turn::Lose(1), joins];
    run(4, false, &turns).unwrap();
}

/// Two of those that hold an arc are away, one of them without its volume: copies wait for the other one to come back,
/// and a joiner that does not run is given none.
#[test]
fn no_walk_moves_arcs_while_those_who_are_to_give_or_take_them_are_away() {
    let turns = [
        Turn::Size(2),
        Turn::Look,
        Turn::Act,
        Turn::Lose(1),
        Turn::Look,
        Turn::Act,
        Turn::Look,
        Turn::Crash(2),
        Turn::Event(1_260_623_608_414_147_525),
        Turn::Event(313_468_256_116_704_461),
        Turn::Event(9_963_665_485_026_148_183),
        Turn::Size(4),
        Turn::Act,
        Turn::Event(0),
        Turn::Event(0),
    ];
    run(4, true, &turns).unwrap();
}

/// Fewer nodes are asked for while the new one, in the place of the lost one, is given its part: that waits for what is
/// gone, so making up for it must not wait for that.
#[test]
fn no_walk_waits_for_ever_for_a_join_that_waits_for_a_lost_volume() {
    let first = Turn::Event(0);
    let comes = [first.clone(), first.clone(), first.clone(), first];
    let mut turns = vec![Turn::Lose(0)];
    turns.extend(comes);
    turns.extend([
        Turn::Look,
        Turn::Act,
        Turn::Size(4),
        Turn::Crash(0),
        Turn::Look,
        Turn::Act,
        Turn::Size(2),
    ]);
    run(3, false, &turns).unwrap();
}

/// A leave is taken back after all arcs have moved, and one of those that they would go back to was retired meanwhile:
/// as they are, they stay.
#[test]
fn no_walk_waits_for_ever_for_a_leave_that_is_taken_back_after_a_lost_node_was_retired() {
    let turns = [
        Turn::Size(2),
        Turn::Look,
        Turn::Act,
        Turn::Lose(0),
        Turn::Look,
        Turn::Act,
        Turn::Look,
        Turn::Crash(1),
        Turn::Event(1_260_623_608_414_147_525),
        Turn::Event(313_468_256_116_704_461),
        Turn::Event(9_963_665_485_026_148_183),
        Turn::Size(5),
        Turn::Act,
        Turn::Event(0),
        Turn::Event(0),
    ];
    run(4, true, &turns).unwrap();
}

/// A node is lost while another one leaves, whose place is asked for again: the pod there runs who left, and must give
/// way for anybody to take the lost one's place.
#[test]
fn no_walk_waits_for_ever_for_a_new_node_where_a_pod_runs_one_that_left() {
    let (pod_comes, admitted) =
        (Turn::Event(3_410_798_741_535_528_276), Turn::Event(8_943_940_494_975_430_113));
    let (leaves, left) = (Turn::Event(2_512_760_684_309_666_679), Turn::Event(2_835_995_872_625_044_034));
    let mut turns =
        vec![Turn::Size(2), Turn::Look, Turn::Lose(0), Turn::Act, pod_comes, admitted, leaves, left];
    turns.extend([
        Turn::Event(0),
        Turn::Event(0),
        Turn::Event(0),
        Turn::Size(3),
        Turn::Event(0),
        Turn::Event(0),
    ]);
    run(3, false, &turns).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_random_walk_deletes_a_volume_that_is_needed_and_each_comes_to_what_was_asked_for(
        start in 2..5u32,
        with_data in any::<bool>(),
        turns in prop::collection::vec(turn(), 0..120),
    ) {
        if let Err(found) = run(start, with_data, &turns) {
            return Err(TestCaseError::fail(found));
        }
    }
}
