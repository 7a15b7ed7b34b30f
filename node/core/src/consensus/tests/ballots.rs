//! BALLOT-BOUNDED: ballots beyond all reason, said to voters, keep no ring from changing.

use super::*;
use god_rules::paxos::MAX_LIFT;

/// A cluster all of whose nodes had the time to hear of the last ring.
async fn settled(world: &Arc<World>, nodes: u32) -> Vec<Arc<Register>> {
    let registers = cluster(world, nodes).await;
    sleep(Duration::from_secs(1)).await;
    registers
}

/// Asks a voter for a promise in the next instance, as any member may; says whether it gave one.
async fn prepare(register: &Register, round: u64) -> bool {
    let epoch = register.change(Duration::from_secs(1), |_| Ok(None)).await.unwrap().epoch().0 + 1;
    let ballot = Some(peer::Ballot { round, node: u32::MAX });
    match register.prepare(peer::Prepare { epoch, ballot }).await.unwrap() {
        response::Body::Paxos(done) => done.granted,
        other => panic!("{other:?}"),
    }
}

async fn lift(register: &Register, times: u64) {
    for time in 1..=times {
        assert!(prepare(register, time * MAX_LIFT).await, "time {time}");
    }
}

async fn changes(register: &Register, name: &str) {
    let create = |ring: &Ring| match ring.keyspace(name) {
        Some(_) => Ok(None),
        None => create_keyspace(ring, &keyspace(name.to_owned()), &[]).map(Some),
    };
    let changed = register.change(Duration::from_secs(10), create).await;
    assert!(changed.is_ok_and(|ring| ring.keyspace(name).is_some()), "{name} was not made");
}

#[tokio::test(start_paused = true)]
async fn the_last_ballot_there_is_said_to_all_voters_keeps_no_ring_from_changing() {
    for proposer in 0..3 {
        let world = World::new(1, 0, false);
        let registers = settled(&world, 3).await;
        for register in &registers {
            let epoch = register.change(Duration::from_secs(1), |_| Ok(None)).await.unwrap().epoch().0 + 1;
            let last = Some(peer::Ballot { round: u64::MAX, node: u32::MAX });
            // Whether it is refused is its own matter.
            let _ = register.prepare(peer::Prepare { epoch, ballot: last }).await;
            let document = register.change(Duration::from_secs(1), |_| Ok(None)).await.unwrap();
            let document = RingDocument { epoch, ..document.document().clone() };
            let _ = register.accept(peer::Accept { epoch, ballot: last, ring: Some(document) }).await;
        }
        changes(&registers[proposer], "one").await;
        changes(&registers[proposer], "two").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_was_lifted_out_of_the_others_reach_still_changes_the_ring() {
    for proposer in 0..3 {
        let world = World::new(1, 0, false);
        let registers = settled(&world, 3).await;
        lift(&registers[0], 3).await;
        changes(&registers[proposer], "k").await;
    }
}

#[tokio::test(start_paused = true)]
async fn voters_far_apart_decide_while_another_one_is_down() {
    for proposer in 0..2 {
        let world = World::new(1, 0, false);
        let registers = settled(&world, 3).await;
        lift(&registers[0], 200).await;
        world.crash(3);
        changes(&registers[proposer], "k").await;
    }
}

#[tokio::test(start_paused = true)]
async fn voters_each_far_from_the_others_decide_while_messages_are_lost() {
    for seed in 0..10 {
        let world = World::new(seed, 50, false);
        let registers = settled(&world, 5).await;
        for (register, times) in registers.iter().zip([90, 3, 0, 40, 7]) {
            // Who missed the last change is told when it is asked; here it need not vote.
            if register.change(Duration::from_secs(1), |_| Ok(None)).await.unwrap().voters().count() == 5 {
                lift(register, times).await;
            }
        }
        world.crash(3);
        let create = |ring: &Ring| create_keyspace(ring, &keyspace("k".to_owned()), &[]).map(Some);
        registers[1].change(Duration::from_secs(120), create).await.unwrap();
        world.check(seed);
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_ballot_was_made_for_is_not_accepted() {
    let world = World::new(1, 0, false);
    let registers = settled(&world, 1).await;
    let ring = registers[0].change(Duration::from_secs(1), |_| Ok(None)).await.unwrap();
    let epoch = ring.epoch().0 + 1;
    let document = RingDocument { epoch, ..ring.document().clone() };
    let accept = peer::Accept { epoch, ballot: None, ring: Some(document) };
    match registers[0].accept(accept).await.unwrap() {
        response::Body::Paxos(done) => assert!(!done.granted),
        other => panic!("{other:?}"),
    }
}
