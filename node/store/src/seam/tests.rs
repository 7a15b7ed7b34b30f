//! Threads that may block: how many, and who waits.

#![allow(clippy::unwrap_used)]
use super::*;
use futures::{StreamExt, stream::FuturesUnordered};
use std::{sync::mpsc, time::Instant};

#[test]
fn what_runs_apart_does_not_wait_for_those_who_wait_for_the_disk() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    let (go_on, hangs) = mpsc::channel::<()>();
    let hung = runtime.spawn_blocking(move || hangs.recv());
    let (said, says) = mpsc::channel();
    thread::spawn(move || {
        said.send(runtime.block_on(Offload::threads().run_apart(|| 7))).unwrap();
        // Not before: its end waits for all blocking threads.
        drop(runtime);
    });
    // Longer than it takes.
    assert_eq!(says.recv_timeout(std::time::Duration::from_secs(20)), Ok(7));
    go_on.send(()).unwrap();
    drop(hung);
}

#[test]
fn what_runs_behind_stands_back_and_holds_up_nobody_else() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let offload = Offload::threads();
    #[cfg(target_os = "linux")]
    {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let (before, behind) =
            runtime.block_on(async { (offload.run(nice).await, offload.behind().run(nice).await) });
        assert_eq!((before, behind), (nice(), NICE.max(nice())));
    }
    let (go_on, hangs) = mpsc::channel::<()>();
    let hangs = Arc::new(Mutex::new(hangs));
    runtime.block_on(async {
        let hung = (0..=THREADS_BEHIND).map(|_| {
            let hangs = Arc::clone(&hangs);
            offload.behind().run(move || hangs.lock().recv())
        });
        let hung = futures::future::join_all(hung);
        tokio::pin!(hung);
        assert!(futures::poll!(&mut hung).is_pending());
        assert_eq!(offload.run(|| 7).await, 7);
        drop(go_on);
        hung.await;
    });
}

/// What is left to do begins so long after something was done.
async fn pauses(offload: Offload, does: impl Fn() + Clone + Send + 'static) -> Duration {
    let looks = (0..THREADS_BEHIND).map(|_| {
        let does = does.clone();
        offload.behind().run(move || {
            does();
            Instant::now()
        })
    });
    let last = offload.behind().run(Instant::now);
    let (done, begins) = futures::future::join(futures::future::join_all(looks), last).await;
    begins.duration_since(done.into_iter().min().unwrap())
}

/// Threads that want all processors until this is dropped.
#[cfg(target_os = "linux")]
struct Busy(Arc<AtomicBool>);

#[cfg(target_os = "linux")]
impl Busy {
    fn begin() -> Busy {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..2 * thread::available_parallelism().unwrap().get() {
            let over = Arc::clone(&over);
            thread::spawn(move || while !over.load(Ordering::Relaxed) {});
        }
        Busy(over)
    }
}

#[cfg(target_os = "linux")]
impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn threads_that_stand_back_rest_where_others_want_their_processor() {
    const RESTS: Duration = Duration::from_millis(80);
    // Some systems do not say how long a thread waits.
    if !Spent::is_known() {
        return;
    }
    let offload = Offload::threads();
    offload.behind_rests(true);
    let busy = Busy::begin();
    let (left, waited) = (Arc::new(AtomicUsize::new(THREADS_BEHIND)), Arc::new(AtomicBool::new(true)));
    let both = Arc::clone(&waited);
    let waits = move || {
        let (began, before) = (Instant::now(), Spent::now());
        while Spent::now().since(before).rest() < RESTS && began.elapsed() < Duration::from_secs(5) {}
        if Spent::now().since(before).rest() < RESTS {
            both.store(false, Ordering::Relaxed);
        }
        // So that nothing else keeps the next look from being begun.
        if left.fetch_sub(1, Ordering::Relaxed) == 1 {
            busy.0.store(true, Ordering::Relaxed);
        }
    };
    let waits = Arc::new(waits);
    let paused = pauses(offload, move || waits()).await;
    // Some have more processors than they say.
    if waited.load(Ordering::Relaxed) {
        assert!(paused >= RESTS, "{paused:?}");
    }
}

