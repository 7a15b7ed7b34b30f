//! How many may come, how long they may take, what they may hold.

use super::*;

#[tokio::test]
async fn a_connection_for_which_there_is_no_place_takes_none_from_those_at_work() {
    let doors = doors_for(1).await;
    let mut store = doors.store();
    let slow = tokio::spawn(async move { store.get(get("slow")).await });
    let until = Instant::now() + Duration::from_secs(20);
    while doors.fake.calls.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < until, "the first request never came");
        sleep(Duration::from_millis(5)).await;
    }
    let mut second = StoreClient::new(Channel::from_shared(doors.grpc.clone()).unwrap().connect_lazy());
    assert!(second.get(get("k")).await.is_err());
    doors.store().get(get("k")).await.unwrap();
    // Once its request has ended it is the newcomer's turn.
    slow.abort();
    while second.get(get("k")).await.is_err() {
        assert!(Instant::now() < until, "there was never a place for the second one");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Reads until the other side closes.
async fn closed(mut stream: TcpStream) -> bool {
    let mut some = [0; 1024];
    let end = async { while let Ok(1..) = stream.read(&mut some).await {} };
    tokio::time::timeout(Duration::from_secs(20), end).await.is_ok()
}

#[tokio::test]
async fn a_connection_that_does_not_say_what_it_wants_is_closed() {
    let times = Times { handshake: Duration::from_millis(200), ..Times::default() };
    let doors = doors_with(1_000, times).await;
    let grpc = doors.grpc.strip_prefix("http://").unwrap();
    for (door, begun) in [
        (grpc, &b""[..]),
        (grpc, b"PRI * HTTP/2.0\r\n"),
        (&doors.http, b""),
        (&doors.http, b"GET /healthz HTTP/1.1\r\nHost: no"),
    ] {
        let mut stream = TcpStream::connect(door).await.unwrap();
        stream.write_all(begun).await.unwrap();
        assert!(closed(stream).await, "{door} waits for the rest of {begun:?}");
    }
    doors.store().get(get("k")).await.unwrap();
}

#[tokio::test]
async fn silent_connections_take_no_place_from_those_who_speak() {
    let doors = doors_for(8).await;
    let grpc = doors.grpc.strip_prefix("http://").unwrap();
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(grpc).await.unwrap());
        silent.push(TcpStream::connect(&doors.http).await.unwrap());
    }
    let mut new = StoreClient::connect(doors.grpc.clone()).await.unwrap();
    new.get(get("k")).await.unwrap();
    assert_eq!(http(&doors, "GET /healthz", "*/*").await.0, 200);
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_and_one_at_work_is_not() {
    let times = Times { idle: Duration::from_millis(300), ..Times::default() };
    let doors = doors_with(1_000, times).await;
    let (frames, outgoing) = mpsc::channel::<PipelineRequest>(2);
    let mut replies = doors.store().pipeline(stream_of(outgoing)).await.unwrap().into_inner();
    let mut idle = TcpStream::connect(&doors.http).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n").await.unwrap();
    assert!(closed(idle).await);
    sleep(times.idle * 3).await;
    frames.send(frame(&["k"])).await.unwrap();
    assert_eq!(replies.message().await.unwrap().unwrap().answers.len(), 1);
}

fn frame(keys: &[&str]) -> PipelineRequest {
    let numbered = |(id, key): (u64, &&str)| NumberedCall { id, call: Some(call(call::Call::Get(get(key)))) };
    PipelineRequest { calls: (1..).zip(keys).map(numbered).collect() }
}

/// READERS-APART.
#[tokio::test]
async fn what_a_client_asked_for_goes_on_while_it_does_not_read() {
    let doors = doors().await;
    let (frames, outgoing) = mpsc::channel::<PipelineRequest>(2);
    let replies = doors.store().pipeline(stream_of(outgoing)).await.unwrap().into_inner();
    // More than the windows take, and then one that holds what others wait for until it is polled again.
    frames.send(frame(&["large"; 6])).await.unwrap();
    frames.send(frame(&["hold"])).await.unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while doors.fake.held.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < until, "it was never begun");
        sleep(Duration::from_millis(5)).await;
    }
    let other = doors.store();
    let asked =
        tokio::time::timeout(Duration::from_secs(10), async move { other.clone().get(get("hold")).await });
    asked.await.expect("it is held up by a client that does not read").unwrap();
    drop(replies);
}

