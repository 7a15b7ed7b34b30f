//! The one writer: takes all jobs that are waiting as a group, has them applied in one batch, syncs as asked, and
//! answers.

use crate::engine::{Durability, Engine, EngineError, Pressure};
use metrics::{counter, gauge, histogram};
use parking_lot::{Condvar, Mutex};
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};

/// What a committer does with its jobs: one room's logic, run by one writer at a time.
pub(super) trait Apply: Send + 'static {
    /// What is to be done.
    type Job: Send + 'static;
    /// What came of it.
    type Answer: Send + 'static;

    /// Decides and writes a whole group in one batch. One answer a job, in order. `synced`: it is on the disk before
    /// it is visible (invariant READ-SYNCED), else visible and not yet synced. After an error nothing of the group is
    /// visible; whether it survives is open.
    fn apply(&mut self, jobs: Vec<Self::Job>, synced: bool) -> Result<Vec<Self::Answer>, EngineError>;

    /// Whether a job's end is that there is more room on the disk, whatever it writes for that.
    fn makes_room(_job: &Self::Job) -> bool {
        false
    }

    /// Bytes that a job weighs, for the bounds.
    fn weight(job: &Self::Job) -> usize;
}

/// The bounds of a committer.
#[derive(Clone, Debug)]
pub struct CommitterSettings {
    /// When jobs' writes are forced to the disk.
    pub durability: Durability,
    /// Jobs that may wait. More lets bursts pass and makes waiting longer.
    pub queue_jobs: usize,
    /// Bytes that may wait.
    pub queue_bytes: usize,
    /// Jobs in one group. More costs the first of them time and saves work for all.
    pub group_jobs: usize,
    /// Bytes in one group.
    pub group_bytes: usize,
}

impl Default for CommitterSettings {
    fn default() -> Self {
        CommitterSettings {
            durability: Durability::Interval(Duration::from_millis(100)),
            queue_jobs: 16_384,
            queue_bytes: 64 << 20,
            group_jobs: 1_024,
            group_bytes: 8 << 20,
        }
    }
}

/// Why a job was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Too much is waiting, here or in the engine. Nothing was written.
    #[error("storage is busy; try again in {} ms", retry_after.as_millis())]
    Busy {
        /// When it makes sense to try again.
        retry_after: Duration,
    },
    /// Nothing was written.
    #[error("the disk is full: {0}")]
    DiskFull(String),
    /// Nothing is visible; whether the write survives a restart is open.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The store is closing; nothing was written.
    #[error("storage is closing")]
    Stopped,
}

/// A job that was taken has no answer: a defect of this program stopped the writer on the way.
fn unanswered() -> EngineError {
    EngineError::Failed("the writer stopped in the middle of its work, a defect of this program".to_owned())
}

/// How long a refused job should wait.
const RETRY_AFTER: Duration = Duration::from_millis(20);

struct QueuedJob<A: Apply> {
    job: A::Job,
    weight: usize,
    answer: oneshot::Sender<Result<A::Answer, CommitError>>,
}

struct Queue<A: Apply> {
    jobs: VecDeque<QueuedJob<A>>,
    bytes: usize,
    /// The writer waits on the condition variable and must be woken.
    idle: bool,
    stopping: bool,
    /// The engine failed: nothing more can be written.
    failed: Option<EngineError>,
}

/// What the writer and those who hand it jobs have in common.
struct GroupCommit<A: Apply> {
    engine: Arc<dyn Engine>,
    settings: CommitterSettings,
    queue: Mutex<Queue<A>>,
    filled: Condvar,
}

/// The writer of the inline kind: who submits does the work.
struct Inline<A> {
    apply: A,
    synced: Instant,
}

/// Does jobs in groups, one group at a time. Dropping it stops it.
pub(super) struct Committer<A: Apply> {
    shared: Arc<GroupCommit<A>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    inline: Option<Mutex<Inline<A>>>,
}

impl<A: Apply> Committer<A> {
    /// A committer with a thread of its own.
    pub fn threaded(engine: Arc<dyn Engine>, apply: A, settings: CommitterSettings) -> Committer<A> {
        let shared = GroupCommit::new(engine, settings);
        let worker = Arc::clone(&shared);
        let spawned = thread::Builder::new().name("committer".to_owned()).spawn(move || worker.run(apply));
        if let Err(error) = &spawned {
            shared.queue.lock().failed =
                Some(EngineError::Failed(format!("cannot start the writer: {error}")));
        }
        Committer { shared, thread: Mutex::new(spawned.ok()), inline: None }
    }

    /// A committer that works on the spot, for the simulation: no thread, and each job a group of its own.
    pub fn inline(engine: Arc<dyn Engine>, apply: A, settings: CommitterSettings) -> Committer<A> {
        let shared = GroupCommit::new(engine, settings);
        let inline = Inline { apply, synced: Instant::now() };
        Committer { shared, thread: Mutex::new(None), inline: Some(Mutex::new(inline)) }
    }

