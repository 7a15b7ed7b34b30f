use super::net::{CLUSTER, document, uuid_of};
use crate::{
    membership::{AsGiven, JoinError, Joining, find_cluster, introduce},
    peer::{Call, CallError, Target, Transport, failure},
    seam::Entropy,
};
use futures::{FutureExt, future::BoxFuture};
use god_proto::{
    ids::NodeId,
    peer::{Cause, Join, RingDone, request, response},
    v1::RingDocument,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use uuid::Uuid;

type Answer = Result<response::Body, CallError>;

/// Gives one answer after another, the last one for ever.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Target>>,
}

impl Transport for Script {
    fn call(&self, to: Target, call: Call) -> BoxFuture<'static, Answer> {
        assert!(matches!(call.body, request::Body::Join(_)));
        self.asked.lock().push(to);
        let mut answers = self.answers.lock();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        futures::future::ready(answer.unwrap()).boxed()
    }

    fn tell(&self, _to: Target, _epoch: u64, _body: request::Body) {}
}

fn joining(answers: Vec<Answer>, cluster: Option<Uuid>) -> (Joining, Arc<Script>) {
    let script = Arc::new(Script { answers: Mutex::new(answers.into()), asked: Mutex::default() });
    let joining = Joining {
        own: Join {
            uuid: uuid_of(2).as_bytes().to_vec().into(),
            peer_address: "me:1".to_owned(),
            cluster: cluster.map_or_else(Vec::new, |cluster| cluster.as_bytes().to_vec()).into(),
            ..Join::default()
        },
        seeds: ["me:1", "a:1", "b:1"].map(str::to_owned).to_vec(),
        resolver: Arc::new(AsGiven),
        transport: Arc::clone(&script) as Arc<dyn Transport>,
        entropy: Arc::new(Entropy::seeded(1)),
    };
    (joining, script)
}

async fn join(answers: Vec<Answer>, cluster: Option<Uuid>) -> (Result<NodeId, JoinError>, Vec<Target>) {
    let (joining, script) = joining(answers, cluster);
    let joined = find_cluster(&joining, &["known:1".to_owned()]).await;
    let asked = script.asked.lock().clone();
    (joined.map(|joined| joined.number), asked)
}

fn ring(document: RingDocument) -> Answer {
    Ok(response::Body::Ring(RingDone { ring: Some(document) }))
}

fn refused(cause: Cause) -> Answer {
    Err(CallError::Refused(failure(cause, "it says why")))
}

