//! A replica over a store in memory.
#![allow(clippy::unwrap_used)]

mod reads;

use super::*;
use crate::{
    budget::Budget,
    engine::{Batch, Engine as _, Pressure, SimulatedDisk, Table},
    radix::{CommitterSettings, Limits, StoreSettings},
    seam::Wall,
};
use god_proto::{
    MAX_VALUE,
    ids::KeyspaceId,
    record::Record,
    ring::{RING_FORMAT, Ring},
    v1::{Arc as ArcMessage, Keyspace, Member, Partitioner, RingDocument},
};
use std::time::Duration;

const NOW_MS: u64 = 1_700_000_000_000;

struct StoppedWall;

impl Wall for StoppedWall {
    fn now_us(&self) -> u64 {
        NOW_MS * 1_000
    }
}

/// Node 1 holds keyspace 1 up to hash 2^63, node 2 the rest. Keyspace 2 is not live.
fn ring() -> Ring {
    let member = |number: u32| Member {
        number,
        uuid: vec![number as u8; 16].into(),
        weight: 1.0,
        ..Member::default()
    };
    let keyspace = |id: u32, live| Keyspace {
        id,
        name: format!("keyspace-{id}"),
        replicas: 1,
        write_quorum: 1,
        read_quorum: 1,
        live,
        ..Keyspace::default()
    };
    let arc = |id: u64, start: Position, node: u32| ArcMessage {
        id,
        start: start.into_bytes(),
        replicas: vec![node],
        transition: None,
        // The first one stood still since epoch 2.
        changed: if id == 1 { 2 } else { 4 },
    };
    let (one, two) = (KeyspaceId(1), KeyspaceId(2));
    let arcs = vec![
        arc(1, Position::keyspace_start(one), 1),
        arc(2, Position::of_hash(one, 1 << 63), 2),
        arc(3, Position::keyspace_start(two), 1),
    ];
    Ring::new(RingDocument {
        format: RING_FORMAT,
        cluster: vec![9; 16].into(),
        epoch: 4,
        voters: vec![1],
        keyspaces: vec![keyspace(1, true), keyspace(2, false)],
        nodes: vec![member(1), member(2)],
        arcs,
        next_node: 3,
        next_keyspace: 3,
        next_arc: 4,
        virtual_nodes: 1,
        ..RingDocument::default()
    })
    .unwrap()
}

fn replica() -> (Replica, SimulatedDisk) {
    let (replica, disk, _) = replica_with_lapse();
    (replica, disk)
}

/// And the disk on which it notes what is lapsed.
fn replica_with_lapse() -> (Replica, SimulatedDisk, SimulatedDisk) {
    let disk = SimulatedDisk::new();
    let settings = StoreSettings {
        committer: CommitterSettings::default(),
        offload: Offload::Inline,
        threaded: false,
        // So that each write meets what is stored.
        limits: Limits { remembered: 1, ..Limits::default() },
    };
    let store = Arc::new(Store::open(disk.open(), [9; 16], settings).unwrap());
    let clock = Clock::open(SimulatedDisk::new().open(), Arc::new(StoppedWall), Offload::Inline).unwrap();
    clock.set_node(NodeId(1));
    let current = CurrentRing::default();
    current.advance(Arc::new(ring()));
    let floors = Arc::new(Floors::open(Arc::clone(store.engine()), Offload::Inline).unwrap());
    let notes = SimulatedDisk::new();
    let lapse = Lapse::open(notes.open(), Offload::Inline, None, true).unwrap();
    let (clock, lapse) = (Arc::new(clock), Arc::new(lapse));
    (Replica::new(NodeId(1), store, current, clock, floors, lapse, Offload::Inline), disk, notes)
}

/// The place of a key of keyspace 1 that node 1 holds, or does not.
fn place(held: bool, number: usize) -> Position {
    let mut places = (0..).filter_map(|at: u32| {
        let position = Position::of_key(KeyspaceId(1), Partitioner::Hashed, &at.to_be_bytes()).unwrap();
        ((position < Position::of_hash(KeyspaceId(1), 1 << 63)) == held).then_some(position)
    });
    places.nth(number).unwrap()
}

fn entry(position: Position, ms: u64, value: &[u8]) -> peer::Entry {
    let record = Record::value(Version::new(ms, 0, NodeId(2)), value.to_vec());
    Entry { position, record }.into()
}