    /// Has a job done, and waits until it is as durable as the settings ask. Refuses at once where too much waits.
    /// A job that was taken is done even where nobody waits for its answer any more.
    pub async fn submit(&self, job: A::Job) -> Result<A::Answer, CommitError> {
        let weight = A::weight(&job);
        self.shared.admit(weight, A::makes_room(&job))?;
        if let Some(inline) = &self.inline {
            let mut inline = inline.lock();
            return self.shared.work_inline(&mut inline, job);
        }
        let (answer, answered) = oneshot::channel();
        let wake = {
            let mut queue = self.shared.queue.lock();
            self.shared.check(&queue, weight)?;
            queue.bytes += weight;
            queue.jobs.push_back(QueuedJob { job, weight, answer });
            std::mem::take(&mut queue.idle)
        };
        if wake {
            self.shared.filled.notify_one();
        }
        answered.await.unwrap_or_else(|_| Err(unanswered().into()))
    }

    /// What the engine failed with, if it did.
    #[cfg(test)]
    fn failure(&self) -> Option<EngineError> {
        self.shared.queue.lock().failed.clone()
    }

    /// Does what waits, syncs, and takes no more. May block on the disk.
    pub fn stop(&self) {
        self.shared.queue.lock().stopping = true;
        self.shared.filled.notify_one();
        let thread = self.thread.lock().take();
        // A panicked writer has said so already; there is nothing to add here.
        let _ = thread.map(JoinHandle::join);
    }
}

impl<A: Apply> Drop for Committer<A> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<A: Apply> GroupCommit<A> {
    fn new(engine: Arc<dyn Engine>, settings: CommitterSettings) -> Arc<GroupCommit<A>> {
        let queue = Queue { jobs: VecDeque::new(), bytes: 0, idle: false, stopping: false, failed: None };
        Arc::new(GroupCommit { engine, settings, queue: Mutex::new(queue), filled: Condvar::new() })
    }

    /// Whether the engine wants more work.
    fn admit(&self, weight: usize, makes_room: bool) -> Result<(), CommitError> {
        match self.engine.pressure() {
            Pressure::Fine => Ok(()),
            Pressure::Busy(retry_after) => {
                counter!("god_engine_busy_total", "why" => "engine").increment(1);
                Err(CommitError::Busy { retry_after })
            }
            // The reserve is for this, in part.
            Pressure::DiskFull(_) if makes_room => Ok(()),
            // What weighs nothing brings nothing to the disk.
            Pressure::DiskFull(_) | Pressure::DiskSpent(_) if weight == 0 => Ok(()),
            Pressure::DiskFull(problem) | Pressure::DiskSpent(problem) => Err(CommitError::DiskFull(problem)),
            Pressure::Failed(problem) => Err(EngineError::Failed(problem).into()),
        }
        .and_then(|()| self.check(&self.queue.lock(), weight))
    }

    /// Whether there is room in the queue.
    fn check(&self, queue: &Queue<A>, weight: usize) -> Result<(), CommitError> {
        if let Some(error) = &queue.failed {
            return Err(error.clone().into());
        }
        if queue.stopping {
            return Err(CommitError::Stopped);
        }
        // A job heavier than the whole queue may pass when it is alone.
        let heavy = queue.bytes + weight > self.settings.queue_bytes && !queue.jobs.is_empty();
        if heavy || queue.jobs.len() >= self.settings.queue_jobs {
            counter!("god_engine_busy_total", "why" => "queue").increment(1);
            return Err(CommitError::Busy { retry_after: RETRY_AFTER });
        }
        Ok(())
    }

    /// Remembers a failure after which nothing more can be written. A full disk may have room again.
    fn note(&self, error: &EngineError) {
        if matches!(error, EngineError::Failed(_)) {
            let mut queue = self.queue.lock();
            if queue.failed.is_none() {
                tracing::error!(%error, "storage takes no more writes until the node is started again");
                queue.failed = Some(error.clone());
            }
        }
    }

    /// Nothing more can be written: whoever waits is told so.
    fn fail(&self, error: &EngineError) {
        self.note(error);
        let waiting = std::mem::take(&mut self.queue.lock().jobs);
        for waiting in waiting {
            let _ = waiting.answer.send(Err(error.clone().into()));
        }
    }

    fn sync(&self) -> Result<(), EngineError> {
        let began = std::time::Instant::now();
        let result = self.engine.sync();
        histogram!("god_engine_sync_seconds").record(began.elapsed());
        result.inspect_err(|error| self.note(error))
    }