/// BUDGET: what is small on the wire and large in memory is counted before it is decoded.
#[tokio::test]
async fn a_frame_of_millions_of_empty_calls_is_refused_undecoded() {
    let budget = Budget::new(64 << 20);
    let doors = doors_paid_from(budget.clone(), 1_000, Times::default()).await;
    let calls = |count| PipelineRequest { calls: vec![NumberedCall::default(); count] };
    for (count, code) in [(5_000_000, Code::InvalidArgument), (200_000, Code::ResourceExhausted)] {
        let frames = futures::stream::iter([calls(count)]);
        let status = match doors.store().pipeline(frames).await {
            Ok(replies) => replies.into_inner().message().await.unwrap_err(),
            Err(status) => status,
        };
        assert_eq!(status.code(), code, "{status:?}");
        let batch = BatchRequest { calls: vec![Call::default(); count] };
        let status = doors.store().batch(batch).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
    }
    doors.store().get(get("k")).await.unwrap();
    until("all is given back", || budget.used() == 0).await;
}

/// BUDGET: what waits for clients that do not read keeps others out, and comes free when they are gone.
#[tokio::test]
async fn beyond_the_memory_for_requests_calls_are_refused_as_busy() {
    let budget = Budget::new(32 << 20);
    let doors = doors_paid_from(budget.clone(), 1_000, Times::default()).await;
    let mut unread = Vec::new();
    for _ in 0..3 {
        let (frames, outgoing) = mpsc::channel::<PipelineRequest>(2);
        let mut store = StoreClient::connect(doors.grpc.clone()).await.unwrap();
        let replies = store.pipeline(stream_of(outgoing)).await.unwrap();
        frames.send(frame(&["large"; 6])).await.unwrap();
        unread.push((frames, replies));
    }
    until("the answers wait", || budget.used() > 32 << 20).await;
    let refused = doors.store().get(get("k")).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(unread);
    until("all is given back", || budget.used() == 0).await;
    doors.store().get(get("k")).await.unwrap();
}

/// Work that nobody will hear of ends with the connection, and what it holds comes free.
#[tokio::test]
async fn what_a_client_asked_for_ends_with_its_connection() {
    let budget = Budget::new(32 << 20);
    let doors = doors_paid_from(budget.clone(), 1_000, Times::default()).await;
    for half_closed in [false, true] {
        let (frames, outgoing) = mpsc::channel::<PipelineRequest>(2);
        let mut store = StoreClient::connect(doors.grpc.clone()).await.unwrap();
        let replies = store.pipeline(stream_of(outgoing)).await.unwrap();
        let calls = doors.fake.calls.load(Ordering::SeqCst);
        frames.send(frame(&["slow", "slow"])).await.unwrap();
        until("it is begun", || doors.fake.calls.load(Ordering::SeqCst) == calls + 2).await;
        assert!(budget.used() > 0);
        if half_closed {
            drop(frames);
            drop((replies, store));
        } else {
            drop((replies, store, frames));
        }
        until("all is given back", || budget.used() == 0).await;
    }
}

/// Waits until something is so.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answers_is_closed() {
    let times = Times { unread: Duration::from_millis(300), ..Times::default() };
    let doors = doors_with(1_000, times).await;
    let (frames, outgoing) = mpsc::channel::<PipelineRequest>(2);
    let _replies = doors.store().pipeline(stream_of(outgoing)).await.unwrap().into_inner();
    frames.send(frame(&["large"; 12])).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), frames.closed()).await.expect("the stream is still read");
    StoreClient::connect(doors.grpc.clone()).await.unwrap().get(get("k")).await.unwrap();
}