/// As long as the rest that is the longest.
#[tokio::test]
async fn threads_that_wait_for_the_disk_do_not_rest_for_it() {
    let offload = Offload::threads();
    offload.behind_rests(true);
    let mut paused = Duration::MAX;
    for _ in 0..200 {
        paused = pauses(offload, || thread::sleep(Duration::from_millis(20))).await;
        // Else something that runs beside it took their processor.
        if paused < Duration::from_millis(100) {
            break;
        }
    }
    assert!(paused < Duration::from_millis(100), "{paused:?}");
}

/// THREADS-BOUNDED.
#[tokio::test]
async fn what_reads_large_values_is_few_at_a_time_and_holds_up_nobody_else() {
    let offload = Offload::threads();
    let (go_on, hangs) = mpsc::channel::<()>();
    let hangs = Arc::new(Mutex::new(hangs));
    let reads = (0..LARGE_THREADS + LARGE_WAITING).map(|_| {
        let hangs = Arc::clone(&hangs);
        offload.large().run_if_free(move || hangs.lock().recv().is_ok())
    });
    let mut reads: FuturesUnordered<_> = reads.collect();
    assert!(futures::poll!(reads.next()).is_pending());
    assert_eq!(offload.large().run_if_free(|| 7).await, Err(Crowded(LARGE_WAITING)));
    assert_eq!(offload.run_if_free(|| 7).await, Ok(7));
    // Nobody waits for long, but the node itself.
    let own = offload.large().run(|| 7);
    tokio::pin!(own);
    for _ in 0..LARGE_WAITING {
        assert!(matches!(reads.next().await, Some(Err(Crowded(_)))));
        assert!(futures::poll!(&mut own).is_pending());
    }
    drop(go_on);
    while let Some(read) = reads.next().await {
        assert_eq!(read, Ok(false));
    }
    assert_eq!(own.await, 7);
}

#[test]
fn what_runs_apart_is_done_and_answered_where_there_is_no_thread() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let none = |_: Work| Err(std::io::Error::from(std::io::ErrorKind::WouldBlock));
    let done = runtime
        .block_on(async { tokio::time::timeout(std::time::Duration::from_secs(9), apart(|| 7, none)).await });
    assert_eq!(done, Ok(7));
}

/// THREADS-BOUNDED.
#[tokio::test]
async fn who_finds_no_thread_waits_and_who_finds_too_many_waiting_is_refused() {
    let threads = Threads::new(1, 1).leak();
    let offload = Offload::Threads(threads);
    let (go_on, hangs) = mpsc::channel::<()>();
    let hung = tokio::spawn(offload.run_if_free(move || hangs.recv().is_ok()));
    while threads.free.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let began = Arc::new(AtomicUsize::new(0));
    let begins = |began: &Arc<AtomicUsize>| {
        let began = Arc::clone(began);
        move || began.fetch_add(1, Ordering::SeqCst)
    };
    let waits = tokio::spawn(offload.run_if_free(begins(&began)));
    while threads.waiting.load(Ordering::SeqCst) < 1 {
        tokio::task::yield_now().await;
    }
    // Longer than it takes.
    let limit = std::time::Duration::from_secs(20);
    let refused = tokio::time::timeout(limit, offload.run_if_free(begins(&began))).await;
    assert_eq!(refused, Ok(Err(Crowded(1))));
    // Who gives up makes room for another one; the node's own work is not refused.
    waits.abort();
    while threads.waiting.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
    let waits = tokio::spawn(offload.run_if_free(begins(&began)));
    let own = tokio::spawn(offload.run(begins(&began)));
    while threads.waiting.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(began.load(Ordering::SeqCst), 0, "the one thread is taken");
    go_on.send(()).unwrap();
    assert_eq!(hung.await.unwrap(), Ok(true));
    waits.await.unwrap().unwrap();
    own.await.unwrap();
    assert_eq!((began.load(Ordering::SeqCst), threads.free.available_permits()), (2, 1));
}