    fn work_inline(&self, inline: &mut Inline<A>, job: A::Job) -> Result<A::Answer, CommitError> {
        let synced = self.settings.durability == Durability::Always;
        let mut answers = inline.apply.apply(vec![job], synced).inspect_err(|error| self.note(error))?;
        let due = match self.settings.durability {
            Durability::None | Durability::Always => false,
            Durability::Interval(interval) => inline.synced.elapsed() >= interval,
        };
        if due {
            self.sync()?;
            inline.synced = Instant::now();
        }
        assert!(answers.len() == 1, "ONE-ANSWER-A-JOB: {} answers to one job", answers.len());
        answers.pop().ok_or_else(|| unanswered().into())
    }

    /// The writer's life.
    fn run(&self, mut apply: A) {
        // None: all is synced. Some: since when something is not.
        let mut unsynced_since: Option<std::time::Instant> = None;
        loop {
            let group = self.next_group(unsynced_since);
            if group.is_empty() {
                // A time to sync, or to stop.
                if unsynced_since.take().is_some() {
                    let _ = self.sync();
                }
                let queue = self.queue.lock();
                if queue.stopping && queue.jobs.is_empty() {
                    return;
                }
                continue;
            }
            // What the group did is not known then, nor what the writer remembers: nothing more is written.
            let Ok(applied) = catch_unwind(AssertUnwindSafe(|| self.work(&mut apply, group))) else {
                self.fail(&unanswered());
                return;
            };
            if applied && self.settings.durability != Durability::Always {
                unsynced_since.get_or_insert_with(std::time::Instant::now);
            }
            if self.is_due(unsynced_since) {
                unsynced_since = None;
                let _ = self.sync();
            }
        }
    }

    fn is_due(&self, unsynced_since: Option<std::time::Instant>) -> bool {
        match (self.settings.durability, unsynced_since) {
            (Durability::Interval(interval), Some(since)) => since.elapsed() >= interval,
            _ => false,
        }
    }

    /// Waits for jobs and takes as many as a group may have. Empty when it is time to sync or to stop.
    fn next_group(&self, unsynced_since: Option<std::time::Instant>) -> Vec<QueuedJob<A>> {
        let mut queue = self.queue.lock();
        while queue.jobs.is_empty() {
            if queue.stopping {
                return Vec::new();
            }
            queue.idle = true;
            match (self.settings.durability, unsynced_since) {
                (Durability::Interval(interval), Some(since)) => {
                    let left = interval.saturating_sub(since.elapsed());
                    if left.is_zero() || self.filled.wait_for(&mut queue, left).timed_out() {
                        queue.idle = false;
                        if queue.jobs.is_empty() {
                            return Vec::new();
                        }
                    }
                }
                _ => self.filled.wait(&mut queue),
            }
        }
        queue.idle = false;
        let mut group = Vec::with_capacity(queue.jobs.len().min(self.settings.group_jobs));
        let mut bytes = 0;
        while let Some(waiting) = queue.jobs.front() {
            let full = bytes + waiting.weight > self.settings.group_bytes && !group.is_empty();
            if full || group.len() == self.settings.group_jobs {
                break;
            }
            bytes += waiting.weight;
            group.extend(queue.jobs.pop_front());
        }
        queue.bytes -= bytes;
        gauge!("god_engine_queue_depth").set(queue.jobs.len() as f64);
        group
    }