#[tokio::test(start_paused = true)]
async fn a_node_asks_on_until_a_seed_has_a_cluster() {
    let mut answers: Vec<Answer> = (0..20).map(|_| refused(Cause::NotMember)).collect();
    answers.extend([Err(CallError::TimedOut), ring(document(1, 1)), ring(RingDocument::default())]);
    answers.push(ring(document(2, 2)));
    let (joined, asked) = join(answers, None).await;
    assert_eq!(joined, Ok(NodeId(2)));
    assert_eq!(asked.len(), 24);
    let addresses = ["known:1", "a:1", "b:1"].map(|at| Target::Address(at.to_owned()));
    assert_eq!(asked[..3], addresses);
    assert_eq!(asked[3..6], addresses);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_cluster_is_refused_for_good() {
    let own = Uuid::from_u128(5);
    let (joined, asked) = join(vec![ring(document(1, 2))], Some(own)).await;
    let error = joined.unwrap_err();
    assert!(matches!(&error, JoinError::Foreign { theirs: CLUSTER, .. }), "{error}");
    assert!(error.to_string().contains("another data directory"), "{error}");
    assert_eq!(asked.len(), 1);
    assert_eq!(join(vec![ring(document(1, 2))], Some(CLUSTER)).await.0, Ok(NodeId(2)));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_left_for_good_is_told_so() {
    let mut left = document(3, 1);
    left.retired.push(uuid_of(2).as_bytes().to_vec().into());
    let (joined, _) = join(vec![ring(left)], None).await;
    assert!(matches!(joined, Err(JoinError::Retired { .. })), "{joined:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_by_the_cluster_is_passed_on_in_its_words() {
    let (joined, _) = join(vec![refused(Cause::Invalid)], None).await;
    assert!(joined.unwrap_err().to_string().contains("it says why"));
}

fn known(node: u32) -> bytes::Bytes {
    uuid_of(node).as_bytes().to_vec().into()
}

/// What comes of introducing a node to as many others as there are answers.
async fn introduced(answers: Vec<Answer>) -> (Result<NodeId, JoinError>, usize) {
    let others: Vec<String> = (0..answers.len()).map(|at| format!("known-{at}:1")).collect();
    let (mut joining, script) = joining(answers, None);
    joining.seeds.clear();
    let first = find_cluster(&joining, &others).await;
    let homes: Vec<_> = (100..).map(known).zip(others).collect();
    let joined = introduce(&joining, &homes, first).await;
    let asked = script.asked.lock().len();
    (joined.map(|joined| joined.number), asked)
}

#[tokio::test(start_paused = true)]
async fn a_node_goes_on_where_most_take_it_for_itself_and_ends_where_not() {
    // The ring has the other node where it is asked anyway.
    let takes = || {
        let mut known = document(1, 2);
        known.nodes[0].peer_address = "known-0:1".to_owned();
        ring(known)
    };
    let refuses = || refused(Cause::NotTheNode);
    let silent = || Err(CallError::TimedOut);
    assert_eq!(introduced(vec![takes(), takes(), takes()]).await, (Ok(NodeId(2)), 3), "each is asked once");
    assert_eq!(introduced(vec![takes(), refuses(), takes()]).await.0, Ok(NodeId(2)));
    assert_eq!(introduced(vec![refuses(), takes(), takes()]).await.0, Ok(NodeId(2)));
    for (answers, most) in [
        (vec![refuses()], true),
        (vec![takes(), refuses()], false),
        (vec![refuses(), takes()], false),
        (vec![refuses(), silent(), silent()], true),
        (vec![takes(), refuses(), silent(), refuses(), takes()], false),
        (vec![takes(), refuses(), silent(), refuses(), silent()], true),
    ] {
        let said = format!("{answers:?}");
        let (joined, asked) = introduced(answers.clone()).await;
        let Err(JoinError::NotTheNode { by_most, .. }) = joined else { panic!("{joined:?} after {said}") };
        assert_eq!((by_most, asked), (most, answers.len()), "after {said}");
    }
    // Another cluster's node at the address of one of this says nothing.
    let foreign = || refused(Cause::Invalid);
    assert_eq!(introduced(vec![takes(), takes(), foreign()]).await.0, Ok(NodeId(2)));
    assert_eq!(introduced(vec![foreign(), silent(), takes()]).await.0, Ok(NodeId(2)));
    let (joined, _) = introduced(vec![foreign(), silent()]).await;
    assert!(matches!(joined, Err(JoinError::Refused { .. })), "{joined:?}");
}

/// Answers by address: the others after their time. Nobody is there where none is given.
struct Places(BTreeMap<&'static str, Answer>);

impl Transport for Places {
    fn call(&self, to: Target, call: Call) -> BoxFuture<'static, Answer> {
        let Target::Address(address) = to else { panic!("{to:?}") };
        let answer = self.0.get(&address[..]).cloned();
        async move {
            match answer {
                Some(answer) => answer,
                None => {
                    tokio::time::sleep(call.timeout).await;
                    Err(CallError::TimedOut)
                }
            }
        }
        .boxed()
    }

    fn tell(&self, _to: Target, _epoch: u64, _body: request::Body) {}
}

#[tokio::test(start_paused = true)]
async fn where_all_nodes_moved_no_seed_decides_alone_and_none_that_is_gone_is_waited_for_in_turn() {
    let old: Vec<_> = (0..8).map(|at| (known(at), format!("gone-{at}:1"))).collect();
    for refusals in 0..=2 {
        let said = |at: usize| if at < refusals { refused(Cause::NotTheNode) } else { ring(document(1, 4)) };
        // The seed is node 4; the ring that it gives has all others where they are now.
        let places = [("node1:1", said(0)), ("node3:1", said(1)), ("node4:1", ring(document(1, 4)))];
        let (mut joining, _) = joining(vec![], None);
        joining.seeds = vec!["node4:1".to_owned()];
        joining.transport = Arc::new(Places(places.into()));
        let first = find_cluster(&joining, &[]).await;
        let begun = tokio::time::Instant::now();
        let joined = introduce(&joining, &old, first).await.map(|joined| joined.number);
        assert!(begun.elapsed() < std::time::Duration::from_secs(11), "one after the other");
        match (refusals, joined) {
            (0 | 1, Ok(NodeId(2))) | (2, Err(JoinError::NotTheNode { by_most: true, .. })) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_moved_and_answers_at_both_addresses_has_one_voice() {
    let takes = || ring(document(1, 4));
    let places = [
        ("node1:1", takes()),
        ("node3:1", refused(Cause::NotTheNode)),
        ("before:1", refused(Cause::NotTheNode)),
        ("node4:1", takes()),
    ];
    let (mut joining, _) = joining(vec![], None);
    joining.seeds = vec!["node4:1".to_owned()];
    joining.transport = Arc::new(Places(places.into()));
    let first = find_cluster(&joining, &[]).await;
    let known = [(known(1), "node1:1".to_owned()), (known(3), "before:1".to_owned())];
    let joined = introduce(&joining, &known, first).await.map(|joined| joined.number);
    assert_eq!(joined, Ok(NodeId(2)), "two take it for the node, and one does not");
}
