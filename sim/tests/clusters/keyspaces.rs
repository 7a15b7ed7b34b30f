//! Keyspaces from their first write to their deletion, on whole clusters in simulated time.
#![allow(clippy::unwrap_used)]

use god_core::{doors::Service as _, engine::Direction};
use god_history::{Ask, Told};
use god_proto::{
    ids::KeyspaceId,
    position::{Position, PositionRange},
    v1::{
        BeginOperationRequest, Call, CreateKeyspaceRequest, DeleteKeyspaceRequest, InitRequest, LeaveWish,
        Level, MemberState, Partitioner, PutRequest, Reason, Rejected, Wish, answer, call, wish,
        write_reply::Outcome,
    },
};
use god_sim::{
    calm::{agree, cluster, settings, within},
    client::{Clients, ORDERED, SET, place},
    world::World,
};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

const LIMIT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(60);

async fn make(clients: &Clients) -> KeyspaceId {
    let request = CreateKeyspaceRequest {
        name: ORDERED.to_owned(),
        partitioner: Partitioner::Ordered.into(),
        ..CreateKeyspaceRequest::default()
    };
    let made = clients.world.running(0).unwrap().client.create_keyspace(request).await;
    assert_eq!(made.failed, None);
    let id = made.keyspace.unwrap().id;
    let world = Arc::clone(&clients.world);
    let all_know = || {
        let knows = |at| {
            let ring = world.running(at).and_then(|running| running.node.current_ring().get());
            ring.is_none_or(|ring| ring.keyspace_by_id(KeyspaceId(id)).is_some())
        };
        (0..world.size()).all(knows)
    };
    within(PATIENCE, all_know).await.unwrap();
    KeyspaceId(id)
}

/// How many entries a node stores of a keyspace, whatever its ring says.
fn stored(world: &World, at: usize, keyspace: KeyspaceId) -> usize {
    let running = world.running(at).unwrap();
    let view = running.node.member().unwrap().store.view();
    view.scan(&PositionRange::of_keyspace(keyspace), Direction::Forward).count()
}

async fn put(clients: &Clients, key: u32) -> Told {
    clients.perform(1, 0, key, Ask::Put(key.into()), LIMIT).await
}

#[tokio::test(start_paused = true)]
async fn a_deleted_keyspace_is_gone_from_every_disk_and_nothing_of_it_comes_back_under_its_name() {
    let clients = cluster(1, 4).await.unwrap();
    let world = Arc::clone(&clients.world);
    let first = make(&clients).await;
    for key in SET..SET + 50 {
        assert!(matches!(put(&clients, key).await, Told::Committed(_)));
    }
    let held: Vec<usize> = (0..4).map(|at| stored(&world, at, first)).collect();
    assert!(held.iter().sum::<usize>() >= 100, "{held:?}");

    // One is away while it is deleted, and made anew under the same name.
    let away = (1..4).find(|at| held[*at] > 0).unwrap();
    world.crash(away, None);
    let delete = || DeleteKeyspaceRequest { name: ORDERED.to_owned(), id: first.0 };
    let client = world.running(0).unwrap().client;
    assert_eq!(client.delete_keyspace(delete()).await.failed, None);
    assert_eq!(client.delete_keyspace(delete()).await.failed, None, "again is once");
    let second = make(&clients).await;
    assert!(second > first);
    assert_eq!(client.delete_keyspace(delete()).await.failed, None, "the new one is not meant");
    let unknown = DeleteKeyspaceRequest { name: "nothing".to_owned(), id: 0 };
    let refused = client.delete_keyspace(unknown).await.failed.unwrap();
    assert_eq!(refused.reason(), Reason::NoSuchKeyspace);

    world.start(away);
    let all = Arc::clone(&world);
    within(PATIENCE, || agree(&all)).await.unwrap();
    let all_gone = || (0..4).all(|at| stored(&world, at, first) == 0);
    within(PATIENCE, all_gone).await.unwrap();
    for key in SET..SET + 50 {
        let read = clients.perform(1, away, key, Ask::Get, LIMIT).await;
        assert!(matches!(read, Told::Missing(None)), "key {key}: {read:?}");
    }
    assert!(matches!(put(&clients, SET).await, Told::Committed(_)));
    sleep(Duration::from_secs(5)).await;
    assert!((0..4).map(|at| stored(&world, at, second)).sum::<usize>() >= 2, "what is there is kept");
}