async fn ask_about(
    replica: &Replica,
    (epoch, arcs): (u64, u64),
    body: request::Body,
) -> Result<response::Body, Failure> {
    replica.handle(Call { epoch, arcs, timeout: Duration::from_secs(1), body }).await
}

async fn ask(replica: &Replica, epoch: u64, body: request::Body) -> Result<response::Body, Failure> {
    ask_about(replica, (epoch, 0), body).await
}

async fn write(replica: &Replica, entries: Vec<peer::Entry>) -> Result<Vec<peer::Verdict>, Failure> {
    match ask(replica, 4, request::Body::Write(peer::Write { entries })).await? {
        response::Body::Write(done) => Ok(done.verdicts),
        other => panic!("{other:?}"),
    }
}

fn range(start: Position, end: Position) -> peer::Range {
    peer::Range { start: start.into_bytes(), end: end.into_bytes() }
}

/// What node 1 holds of keyspace 1.
fn mine() -> peer::Range {
    range(Position::keyspace_start(KeyspaceId(1)), Position::of_hash(KeyspaceId(1), 1 << 63))
}

#[tokio::test]
async fn a_question_under_another_epoch_is_refused_with_the_replicas_own() {
    let (replica, _) = replica();
    for epoch in [0, 3, 5] {
        let read = request::Body::Read(peer::Read {
            positions: vec![place(true, 0).into_bytes()],
            largest_bytes: 0,
        });
        let failure = ask(&replica, epoch, read).await.unwrap_err();
        assert_eq!((failure.cause(), failure.epoch), (Cause::StaleEpoch, 4));
    }
}

#[tokio::test]
async fn a_question_under_another_epoch_is_answered_where_both_rings_have_the_same_arc() {
    let (replica, _) = replica();
    let read =
        || request::Body::Read(peer::Read { positions: vec![place(true, 0).into_bytes()], largest_bytes: 0 });
    let written = || request::Body::Write(peer::Write { entries: vec![entry(place(true, 1), NOW_MS, b"v")] });
    let scan = |as_stored| peer::Scan { range: Some(mine()), limit: 10, as_stored, ..peer::Scan::default() };
    for under in [(3, 2), (3, 3), (5, 2), (5, 4), (4, 4), (4, 9)] {
        for body in [read(), written(), request::Body::Scan(scan(false))] {
            ask_about(&replica, under, body).await.unwrap_or_else(|failure| panic!("{under:?}: {failure:?}"));
        }
    }
    let stale = |asked: Result<response::Body, Failure>| {
        let failure = asked.unwrap_err();
        assert_eq!((failure.cause(), failure.epoch), (Cause::StaleEpoch, 4));
    };
    // By the caller's ring it changed later, or by this one's, or the caller asks by the whole ring.
    for under in [(5, 5), (1, 1), (3, 4), (3, 0), (5, 0), (0, 2)] {
        for body in [read(), written(), request::Body::Scan(scan(false))] {
            stale(ask_about(&replica, under, body).await);
        }
    }
    // What is said of all that is stored, or of all that was admitted, is said of the whole ring.
    stale(ask_about(&replica, (3, 2), request::Body::Scan(scan(true))).await);
    stale(ask_about(&replica, (3, 2), request::Body::Fence(peer::Fence {})).await);
    let floor = peer::Floor { range: Some(mine()), ..peer::Floor::default() };
    stale(ask_about(&replica, (3, 2), request::Body::Floor(floor)).await);
    // Where this node's ring has nothing, or what changed since, the other's may have something.
    let nowhere = Position::keyspace_start(KeyspaceId(9));
    let read = |at: &Position| {
        request::Body::Read(peer::Read { positions: vec![at.clone().into_bytes()], largest_bytes: 0 })
    };
    stale(ask_about(&replica, (5, 2), read(&nowhere)).await);
    stale(ask_about(&replica, (3, 2), read(&place(false, 0))).await);
    let beyond = range(Position::keyspace_start(KeyspaceId(1)), nowhere);
    stale(
        ask_about(
            &replica,
            (5, 2),
            request::Body::Split(peer::Split { range: Some(beyond), as_stored: false }),
        )
        .await,
    );
    let both = vec![entry(place(true, 2), NOW_MS, b"v"), entry(place(false, 0), NOW_MS, b"v")];
    stale(ask_about(&replica, (3, 2), request::Body::Write(peer::Write { entries: both })).await);
    let response::Body::Read(done) = ask(&replica, 4, read(&place(true, 2))).await.unwrap() else { panic!() };
    assert_eq!(done.entries, [peer::Entry::default()], "nothing of what was refused is written");
}

