//! The queue, on times that are handed in, and what it is to a connection's task and to HTTP/2.
#![allow(clippy::unwrap_used)]

use super::{queue::*, *};
use futures::{StreamExt, poll};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

const LATER: Duration = Duration::from_secs(5);
const BOUNDS: Bounds = Bounds { calls: 16, bytes: 1_000, frame_calls: 16, frame_bytes: 100 };

type Name = &'static str;

/// Calls that are names; their callers are the names again, and have gone where those begin so.
#[derive(Default)]
struct Names<const STANDS_BACK: bool>(parking_lot::Mutex<Vec<(Name, Lost)>>);

impl<const STANDS_BACK: bool> Protocol for Names<STANDS_BACK> {
    type Call = Name;
    type Caller = Name;
    type Request = (u64, Name, Duration);

    const STANDS_BACK: bool = STANDS_BACK;

    fn request(id: u64, call: Name, left: Duration) -> Self::Request {
        (id, call, left)
    }

    fn is_abandoned(caller: &Name) -> bool {
        caller.starts_with("gone")
    }

    fn load(&self, backlog: &Backlog) -> usize {
        backlog.unanswered
    }

    fn lost(&self, lost: Vec<(Name, Lost)>) {
        self.0.lock().extend(lost);
    }
}

fn call<const BACK: bool>(name: Name, bytes: usize, deadline: Instant) -> Waiting<Names<BACK>> {
    Waiting { call: name, bytes, deadline, caller: Some(name) }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// An open queue of calls of these sizes, each of which has 10 ms more than the one before.
fn queued(calls: &[(Name, usize)], now: Instant) -> Queue<Names<false>> {
    let mut queue = Queue::new();
    queue.open = true;
    for ((name, bytes), at) in calls.iter().zip(1..) {
        assert!(queue.push(&BOUNDS, call(name, *bytes, now + ms(10) * at)).is_ok());
    }
    queue
}

/// A frame of at most so many calls.
fn frame(queue: &mut Queue<Names<false>>, calls: usize, now: Instant) -> Vec<(u64, Name, Duration)> {
    queue.take_frame(&Bounds { frame_calls: calls, ..BOUNDS }, now, &mut Vec::new())
}

fn is_unsent(lost: &(Name, Lost), name: Name) -> bool {
    matches!(lost, (of, Lost::NotSent(_)) if *of == name)
}

#[test]
fn when_a_session_ends_what_was_sent_is_lost_and_what_waited_was_not_sent() {
    let now = Instant::now();
    let mut queue = queued(&[("sent", 1), ("waits", 1)], now);
    assert_eq!(frame(&mut queue, 1, now).len(), 1);
    let mut lost = Vec::new();
    queue.end("it broke", &mut lost);
    let why = || "it broke".to_owned();
    assert_eq!(lost, [("sent", Lost::Broke(why())), ("waits", Lost::NotSent(why()))]);
    assert_eq!(queue.backlog(), Backlog::default());
}

#[test]
fn a_call_whose_time_is_up_times_out_if_it_was_sent_and_else_was_not_sent() {
    let now = Instant::now();
    let mut queue = queued(&[("sent", 1), ("waits", 1), ("has time", 1)], now);
    assert_eq!(queue.backlog().earliest, Some(now + ms(10)));
    assert_eq!(frame(&mut queue, 1, now)[0].2, ms(10));
    let mut lost = Vec::new();
    queue.expire(now + ms(25), |_| false, &mut lost);
    assert_eq!(lost[0], ("sent", Lost::TimedOut));
    assert!(is_unsent(&lost[1], "waits") && lost.len() == 2, "{lost:?}");
    let earliest = Some(now + ms(30));
    assert_eq!(
        queue.backlog(),
        Backlog { waiting: 1, bytes: 1, unanswered: 1, earliest, silent_since: None }
    );
    // What is late goes into no frame either, and what nobody waits for.
    assert!(queue.push(&BOUNDS, call("gone", 1, now + LATER)).is_ok());
    assert!(queue.take_frame(&BOUNDS, now + ms(30), &mut lost).is_empty());
    assert!(is_unsent(&lost[2], "has time") && is_unsent(&lost[3], "gone"), "{lost:?}");
    assert_eq!(queue.backlog().unanswered, 0);
}

#[test]
fn frames_are_cut_by_bytes_and_by_number_and_a_larger_call_travels_alone() {
    let now = Instant::now();
    let sizes = |bounds: Bounds| -> Vec<usize> {
        let mut queue = queued(&[("a", 60), ("b", 40), ("c", 1), ("d", 500), ("e", 1)], now);
        let frames = std::iter::repeat_with(|| queue.take_frame(&bounds, now, &mut Vec::new()).len());
        frames.take_while(|size| *size > 0).collect()
    };
    assert_eq!(sizes(BOUNDS), [2, 1, 1, 1]);
    assert_eq!(sizes(Bounds { frame_calls: 3, frame_bytes: 1_000, ..BOUNDS }), [3, 2]);
}

#[test]
fn what_waits_is_bounded_by_number_and_by_bytes_and_a_larger_call_waits_alone() {
    let now = Instant::now();
    let bounds = Bounds { calls: 2, bytes: 100, ..BOUNDS };
    let refused = |waits: &[(Name, usize)], bytes| {
        queued(waits, now).push(&bounds, call("one more", bytes, now + LATER)).err()
    };
    assert_eq!((refused(&[("a", 1)], 99), refused(&[], 5_000)), (None, None));
    assert_eq!(refused(&[("a", 1)], 100), Some(Lost::Full));
    assert_eq!(refused(&[("a", 1), ("b", 1)], 1), Some(Lost::Full));
}

#[test]
fn a_late_answer_does_not_meet_the_next_call_in_its_slot() {
    let now = Instant::now();
    let mut queue = queued(&[("first", 1)], now);
    let late = frame(&mut queue, 1, now)[0].0;
    queue.expire(now + ms(20), |_| false, &mut Vec::new());
    assert!(queue.push(&BOUNDS, call("second", 1, now + LATER)).is_ok());
    let of_another_session = frame(&mut queue, 1, now)[0].0;
    queue.end("it broke", &mut Vec::new());
    queue.open = true;
    assert!(queue.push(&BOUNDS, call("third", 1, now + LATER)).is_ok());
    assert!(queue.push(&BOUNDS, Waiting { caller: None, ..call("told", 1, now + LATER) }).is_ok());
    let sent = frame(&mut queue, 2, now);
    assert!(sent[0].0 != 0 && sent[1].0 == 0, "{sent:?}");
    for id in [late, of_another_session, 0, u64::MAX] {
        assert_eq!(queue.answered(id), None);
    }
    assert_eq!(queue.backlog().unanswered, 1);
    assert_eq!((queue.answered(sent[0].0), queue.answered(sent[0].0)), (Some("third"), None));
    assert_eq!(queue.backlog().unanswered, 0);
}

#[test]
fn silence_gives_up_what_may_be_and_leaves_the_rest_waiting() {
    let now = Instant::now();
    let mut queue = queued(&[("answered", 1), ("read", 1), ("write", 1), ("read that waits", 1)], now);
    let answered = frame(&mut queue, 3, now)[0].0;
    assert_eq!(queue.backlog().silent_since, Some(now));
    queue.answered(answered);
    queue.heard(now + ms(1));
    assert_eq!(queue.backlog().silent_since, Some(now + ms(1)));
    let mut lost = Vec::new();
    queue.expire(now + ms(2), |caller| caller.starts_with("read"), &mut lost);
    assert_eq!(lost, [("read", Lost::Stalled)]);
    let left = queue.backlog();
    assert_eq!((left.unanswered, left.waiting, left.earliest), (2, 1, Some(now + ms(30))));
    queue.expire(now + ms(30), |_| false, &mut lost);
    assert_eq!(queue.backlog().silent_since, None, "no answer is due");
}

fn connection<const BACK: bool>() -> Arc<Calls<Names<BACK>>> {
    Arc::new(Calls::new(Names::default(), BOUNDS))
}

/// Pushes a call that has time.
fn push<const BACK: bool>(calls: &Calls<Names<BACK>>, name: Name) -> Result<(), Lost> {
    calls.push(call(name, 1, Instant::now() + LATER))
}

fn names(frame: Poll<Option<Vec<(u64, Name, Duration)>>>) -> Vec<Name> {
    match frame {
        Poll::Ready(Some(requests)) => requests.into_iter().map(|(_, name, _)| name).collect(),
        other => panic!("no frame: {other:?}"),
    }
}

#[tokio::test]
async fn a_session_sends_what_waits_once_it_is_open_and_nothing_after_its_end() {
    let calls = connection::<false>();
    let mut frames = calls.frames();
    push(&calls, "a").unwrap();
    assert_eq!(poll!(frames.next()), Poll::Pending, "not open");
    calls.establish();
    assert_eq!(names(poll!(frames.next())), ["a"]);
    assert_eq!(calls.load(), 1);
    calls.down(Some("nobody there".to_owned()));
    calls.end("it broke");
    assert_eq!(*calls.protocol().0.lock(), [("a", Lost::Broke("it broke".to_owned()))]);
    assert_eq!(push(&calls, "b"), Err(Lost::NotSent("nobody there".to_owned())));
    let mut next = calls.frames();
    calls.establish();
    push(&calls, "c").unwrap();
    assert_eq!(poll!(frames.next()), Poll::Ready(None));
    assert_eq!(names(poll!(next.next())), ["c"]);
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn whoever_sends_is_woken_by_what_it_can_send_or_by_the_end() {
    let calls = connection::<false>();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let count = || woken.0.load(Ordering::SeqCst);
    let mut frames = calls.frames();
    assert!(frames.poll_next_unpin(&mut cx).is_pending());
    push(&calls, "a").unwrap();
    assert_eq!(count(), 0, "it could not send that");
    calls.establish();
    assert_eq!(count(), 1);
    assert_eq!(names(frames.poll_next_unpin(&mut cx)), ["a"]);
    assert!(frames.poll_next_unpin(&mut cx).is_pending());
    push(&calls, "b").unwrap();
    push(&calls, "c").unwrap();
    assert_eq!(count(), 2, "once is enough");
    assert_eq!(names(frames.poll_next_unpin(&mut cx)), ["b", "c"]);
    assert!(frames.poll_next_unpin(&mut cx).is_pending());
    calls.end("it broke");
    assert_eq!(count(), 3);
}

#[tokio::test]
async fn others_go_first_once_before_a_frame_is_taken() {
    let calls = connection::<true>();
    let mut frames = calls.frames();
    calls.establish();
    for (first, other) in [("a", "b"), ("c", "d")] {
        push(&calls, first).unwrap();
        assert_eq!(poll!(frames.next()), Poll::Pending);
        push(&calls, other).unwrap();
        assert_eq!(names(poll!(frames.next())), [first, other]);
    }
}

#[tokio::test]
async fn answers_meet_their_callers_and_end_the_silence_once_none_is_due() {
    let calls = connection::<false>();
    let mut frames = calls.frames();
    calls.establish();
    push(&calls, "a").unwrap();
    push(&calls, "b").unwrap();
    let Poll::Ready(Some(sent)) = poll!(frames.next()) else { panic!("no frame") };
    let later = Instant::now() + LATER;
    let answers = [(sent[1].0, "to b"), (7, "to nobody")];
    assert_eq!(calls.answered(later, answers.into_iter()), [("b", "to b")]);
    assert_eq!((calls.load(), calls.backlog().silent_since), (1, Some(later)));
    calls.answered(later, [(sent[0].0, "to a")].into_iter());
    assert_eq!((calls.load(), calls.backlog().silent_since), (0, None));
}

#[tokio::test]
async fn the_task_is_called_for_a_sooner_deadline_and_for_no_other() {
    let calls = connection::<false>();
    let soon = Instant::now() + LATER;
    for (sooner, deadline) in [(true, soon), (false, soon + ms(1)), (true, soon - ms(1))] {
        calls.push(call("a", 1, deadline)).unwrap();
        assert_eq!(calls.attention_before(Some(Instant::now())).await, sooner);
    }
}

#[tokio::test]
async fn a_closed_connection_neither_rests_nor_wants_anything() {
    let calls = connection::<false>();
    calls.rest(Duration::from_hours(1), || true).await;
    assert!(calls.demand(|| true).await);
    calls.close();
    calls.rest(Duration::from_hours(1), || false).await;
    assert!(!calls.demand(|| true).await);
}

#[test]
fn what_is_big_takes_the_last_connection_and_the_rest_the_first_that_is_not_much_busier() {
    let load = |load: &usize| *load;
    assert_eq!(pick(&[0, 5, 900], true, load), Some(&900));
    assert_eq!(pick(&[5 + SPILL, 5, 0], false, load), Some(&0));
    assert_eq!(pick(&[SPILL, 0, 1], false, load), Some(&SPILL));
    assert_eq!(pick(&[], false, load), None);
}

#[test]
fn waits_double_up_to_their_bound() {
    let waits = [1, 2, 3, 4, 100].map(|failures| backoff(ms(50), ms(300), failures));
    assert_eq!(waits, [ms(50), ms(100), ms(200), ms(300), ms(300)]);
}

#[test]
fn slots_beyond_a_number_are_given_up_once_none_is_in_use_and_their_numbers_meet_no_other_call() {
    let now = Instant::now();
    let many = Bounds { calls: 2_000, bytes: 2_000, frame_calls: 2_000, frame_bytes: 2_000 };
    let mut queue = Queue::<Names<false>>::new();
    queue.open = true;
    let mut lost = Vec::new();
    let mut earlier = std::collections::BTreeSet::new();
    for round in 0..3 {
        for _ in 0..2_000 {
            assert!(queue.push(&many, call("k", 1, now + LATER)).is_ok());
        }
        let sent = queue.take_frame(&many, now, &mut lost);
        assert_eq!((sent.len(), queue.slots()), (2_000, 2_000));
        for (id, ..) in &sent {
            assert!(earlier.insert(*id), "the number {id} was used before");
        }
        match round {
            0 => queue.expire(now + LATER, |_| false, &mut lost),
            _ => drop(queue.end("it broke", &mut lost)),
        }
        queue.open = true;
        assert_eq!(queue.slots(), 0);
        assert!(earlier.iter().all(|id| queue.answered(*id).is_none()));
    }
    assert_eq!(lost.len(), 6_000);
}
