//! Who is a node of the ring, and what all others may ask.

use super::*;
use god_rules::starts::Source;
use std::net::IpAddr;

/// What a stream's requests are answered with: whether each one was refused for who asked.
async fn refused(
    greeted: &mut (mpsc::Sender<Frame>, tonic::Streaming<Frame>),
    bodies: Vec<request::Body>,
) -> Vec<bool> {
    let (frames, incoming) = greeted;
    let number = |(id, body)| Request { id, timeout_ms: 20_000, body: Some(body), ..Request::default() };
    let requests: Vec<Request> = (1..).zip(bodies).map(number).collect();
    let mut refused = vec![false; requests.len()];
    let mut missing = requests.len();
    frames.send(Frame { requests, ..Frame::default() }).await.unwrap();
    while missing > 0 {
        for Response { id, body } in incoming.message().await.unwrap().unwrap().responses {
            missing -= 1;
            refused[id as usize - 1] = matches!(
                body,
                Some(response::Body::Failure(failure)) if failure.cause() == Cause::NotMember
            );
        }
    }
    refused
}

/// MEMBERS-ONLY.
#[tokio::test]
async fn who_is_not_in_the_ring_may_only_ask_for_it_and_to_be_taken_in() {
    let node = node(1).await;
    let asked = || {
        let decided = Decided { ring: Some(known().document().clone()) };
        vec![ping(1).body, write(1).body, request::Body::Decided(decided), get_ring().body]
    };
    // In no cluster; of the cluster, by a number that nobody has; of the cluster, without a number.
    for (number, cluster) in [(2, 0), (77, 1), (0, 1)] {
        let hello = Some(hello_of(number, 2, cluster));
        let mut greeted = greet(&node.address, Frame { hello, ..Frame::default() }).await.unwrap();
        assert_eq!(refused(&mut greeted, asked()).await, [true, true, true, false], "{number} of {cluster}");
    }
    assert_eq!(node.echo.from.lock()[..], [None; 3]);
    let hello = Some(hello_of(2, 2, 1));
    let mut member = greet(&node.address, Frame { hello, ..Frame::default() }).await.unwrap();
    let bodies = vec![ping(1).body, write(1).body];
    assert_eq!(refused(&mut member, bodies).await, [false, false]);
}

#[tokio::test]
async fn a_number_counts_with_the_uuid_that_the_ring_has_for_it() {
    let node = node(1).await;
    let hello = Some(hello_of(2, 3, 1));
    let status = greet(&node.address, Frame { hello, ..Frame::default() }).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    assert!(status.message().contains("says that it is node 2"), "{status:?}");
}

#[tokio::test]
async fn who_is_taken_in_may_go_on_by_the_same_stream() {
    let identity = identity(1, &[ring(1, 1, &[(1, String::new())])]);
    let node = node_with(Arc::clone(&identity), PeerSettings::default(), "127.0.0.1:0").await;
    let hello = Some(hello_of(2, 2, 1));
    let mut greeted = greet(&node.address, Frame { hello, ..Frame::default() }).await.unwrap();
    assert_eq!(refused(&mut greeted, vec![ping(1).body]).await, [true]);
    identity.ring().advance(ring(1, 2, &[(1, String::new()), (2, String::new())]));
    assert_eq!(refused(&mut greeted, vec![ping(1).body]).await, [false]);
    assert_eq!(node.echo.from.lock()[..], [Some(NodeId(2))]);
}

#[tokio::test]
async fn there_are_connections_to_nodes_of_the_ring_only() {
    let transport = transport(PeerSettings::default(), identity(2, &[known()]));
    for number in 10..2_000 {
        transport.learn(NodeId(number), "127.0.0.1:1".to_owned());
        let called = transport.call(Target::Node(NodeId(number)), ping(1)).await;
        assert!(matches!(called, Err(CallError::NotSent(_))), "{called:?}");
        transport.tell(Target::Node(NodeId(number)), 0, ping(1).body);
    }
    assert_eq!(transport.peers(), 0);
}

/// ONE-START.
#[tokio::test]
async fn who_says_nothing_of_its_start_is_no_member_once_that_is_known() {
    let node = node(1).await;
    let greeting = |start| Frame { hello: Some(Hello { start, ..hello_of(2, 2, 1) }), ..Frame::default() };
    let mut untold = greet(&node.address, greeting(None)).await.unwrap();
    assert_eq!(refused(&mut untold, vec![ping(1).body]).await, [false], "no start of it is known");
    let start = god_proto::peer::Start { count: 3, id: vec![3; 16].into(), before: vec![2; 16].into() };
    let mut told = greet(&node.address, greeting(Some(start.clone()))).await.unwrap();
    assert_eq!(refused(&mut told, vec![ping(1).body]).await, [false]);
    // Who said nothing is judged anew; so is who says it so that it cannot be read.
    let nil = god_proto::peer::Start { id: vec![0; 16].into(), ..start };
    let mut malformed = greet(&node.address, greeting(Some(nil))).await.unwrap();
    for other in [&mut untold, &mut malformed] {
        assert_eq!(
            refused(other, vec![ping(1).body, write(1).body, get_ring().body]).await,
            [true, true, false]
        );
    }
    assert_eq!(refused(&mut told, vec![ping(1).body]).await, [false]);
}

/// ONE-START.
#[tokio::test]
async fn where_a_start_is_heard_of_is_noted_whether_a_hello_tells_it_or_who_wants_to_be_taken_in() {
    let identity = identity(1, &[known()]);
    let node = node_with(Arc::clone(&identity), PeerSettings::default(), "127.0.0.1:0").await;
    let start =
        |id: u8| god_proto::peer::Start { count: 3, id: vec![id; 16].into(), before: vec![2; 16].into() };
    let hello = Some(Hello { start: Some(start(3)), ..hello_of(2, 2, 1) });
    let mut greeted = greet(&node.address, Frame { hello, ..Frame::default() }).await.unwrap();
    let join = god_proto::peer::Join { start: Some(start(4)), ..god_proto::peer::Join::default() };
    let request =
        Request { id: 7, timeout_ms: 1, body: Some(request::Body::Join(join)), ..Request::default() };
    greeted.0.send(Frame { requests: vec![request], ..Frame::default() }).await.unwrap();
    // What is answered was begun after that.
    assert_eq!(refused(&mut greeted, vec![get_ring().body]).await, [false]);
    let here = Source::from(IpAddr::from([127, 0, 0, 1]));
    for id in [3, 4] {
        assert_eq!(identity.starts().source(&heard(Some(&start(id)))), here);
    }
    assert_eq!(identity.starts().source(&heard(Some(&start(5)))), Source::Untold);
}