#[tokio::test]
async fn what_changed_hands_while_it_was_read_is_not_told() {
    let (replica, _) = replica();
    write(&replica, vec![entry(place(true, 0), NOW_MS, b"v")]).await.unwrap();
    let touch = replica.touch(4, 0).unwrap();
    let (alike, gone) = {
        let mut document = ring().document().clone();
        document.epoch = 5;
        let alike = Ring::new(document.clone()).unwrap();
        document.epoch = 6;
        document.arcs[0].replicas = vec![2];
        document.arcs[0].changed = 6;
        (alike, Ring::new(document).unwrap())
    };
    let read = || {
        let positions = (0..3).map(|at| place(true, at).into_bytes()).collect();
        peer::Read { positions, largest_bytes: 0 }
    };
    let scan = || peer::Scan { range: Some(mine()), limit: 9, ..peer::Scan::default() };
    let sum = || peer::Summarize { ranges: vec![mine()], ..peer::Summarize::default() };
    // Another ring that has the same of it, and was asked about by arcs, does not matter.
    let by_arcs = replica.touch(4, 2).unwrap();
    replica.ring.advance(Arc::new(alike));
    replica.read(&by_arcs, read()).await.unwrap();
    let calls = replica.loads().calls();
    replica.scan(&by_arcs, scan()).await.unwrap();
    replica.scan(&by_arcs, peer::Scan { background: true, ..scan() }).await.unwrap();
    replica.scan(&by_arcs, peer::Scan { compares: true, ..scan() }).await.unwrap();
    assert_eq!(replica.loads().calls(), calls + 1, "no client waits for what is compared");
    replica.summarize(&by_arcs, sum()).await.unwrap();
    // The arc is another node's; what was here may have been dropped before it was read.
    replica.ring.advance(Arc::new(gone));
    for touch in [touch, by_arcs] {
        let said = [
            replica.read(&touch, read()).await,
            replica.scan(&touch, scan()).await,
            replica.summarize(&touch, sum()).await,
        ];
        for said in said {
            assert_eq!(said.unwrap_err().cause(), Cause::StaleEpoch);
        }
    }
}

#[tokio::test]
async fn what_the_node_does_not_hold_is_refused_and_nothing_of_it_is_written() {
    let (replica, _) = replica();
    let entries = vec![entry(place(true, 0), NOW_MS, b"v"), entry(place(false, 0), NOW_MS, b"v")];
    assert_eq!(write(&replica, entries).await.unwrap_err().cause(), Cause::NotReplica);
    let read = |held| {
        request::Body::Read(peer::Read { positions: vec![place(held, 0).into_bytes()], largest_bytes: 0 })
    };
    assert_eq!(ask(&replica, 4, read(false)).await.unwrap_err().cause(), Cause::NotReplica);
    let response::Body::Read(done) = ask(&replica, 4, read(true)).await.unwrap() else { panic!() };
    assert_eq!(done.entries, [peer::Entry::default()]);
    let whole = range(Position::keyspace_start(KeyspaceId(1)), Position::keyspace_start(KeyspaceId(2)));
    for over in [whole, range(Position::default(), place(true, 0)), range(place(true, 0), place(true, 0))] {
        let split = request::Body::Split(peer::Split { range: Some(over), as_stored: false });
        assert!(ask(&replica, 4, split).await.is_err());
    }
}