    /// Applies a group, synced if each must be, and answers. Says whether it was applied.
    fn work(&self, apply: &mut A, group: Vec<QueuedJob<A>>) -> bool {
        histogram!("god_engine_group_jobs").record(group.len() as f64);
        let began = std::time::Instant::now();
        let (jobs, senders): (Vec<_>, Vec<_>) =
            group.into_iter().map(|waiting| (waiting.job, waiting.answer)).unzip();
        // ACK-DURABLE: nothing is answered before it is synced.
        let applied = apply.apply(jobs, self.settings.durability == Durability::Always);
        histogram!("god_engine_commit_seconds").record(began.elapsed());
        match applied.inspect_err(|error| self.note(error)) {
            Ok(answers) => {
                assert!(answers.len() == senders.len(), "ONE-ANSWER-A-JOB: {} answers", answers.len());
                for (sender, answer) in senders.into_iter().zip(answers) {
                    // Whoever asked may have given up waiting.
                    let _ = sender.send(Ok(answer));
                }
                true
            }
            Err(error) => {
                for sender in senders {
                    let _ = sender.send(Err(error.clone().into()));
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Batch, Reader, SimulatedDisk, Table};
    use futures::future::join_all;

    /// Writes each job's number under itself, and answers with the order in which it came.
    struct Log {
        engine: Arc<dyn Engine>,
        count: u64,
    }

    impl Apply for Log {
        type Job = u64;
        type Answer = u64;

        fn apply(&mut self, jobs: Vec<u64>, synced: bool) -> Result<Vec<u64>, EngineError> {
            let mut batch = Batch::default();
            for job in &jobs {
                batch.put(Table::Data, job.to_be_bytes().to_vec(), "");
            }
            if synced {
                self.engine.commit_synced(batch)?;
            } else {
                self.engine.commit(batch)?;
            }
            Ok(jobs
                .iter()
                .map(|_| {
                    self.count += 1;
                    self.count
                })
                .collect())
        }

        fn weight(_: &u64) -> usize {
            8
        }
    }

    fn committer(disk: &SimulatedDisk, durability: Durability) -> Committer<Log> {
        let engine: Arc<dyn Engine> = disk.open();
        let settings = CommitterSettings { durability, ..CommitterSettings::default() };
        Committer::threaded(Arc::clone(&engine), Log { engine, count: 0 }, settings)
    }

    #[tokio::test]
    async fn every_job_is_answered_once_and_in_order() {
        let committer = committer(&SimulatedDisk::new(), Durability::None);
        let answers = join_all((0..1_000).map(|job| committer.submit(job))).await;
        let answers: Vec<u64> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, (1..=1_000).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_was_acknowledged_under_always_survives_the_machine() {
        let disk = SimulatedDisk::new();
        let committer = committer(&disk, Durability::Always);
        for job in 0..50u64 {
            committer.submit(job).await.unwrap();
        }
        disk.crash_machine(0);
        let engine = disk.open();
        assert!((0..50u64).all(|job| engine.get(Table::Data, &job.to_be_bytes()).unwrap().is_some()));
    }

    #[tokio::test]
    async fn stopping_does_what_waits_and_syncs_it() {
        let disk = SimulatedDisk::new();
        let committer = committer(&disk, Durability::Interval(Duration::from_secs(3_600)));
        committer.submit(7).await.unwrap();
        committer.stop();
        assert_eq!(disk.unsynced(), 0);
        assert!(matches!(committer.submit(8).await, Err(CommitError::Stopped)));
    }

    #[tokio::test]
    async fn a_busy_or_full_engine_refuses_at_once_and_recovers() {
        let disk = SimulatedDisk::new();
        let committer = committer(&disk, Durability::None);
        disk.set_pressure(Some(Pressure::Busy(Duration::from_millis(5))));
        assert!(matches!(committer.submit(1).await, Err(CommitError::Busy { .. })));
        disk.set_pressure(Some(Pressure::DiskFull("no room".to_owned())));
        assert!(matches!(committer.submit(1).await, Err(CommitError::DiskFull(_))));
        disk.set_pressure(None);
        committer.submit(1).await.unwrap();
    }

    #[tokio::test]
    async fn after_a_failure_nothing_more_is_taken() {
        let disk = SimulatedDisk::new();
        let committer = committer(&disk, Durability::None);
        disk.fail_writes(Some(EngineError::Failed("the cable is out".to_owned())));
        assert!(committer.submit(1).await.is_err());
        disk.fail_writes(None);
        let error = committer.submit(2).await.expect_err("the outcome of the failed group is open");
        assert!(error.to_string().contains("the cable is out"));
    }

    /// Panics at a job.
    struct Faulty(u64);

    impl Apply for Faulty {
        type Job = u64;
        type Answer = u64;

        fn apply(&mut self, jobs: Vec<u64>, _: bool) -> Result<Vec<u64>, EngineError> {
            assert!(!jobs.contains(&self.0), "job {}", self.0);
            Ok(jobs)
        }

        fn weight(_: &u64) -> usize {
            8
        }
    }

    #[tokio::test]
    async fn a_writer_that_panics_leaves_outcomes_open_and_nobody_waiting() {
        let committer =
            Committer::threaded(SimulatedDisk::new().open(), Faulty(7), CommitterSettings::default());
        assert_eq!(committer.submit(1).await.unwrap(), 1);
        let answers = join_all((5..20).map(|job| committer.submit(job))).await;
        let open = |answer: &Result<u64, CommitError>| matches!(answer, Ok(_) | Err(CommitError::Engine(_)));
        assert!(answers.iter().all(open), "{answers:?}");
        assert!(matches!(answers[2], Err(CommitError::Engine(_))), "{:?}", answers[2]);
        assert!(matches!(committer.submit(30).await, Err(CommitError::Engine(_))));
        assert!(committer.failure().is_some());
        committer.stop();
    }

    #[tokio::test]
    async fn a_full_queue_refuses_rather_than_grows() {
        let disk = SimulatedDisk::new();
        let engine: Arc<dyn Engine> = disk.open();
        let settings = CommitterSettings { queue_jobs: 0, ..CommitterSettings::default() };
        let committer = Committer::threaded(Arc::clone(&engine), Log { engine, count: 0 }, settings);
        assert!(matches!(committer.submit(1).await, Err(CommitError::Busy { .. })));
    }
}
