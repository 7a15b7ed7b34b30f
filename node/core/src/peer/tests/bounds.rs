//! What one peer may hold, and hold up.

use super::*;
use crate::budget::Budget;

/// READERS-APART: what a peer asked for goes on while it does not read the answers.
#[tokio::test]
async fn a_peer_that_does_not_read_holds_nothing_up() {
    let node = node(1).await;
    node.echo.slow.store(true, Ordering::SeqCst);
    let (frames, _unread) = greet(&node.address, hello()).await.unwrap();
    let request = |id, body| Request { id, timeout_ms: 20_000, body: Some(body), ..Request::default() };
    let slow = request(1, ping(1).body);
    let large = (2..6).map(|id| request(id, request::Body::Scan(Scan::default())));
    let requests = std::iter::once(slow).chain(large).collect();
    frames.send(Frame { requests, ..Frame::default() }).await.unwrap();
    until("the slow one was begun and ended", || {
        let count = |of: &AtomicUsize| of.load(Ordering::SeqCst);
        count(&node.echo.most_at_once) == 1 && count(&node.echo.at_once) == 0
    })
    .await;
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_its_stream_and_nothing_else() {
    let node = node(1).await;
    let (frames, mut incoming) = greet(&node.address, hello()).await.unwrap();
    incoming.message().await.unwrap().unwrap();
    let entry = Entry { value: vec![1; MAX_MESSAGE].into(), ..Entry::default() };
    let body = Some(request::Body::Write(Write { entries: vec![entry] }));
    let request = Request { id: 1, timeout_ms: 1_000, body, ..Request::default() };
    frames.send(Frame { requests: vec![request], ..Frame::default() }).await.unwrap();
    let refused = incoming.message().await;
    assert!(refused.is_err(), "{refused:?}");
    let transport = transport(PeerSettings::default(), identity(2, &[known()]));
    assert_eq!(pong(transport.call(at(&node), ping(1)).await), 1);
    // The transport does not even send such a thing.
    let refused = transport.call(at(&node), write(MAX_MESSAGE)).await;
    assert!(matches!(refused, Err(CallError::NotSent(_))), "{refused:?}");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_a_failure_and_the_stream_goes_on() {
    let node = node(1).await;
    let settings = PeerSettings { connections: 1, ..PeerSettings::default() };
    let transport = transport(settings, identity(2, &[known()]));
    let call = Call { body: request::Body::Split(Split::default()), ..ping(0) };
    let open = transport.call(at(&node), never(LONG));
    let Err(CallError::Refused(failure)) = transport.call(at(&node), call).await else {
        panic!("not refused")
    };
    assert_eq!(failure.cause(), Cause::Invalid);
    assert!(open.now_or_never().is_none(), "the stream broke");
}

#[tokio::test]
async fn the_largest_values_pass_many_at_once() {
    let node = node(1).await;
    let transport = transport(PeerSettings::default(), identity(2, &[known()]));
    let large = join_all((0..6).map(|_| transport.call(at(&node), write(MAX_VALUE))));
    let small = join_all((0..100).map(|number| transport.call(at(&node), ping(number))));
    let (large, small) = futures::join!(large, small);
    assert!(large.iter().all(|answer| matches!(answer, Ok(response::Body::Write(_)))));
    assert_eq!(small.into_iter().map(pong).sum::<u64>(), 4_950);
}

#[tokio::test]
async fn no_more_requests_are_worked_on_at_once_than_is_set() {
    let settings = PeerSettings { in_flight: 8, ..PeerSettings::default() };
    let node = node_with(identity(1, &[known()]), settings, "127.0.0.1:0").await;
    node.echo.slow.store(true, Ordering::SeqCst);
    let settings = PeerSettings { connections: 1, ..PeerSettings::default() };
    let transport = transport(settings, identity(2, &[known()]));
    let answers = join_all((0..200).map(|number| transport.call(at(&node), ping(number)))).await;
    assert_eq!(answers.into_iter().map(pong).sum::<u64>(), 19_900);
    assert_eq!(node.echo.most_at_once.load(Ordering::SeqCst), 8);
}

/// BUDGET: what was read for a peer is dropped where there is no memory for it, and one answer at a time gets through.
#[tokio::test]
async fn answers_for_which_there_is_no_memory_are_refused_as_busy() {
    for limit in [32 << 20, 1 << 20] {
        let budget = Budget::new(limit);
        let settings = PeerSettings { budget: budget.clone(), ..PeerSettings::default() };
        let node = node_with(identity(1, &[known()]), settings, "127.0.0.1:0").await;
        node.echo.slow.store(true, Ordering::SeqCst);
        let settings = PeerSettings { connections: 1, ..PeerSettings::default() };
        let transport = transport(settings, identity(2, &[known()]));
        let scan = || Call { body: request::Body::Scan(Scan::default()), ..ping(0) };
        let answers = join_all((0..16).map(|_| transport.call(at(&node), scan()))).await;
        let (done, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert!(!done.is_empty() && !refused.is_empty(), "{} of 16 were answered", done.len());
        for answer in refused {
            let Err(CallError::Refused(failure)) = answer else { panic!("not refused: {answer:?}") };
            assert_eq!(failure.cause(), Cause::Busy);
        }
        // One that waits, and one that is being sent.
        let most = budget.most();
        assert!(most <= limit + 2 * (MAX_VALUE as u64 + (1 << 20)), "{most} bytes were taken");
        // But for the frame that was read last.
        until("all is given back", || budget.used() < 64 << 10).await;
    }
}