#[tokio::test]
async fn entries_that_may_not_be_written_are_refused_by_the_rule_they_break() {
    let (replica, _) = replica();
    let asleep = Position::of_key(KeyspaceId(2), Partitioner::Hashed, b"k").unwrap();
    let failure = write(&replica, vec![entry(asleep, NOW_MS, b"v")]).await.unwrap_err();
    assert!(failure.message.contains("not open for writes"), "{}", failure.message);
    let failure = write(&replica, vec![entry(place(true, 0), NOW_MS + 900, b"v")]).await.unwrap_err();
    assert_eq!(failure.cause(), Cause::Clock);
    assert!(failure.message.contains("900 ms ahead"), "{}", failure.message);
    let mut unknown = entry(place(true, 0), NOW_MS, b"v");
    unknown.kind = 77;
    assert_eq!(write(&replica, vec![unknown]).await.unwrap_err().cause(), Cause::Invalid);
    let bare = peer::Entry { position: place(true, 0).into_bytes(), ..peer::Entry::default() };
    assert_eq!(write(&replica, vec![bare]).await.unwrap_err().cause(), Cause::Invalid);
    let large = entry(place(true, 0), NOW_MS, &vec![0; god_proto::MAX_VALUE + 1]);
    assert_eq!(write(&replica, vec![large]).await.unwrap_err().cause(), Cause::Invalid);
    assert_eq!(write(&replica, Vec::new()).await.unwrap_err().cause(), Cause::Invalid);
}

#[tokio::test]
async fn verdicts_say_what_stands_instead() {
    let (replica, _) = replica();
    let at = |ms| entry(place(true, 0), ms, b"v");
    assert_eq!(write(&replica, vec![at(NOW_MS)]).await.unwrap(), [peer::Verdict::default()]);
    assert_eq!(write(&replica, vec![at(NOW_MS)]).await.unwrap(), [peer::Verdict::default()]);
    let verdicts = write(&replica, vec![at(NOW_MS - 1)]).await.unwrap();
    assert_eq!(verdicts[0].superseded_by, Some(Version::new(NOW_MS, 0, NodeId(2)).into()));
}

/// Who writes it again must not be told that it is missing here: a compare brings nothing then.
#[tokio::test]
async fn what_stands_at_or_below_a_floor_is_not_too_old_there() {
    // As a wrong clock stamps it: it stands in nothing's way.
    const FAR: u64 = 2 * NOW_MS;
    let (replica, _) = replica();
    let (at, of) = (|number| place(true, number), |ms| Version::new(ms, 0, NodeId(2)));
    let lent = |ms| Record { expires_at_ms: Some(NOW_MS - 1), ..Record::value(of(ms), "v") };
    let end = |ms| lent(ms).ended(NOW_MS).unwrap();
    let older = NOW_MS - 9;
    let (asked, floor) = (NOW_MS - 5, of(NOW_MS - 2));
    let value = |ms| Record::value(of(ms), "v");
    // What stands, what is written, and whether it is refused; as too old, or by which version.
    let cases = [
        (Some(value(asked)), value(asked), None),
        (Some(end(asked)), end(asked), None),
        (Some(lent(asked)), end(asked), None),
        (Some(value(asked + 1)), value(asked), Some(false)),
        (Some(value(NOW_MS - 1)), value(asked), Some(false)),
        (Some(value(FAR)), value(asked), Some(true)),
        (Some(value(asked + 1)), end(asked), Some(false)),
        (Some(lent(older)), end(asked), Some(true)),
        (Some(value(older)), value(asked), Some(true)),
        (None, value(asked), Some(true)),
        (None, end(asked), Some(true)),
    ];
    for (number, (stands, written, _)) in cases.iter().enumerate() {
        let Some(stands) = stands else { continue };
        let stood = vec![Entry { position: at(number), record: stands.clone() }];
        assert_eq!(replica.take(stood, u64::MAX).await.unwrap(), [Verdict::Applied], "{written:?}");
    }
    let all = PositionRange::of_keyspace(KeyspaceId(1));
    replica.floors().raise(&all, Floor { promised: floor, repaired: Version::ZERO }).await.unwrap();
    let entries = cases.iter().enumerate();
    let entries =
        entries.map(|(number, (_, record, _))| Entry { position: at(number), record: record.clone() });
    let verdicts = write(&replica, entries.map(peer::Entry::from).collect()).await.unwrap();
    for ((stands, written, refused), verdict) in cases.iter().zip(verdicts) {
        let floored = refused.unwrap_or_default();
        let newer = stands.as_ref().map(|it| it.version).filter(|version| version.ms() < FAR);
        let superseded_by = refused.map(|_| newer.unwrap_or(floor).max(floor).into());
        let expected = peer::Verdict { superseded_by, floored, damaged: false };
        assert_eq!(verdict, expected, "{written:?} over {stands:?}");
    }
    for (number, (stands, written, refused)) in cases.into_iter().enumerate() {
        let now = if refused.is_none() { Some(written) } else { stands };
        let held = replica.versions_at(&[at(number)]).await.unwrap().remove(0);
        assert_eq!(held.ok(), Some(now.map(|it| it.version)));
    }
}