/// Why a write is refused now.
async fn refused(world: &World, keyspace: &str) -> Rejected {
    let put = PutRequest { keyspace: keyspace.to_owned(), key: "k".into(), ..PutRequest::default() };
    let calls = vec![Call { call: Some(call::Call::Put(put)) }];
    let mut answers = world.running(0).unwrap().client.batch(calls).await;
    match answers.pop().unwrap().answer {
        Some(answer::Answer::Write(reply)) => match reply.outcome {
            Some(Outcome::Rejected(why)) => why,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// Reads of as many as the settings say could miss what so few acknowledge.
#[tokio::test(start_paused = true)]
async fn a_quorum_that_a_founder_leaves_out_follows_from_the_one_that_is_given() {
    for (write, read, both) in [(0, 0, (2, 2)), (1, 0, (1, 3)), (3, 0, (3, 2)), (0, 3, (2, 3))] {
        let world = World::new(1, settings(3));
        world.start(0);
        let request = InitRequest { write_quorum: write, read_quorum: read, ..InitRequest::default() };
        assert_eq!(world.running(0).unwrap().client.init(request).await.failed, None);
        let ring = world.ring().unwrap();
        let made = ring.keyspace("default").unwrap();
        assert_eq!((made.write_quorum, made.read_quorum), both, "{write} and {read}");
    }
}

/// A write that was acknowledged by one node of the one there is would be on one copy, and stay there.
#[tokio::test(start_paused = true)]
async fn the_first_write_waits_for_as_many_nodes_as_there_are_to_be_copies() {
    let world = World::new(1, settings(3));
    world.start(0);
    let client = world.running(0).unwrap().client;
    assert_eq!(client.init(InitRequest::default()).await.failed, None);
    let hasty = CreateKeyspaceRequest {
        name: "hasty".to_owned(),
        under_replicated: true,
        ..CreateKeyspaceRequest::default()
    };
    assert_eq!(client.create_keyspace(hasty).await.failed, None);
    for (keyspace, says) in [
        (
            "default",
            "keyspace default takes its first write once there are nodes for 3 copies, and there is 1",
        ),
        (
            "hasty",
            "keyspace hasty takes its first write once there are nodes for 2 of its 3 copies, and there is 1",
        ),
    ] {
        let why = refused(&world, keyspace).await;
        assert_eq!(why.reason(), Reason::Unavailable);
        assert!(why.message.starts_with(says), "{}", why.message);
    }
    let members = |count| {
        let world = Arc::clone(&world);
        move || world.ring().is_some_and(|ring| ring.nodes().len() == count)
    };
    world.start(1);
    within(PATIENCE, members(2)).await.unwrap();
    assert!(refused(&world, "default").await.message.contains("there are 2 nodes"));
    let put = PutRequest { keyspace: "hasty".to_owned(), key: "k".into(), ..PutRequest::default() };
    let made = client.batch(vec![Call { call: Some(call::Call::Put(put)) }]).await.pop().unwrap();
    assert!(
        matches!(&made.answer, Some(answer::Answer::Write(reply))
            if matches!(reply.outcome, Some(Outcome::Committed(_)))),
        "{made:?}"
    );
    world.start(2);
    within(PATIENCE, members(3)).await.unwrap();
    let clients = Clients::new(Arc::clone(&world), Level::Quorum);
    within(PATIENCE, || agree(&world)).await.unwrap();
    let told = clients.perform(1, 0, 1, Ask::Put(1), LIMIT).await;
    assert!(matches!(told, Told::Committed(_)), "{told:?}");
    let held: usize = (0..3).map(|at| stored(&world, at, KeyspaceId(1))).sum();
    assert!(held >= 2, "{held} copies");
}

/// Who is cut off finds a keyspace that was deleted under its name, as long as a quorum of its replicas is
/// (NAME-HEARD).
#[tokio::test(start_paused = true)]
async fn nothing_that_is_written_under_a_name_is_lost_with_a_keyspace_that_had_it_before() {
    let clients = cluster(1, 6).await.unwrap();
    let world = Arc::clone(&clients.world);
    let first = make(&clients).await;
    let all = Arc::clone(&world);
    within(PATIENCE, || agree(&all)).await.unwrap();
    let key = SET;
    assert!(matches!(put(&clients, key).await, Told::Committed(_)));
    let replicas = {
        let ring = world.running(0).unwrap().node.current_ring().get().unwrap();
        let at = Position::of_key(first, Partitioner::Ordered, place(key).1.as_ref()).unwrap();
        ring.arc_at(&at).unwrap().replicas.clone()
    };
    let number = |at: usize| world.running(at).unwrap().node.member().unwrap().number;
    let cut: Vec<usize> = (0..6).filter(|at| replicas[..2].contains(&number(*at))).collect();
    let rest: Vec<usize> = (0..6).filter(|at| !cut.contains(at)).collect();
    for (one, other) in cut.iter().flat_map(|cut| rest.iter().map(move |rest| (*cut, *rest))) {
        let (one, other) = (world.address(one), world.address(other));
        world.network.cut(&one, &other);
        world.network.cut(&other, &one);
    }
    let client = world.running(rest[0]).unwrap().client;
    let request = DeleteKeyspaceRequest { name: ORDERED.to_owned(), id: first.0 };
    assert_eq!(client.delete_keyspace(request).await.failed, None);
    let request = || CreateKeyspaceRequest {
        name: ORDERED.to_owned(),
        partitioner: Partitioner::Ordered.into(),
        ..CreateKeyspaceRequest::default()
    };
    // The old one lives on where it was cut off: what is written there by its name is found by its name.
    let refused = client.create_keyspace(request()).await;
    let told = clients.perform(1, cut[0], key, Ask::Put(2), PATIENCE).await;
    if matches!(told, Told::Committed(_)) {
        for at in (0..6).filter(|at| refused.failed.is_none() || cut.contains(at)) {
            let told = clients.perform(1, at, key, Ask::Get, LIMIT).await;
            assert!(matches!(told, Told::Found(..)), "node {at}: {told:?}");
        }
    }
    let refused = refused.failed.expect("two of three replicas answer for the old one still");
    assert_eq!(refused.reason(), Reason::Unavailable, "{}", refused.message);
    let mut names = [replicas[0].0, replicas[1].0];
    names.sort_unstable();
    let says = format!("nodes {}, {} held it and are not known to have heard of that", names[0], names[1]);
    assert!(refused.message.contains(&says), "{}", refused.message);

    world.network.heal();
    sleep(Duration::from_secs(10)).await;
    let made = client.create_keyspace(request()).await;
    assert_eq!(made.failed, None);
    sleep(Duration::from_secs(1)).await;
    for at in 0..6 {
        let told = clients.perform(1, at, key, Ask::Get, LIMIT).await;
        assert!(matches!(told, Told::Missing(None)), "node {at}: {told:?}");
    }
}

/// Nodes that are cut off may know a ring in which a keyspace holds nothing and is theirs, while it is dealt out anew
/// and written to without them (EMPTY-CONFIRMED).
#[tokio::test(start_paused = true)]
async fn who_is_cut_off_does_not_say_that_a_keyspace_holds_nothing() {
    let clients = cluster(1, 6).await.unwrap();
    let world = Arc::clone(&clients.world);
    make(&clients).await;
    let all = Arc::clone(&world);
    within(PATIENCE, || agree(&all)).await.unwrap();
    let key = SET;
    let replicas = || {
        let ring = world.running(0).unwrap().node.current_ring().get().unwrap();
        let keyspace = KeyspaceId(ring.keyspace(ORDERED).unwrap().id);
        let at = Position::of_key(keyspace, Partitioner::Ordered, place(key).1.as_ref()).unwrap();
        ring.arc_at(&at).unwrap().replicas.clone()
    };
    let number = |at: usize| world.running(at).unwrap().node.member().unwrap().number;
    let read = async |at: usize| clients.perform(1, at, key, Ask::Get, LIMIT).await;

    // Two replicas of the key, a quorum, are cut off from the others, and are to go.
    let cut: Vec<usize> = (0..6).filter(|at| replicas()[..2].contains(&number(*at))).collect();
    let rest: Vec<usize> = (0..6).filter(|at| !cut.contains(at)).collect();
    assert!(matches!(read(cut[0]).await, Told::Missing(None)), "nothing is there, and all voters say so");
    let is_cut = |is: bool| {
        for (one, other) in cut.iter().flat_map(|cut| rest.iter().map(move |rest| (*cut, *rest))) {
            let (one, other) = (world.address(one), world.address(other));
            match is {
                true => (world.network.cut(&one, &other), world.network.cut(&other, &one)),
                false => (world.network.heal(), ()),
            };
        }
    };
    is_cut(true);
    let client = world.running(rest[0]).unwrap().client;
    for (id, node) in [("first", number(cut[0])), ("second", number(cut[1]))] {
        let wish = Wish { wish: Some(wish::Wish::Leave(LeaveWish { node: node.0, lost: false })) };
        let request = BeginOperationRequest { id: id.to_owned(), wish: Some(wish) };
        assert_eq!(client.begin_operation(request).await.failed, None);
    }
    let known = Arc::clone(&world);
    let leaver = number(cut[0]);
    let is_dealt = || {
        let ring = known.running(rest[0]).and_then(|running| running.node.current_ring().get());
        ring.and_then(|ring| Some(ring.node(leaver)?.state() == MemberState::Leaving)).unwrap_or_default()
    };
    within(PATIENCE, is_dealt).await.unwrap();
    let told = clients.perform(1, rest[0], key, Ask::Put(1), PATIENCE).await;
    assert!(matches!(told, Told::Committed(_)), "{told:?}");
    for at in &cut {
        let told = read(*at).await;
        assert!(!matches!(told, Told::Missing(_)), "node {at} was cut off, and says that it is not there");
    }
    is_cut(false);
    sleep(Duration::from_secs(10)).await;
    for at in 0..6 {
        let told = read(at).await;
        assert!(matches!(told, Told::Found(..)), "node {at}: {told:?}");
    }
}