#[tokio::test]
async fn storage_that_is_behind_or_full_refuses_writes_and_says_so() {
    let (replica, disk) = replica();
    disk.set_pressure(Some(Pressure::Busy(Duration::from_millis(70))));
    let failure = write(&replica, vec![entry(place(true, 0), NOW_MS, b"v")]).await.unwrap_err();
    assert_eq!((failure.cause(), failure.retry_after_ms), (Cause::Busy, 70));
    disk.set_pressure(Some(Pressure::DiskFull("none left".to_owned())));
    let failure = write(&replica, vec![entry(place(true, 0), NOW_MS, b"v")]).await.unwrap_err();
    assert_eq!(failure.cause(), Cause::DiskFull);
    disk.set_pressure(None);
    disk.fail_writes(Some(EngineError::Failed("torn".to_owned())));
    let failure = write(&replica, vec![entry(place(true, 0), NOW_MS, b"v")]).await.unwrap_err();
    assert_eq!(failure.cause(), Cause::Storage, "its outcome is open");
}

/// BUDGET: a page is paid for while it is read, and ends where that cannot be done, with one entry at least.
#[tokio::test]
async fn a_page_holds_what_there_is_memory_for() {
    let (replica, _) = replica();
    let budget = Budget::new(1 << 20);
    let replica = replica.paid_from(budget.clone());
    let entries =
        (0..10).map(|at| entry(place(true, at), NOW_MS, "v".repeat(100 << 10).as_bytes())).collect();
    write(&replica, entries).await.unwrap();
    let scan = || {
        let scan = peer::Scan { range: Some(mine()), limit: 100, ..peer::Scan::default() };
        ask(&replica, 4, request::Body::Scan(scan))
    };
    let page = |answer| match answer {
        Ok(response::Body::Scan(done)) => (done.entries.len(), done.more),
        other => panic!("no page: {other:?}"),
    };
    // Others have taken a part, and gone beyond it; then all.
    let mut other = budget.take(700 << 10).unwrap();
    let mut beyond = budget.new_charge();
    assert!(beyond.insist(1 << 20));
    beyond.shrink(1 << 20);
    assert_eq!(page(scan().await), (3, true));
    assert!(other.grow(300 << 10));
    assert_eq!(page(scan().await), (1, true));
    drop((other, beyond));
    assert_eq!(page(scan().await), (10, false));
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn pages_end_at_their_limits_and_say_whether_there_is_more() {
    let (replica, _) = replica();
    let entries = (0..10).map(|at| entry(place(true, at), NOW_MS, &[7; 1_000])).collect();
    write(&replica, entries).await.unwrap();
    for (limit, max_bytes, keys_only, count) in [
        (4, 0, false, 4),
        (0, 0, false, 1),
        (100, 0, false, 10),
        (100, 2_500, false, 2),
        (100, 2_500, true, 10),
        (9, 1, false, 1),
    ] {
        for reverse in [false, true] {
            let scan = peer::Scan {
                range: Some(mine()),
                reverse,
                limit,
                max_bytes,
                keys_only,
                ..peer::Scan::default()
            };
            let response::Body::Scan(done) = ask(&replica, 4, request::Body::Scan(scan)).await.unwrap()
            else {
                panic!()
            };
            assert_eq!((done.entries.len(), done.more), (count, count < 10));
            assert!(done.entries.iter().all(|entry| entry.value.is_empty() == keys_only));
            assert!(done.entries.is_sorted_by(|a, b| (a.position < b.position) != reverse));
        }
    }
}

#[tokio::test]
async fn summaries_splits_and_selections_agree() {
    let (replica, _) = replica();
    let entries = (0..100).map(|at| entry(place(true, at), NOW_MS, b"v")).collect();
    write(&replica, entries).await.unwrap();
    let split = request::Body::Split(peer::Split { range: Some(mine()), as_stored: false });
    let response::Body::Split(done) = ask(&replica, 4, split).await.unwrap() else { panic!() };
    let cut = Position::from_bytes(done.position);
    let (start, end) = (Position::from_bytes(mine().start), Position::from_bytes(mine().end));
    let ranges = vec![mine(), range(start, cut.clone()), range(cut.clone(), end)];
    let ask_sums = request::Body::Summarize(peer::Summarize { ranges, ..peer::Summarize::default() });
    let response::Body::Summarize(done) = ask(&replica, 4, ask_sums).await.unwrap() else { panic!() };
    let entries: Vec<u64> = done.summaries.iter().map(|summary| summary.entries).collect();
    assert_eq!(entries, [100, 50, 50]);
    let select = request::Body::Select(peer::SelectIn { range: Some(mine()), rank: 50 });
    let response::Body::Select(done) = ask(&replica, 4, select).await.unwrap() else { panic!() };
    assert_eq!(Position::from_bytes(done.position), cut);
}

#[tokio::test]
async fn what_lapsed_while_it_was_looked_at_is_no_vote_though_it_was_compared_since() {
    let (replica, _) = replica();
    let (at, other) = (place(true, 0), place(true, 1));
    let touches = |lapsed: &Position| *lapsed == at;
    let before = replica.vote(|lapse| lapse.holds(&at)).unwrap();
    let untouched = replica.vote(|lapse| lapse.holds(&at)).unwrap();
    replica.still(untouched, touches).unwrap();
    replica.lapse().add(std::slice::from_ref(&at)).await.unwrap();
    assert_eq!(replica.vote(|lapse| lapse.holds(&at)).unwrap_err().cause(), Cause::Lapsed);
    let range = PositionRange::of_position(&at);
    replica.lapse().mend(&range, replica.lapse().additions());
    assert_eq!(replica.still(before, touches).unwrap_err().cause(), Cause::Lapsed);
    // What was looked at elsewhere is one, while it is known what lapsed.
    replica.still(before, |lapsed| *lapsed == other).unwrap();
    let many: Vec<Position> = (2..1_100).map(|number| place(true, number)).collect();
    replica.lapse().add(&many).await.unwrap();
    assert_eq!(replica.still(before, |lapsed| *lapsed == other).unwrap_err().cause(), Cause::Lapsed);
    replica.lapse().mend(&range, replica.lapse().additions());
    let after = replica.vote(|lapse| lapse.holds(&at)).unwrap();
    replica.still(after, touches).unwrap();
}

#[tokio::test]
async fn what_is_damaged_and_stays_is_said_to_peers_entry_by_entry_and_fails_everybody_else() {
    let (replica, disk, notes) = replica_with_lapse();
    let mut places: Vec<Position> = (0..3).map(|number| place(true, number)).collect();
    // What was written last is remembered, and not read.
    places.sort();
    let at = |number: usize| places[number].clone();
    write(&replica, vec![entry(at(0), NOW_MS - 9, b"old"), entry(at(1), NOW_MS - 9, b"old")]).await.unwrap();
    disk.corrupt(Table::Data, at(0).into_bytes());
    notes.fail_writes(Some(EngineError::DiskFull("none left".to_owned())));
    let entries = || vec![entry(at(0), NOW_MS, b"new"), entry(at(2), NOW_MS, b"new")];
    let verdicts = write(&replica, entries()).await.unwrap();
    assert_eq!(verdicts.iter().map(|verdict| verdict.damaged).collect::<Vec<_>>(), [true, false]);
    let taken: Vec<Entry> = entries().into_iter().map(|entry| Entry::try_from(entry).unwrap()).collect();
    assert!(replica.take(taken.clone(), u64::MAX).await.is_err(), "it is not done");
    notes.fail_writes(None);
    assert_eq!(replica.take(taken, u64::MAX).await.unwrap(), [Verdict::Applied, Verdict::Equal]);
}

#[tokio::test]
async fn the_end_of_a_damaged_record_fails_no_entry_beside_it() {
    let (replica, disk) = replica();
    let at = |number| place(true, number);
    let record = Record {
        expires_at_ms: Some(NOW_MS - 10_000),
        ..Record::value(Version::new(NOW_MS - 60_000, 0, NodeId(2)), "old")
    };
    let end = |number| Entry { position: at(number), record: record.ended(NOW_MS).unwrap() };
    for number in 0..2 {
        write(&replica, vec![Entry { position: at(number), record: record.clone() }.into()]).await.unwrap();
    }
    let floor = Floor { promised: Version::new(NOW_MS - 30_000, 0, NodeId(2)), repaired: Version::ZERO };
    let (start, end_of) = (Position::from_bytes(mine().start), Position::from_bytes(mine().end));
    replica.floors().raise(&PositionRange { start, end: end_of }, floor).await.unwrap();
    disk.corrupt(Table::Data, at(0).into_bytes());
    let entries = vec![end(0).into(), end(1).into(), entry(at(2), NOW_MS, b"v")];
    let verdicts = write(&replica, entries).await.unwrap();
    let stands = peer::Verdict::default();
    assert_eq!(verdicts, [peer::Verdict { damaged: true, ..stands }, stands, stands]);
    assert_eq!(replica.store.get(&at(1)).await.unwrap(), Some(end(1).record));
}

#[tokio::test]
async fn what_cannot_be_read_keeps_nothing_beside_it_from_being_handed_over() {
    let (replica, disk) = replica();
    let mut places: Vec<Position> = (0..5).map(|number| place(true, number)).collect();
    places.sort();
    write(&replica, places.iter().map(|at| entry(at.clone(), NOW_MS, b"v")).collect()).await.unwrap();
    disk.corrupt(Table::Data, places[2].clone().into_bytes());
    for as_stored in [true, false] {
        let scan = peer::Scan { range: Some(mine()), limit: 9, as_stored, ..peer::Scan::default() };
        let sums = peer::Summarize { ranges: vec![mine()], as_stored, ..peer::Summarize::default() };
        let page = ask(&replica, 4, request::Body::Scan(scan)).await;
        let sums = ask(&replica, 4, request::Body::Summarize(sums)).await;
        match (as_stored, page, sums) {
            (true, Ok(response::Body::Scan(page)), Ok(response::Body::Summarize(_))) => {
                let given: Vec<Position> =
                    page.entries.into_iter().map(|entry| Position::from_bytes(entry.position)).collect();
                let readable: Vec<Position> = [0, 1, 3, 4].map(|at| places[at].clone()).to_vec();
                assert_eq!((given, page.more), (readable, false));
            }
            (false, Err(page), Err(sums)) => {
                assert_eq!((page.cause(), sums.cause()), (Cause::Corrupt, Cause::Corrupt));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_damaged_beside_what_is_overwritten_lapses_too() {
    let (replica, disk) = replica();
    let mut places: Vec<Position> = (0..5).map(|number| place(true, number)).collect();
    places.sort();
    write(&replica, places.iter().map(|at| entry(at.clone(), NOW_MS - 9, b"old")).collect()).await.unwrap();
    let mut batch = Batch::default();
    for at in [&places[1], &places[3]] {
        batch.put(Table::Data, at.clone().into_bytes(), vec![77]);
    }
    disk.open().commit(batch).unwrap();
    let verdicts = write(&replica, vec![entry(places[1].clone(), NOW_MS, b"new")]).await.unwrap();
    assert_eq!(verdicts, [peer::Verdict::default()]);
    let lapsed: Vec<bool> = places.iter().map(|at| replica.lapse().holds(at)).collect();
    assert_eq!(lapsed, [false, true, false, true, false], "it counts as nothing from now on");
}

#[tokio::test]
async fn what_is_damaged_beside_what_is_dropped_lapses() {
    let (replica, disk) = replica();
    let (mine, foreign) = (place(true, 0), place(false, 0));
    let taken = [&mine, &foreign].map(|at| Entry {
        position: at.clone(),
        record: Record::value(Version::new(NOW_MS, 0, NodeId(2)), "v"),
    });
    replica.take(taken.to_vec(), u64::MAX).await.unwrap();
    let mut batch = Batch::default();
    for at in [&mine, &foreign] {
        batch.put(Table::Data, at.clone().into_bytes(), vec![77]);
    }
    disk.open().commit(batch).unwrap();
    let ring = replica.ring.get().unwrap();
    let arc = ring.arc_at(&foreign).unwrap();
    assert!(replica.drop_misplaced(&arc.range, &arc.replicas).await.unwrap());
    assert!(replica.lapse().holds(&mine) && !replica.lapse().holds(&foreign));
}
