//! Answers a batch of calls: those for the same replicas travel together.

use super::{
    Coordinator, Shared,
    admit::{Admitted, What, admit, is_read},
    fan::{Scope, Short},
    read::{seen, too_large},
    refusal::{get_answer, later, not_initialised, refuse, ring_moves, write_answer},
    write::Item,
};
use futures::future::join_all;
use god_proto::{
    MAX_BATCH,
    ids::{KeyspaceId, NodeId},
    position::Position,
    record::{Entry, Record},
    ring::{Ring, RingArc},
    v1::{Answer, Call, Reason, Rejected, Unknown, get_reply, write_reply},
    version::Version,
};
use god_rules::quorum::{Need, Sets};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tokio::time::{Instant, timeout_at};

/// How often a request begins again under a newer ring.
pub(super) const MAX_RINGS: usize = 5;
/// Bytes of writes in one message, but for a larger single one.
const MESSAGE_BYTES: usize = 8 << 20;
/// Bytes of values that reads of the same replicas get in one batch, but for the message that passes it.
const READ_BYTES: usize = 32 << 20;

/// A call on its way.
struct Job {
    slot: usize,
    position: Position,
    need: Need,
    deadline: Instant,
    /// Calls for the same position go one after the other, as the batch has them.
    wave: u32,
    what: Doing,
}

enum Doing {
    Write { record: Record, open: bool },
    Read { at_least: Version },
}

/// What jobs must share to travel in one message.
type Group<'a> = (&'a [NodeId], Option<&'a [NodeId]>, KeyspaceId, bool, Need, Instant);

type Answers = Vec<(usize, Answer)>;

impl Coordinator {
    /// Answers each call, in the same order. Not a transaction: each has its own outcome; those for one key take
    /// effect in the order of the batch. Every call is answered by its deadline.
    pub async fn batch(&self, calls: Vec<Call>) -> Vec<Answer> {
        let shared = &self.0;
        let kinds: Vec<bool> = calls.iter().map(is_read).collect();
        let mut answers: Vec<Option<Answer>> = vec![None; calls.len()];
        for (slot, answer) in shared.answer(calls).await {
            if let Some(place) = answers.get_mut(slot) {
                *place = Some(answer);
            }
        }
        // Every call has its answer by now. One that has none must look neither like success nor like nothing.
        let silent = |read: bool| {
            let message = "the coordinator lost track of the call, a defect of this program".to_owned();
            match read {
                true => refused(true, refuse(Reason::Unspecified, message)),
                false => {
                    write_answer(write_reply::Outcome::Unknown(Unknown { version: None, acks: 0, message }))
                }
            }
        };
        answers.into_iter().zip(kinds).map(|(answer, read)| answer.unwrap_or_else(|| silent(read))).collect()
    }
}

impl Shared {
    async fn answer(self: &Arc<Self>, calls: Vec<Call>) -> Answers {
        let mut answers = Vec::with_capacity(calls.len());
        if calls.len() > MAX_BATCH {
            let message = format!("the batch has {} calls; the most is {MAX_BATCH}", calls.len());
            let one =
                |(slot, call)| (slot, refused(is_read(&call), refuse(Reason::Invalid, message.clone())));
            return calls.into_iter().enumerate().map(one).collect();
        }
        let Some(ring) = self.ring.get() else {
            let one = |(slot, call)| (slot, refused(is_read(&call), not_initialised()));
            return calls.into_iter().enumerate().map(one).collect();
        };
        let (start, now_ms) = (Instant::now(), self.clock.hybrid_ms());
        let mut jobs = Vec::with_capacity(calls.len());
        let mut asleep: BTreeMap<KeyspaceId, Instant> = BTreeMap::new();
        for (slot, call) in calls.into_iter().enumerate() {
            let read = is_read(&call);
            match admit(&ring, call, now_ms) {
                Ok(Admitted { keyspace, live, position, need, timeout_ms, what }) => {
                    let deadline = start + self.settings.timeout(timeout_ms);
                    let what = match what {
                        What::Write(record) => Doing::Write { record, open: false },
                        What::Read(at_least) => Doing::Read { at_least },
                    };
                    if !live && !read {
                        let soonest = asleep.entry(keyspace).or_insert(deadline);
                        *soonest = deadline.min(*soonest);
                    }
                    jobs.push(Job { slot, position, need, deadline, wave: 0, what });
                }
                Err(rejected) => answers.push((slot, refused(read, rejected))),
            }
        }
        drop(ring);
        if !asleep.is_empty() {
            self.wake(asleep, &mut jobs, &mut answers).await;
        }
        for wave in waves(jobs) {
            self.carry(wave, &mut answers).await;
        }
        answers
    }

    /// Makes keyspaces live before their first write (invariant EMPTY-MOVES-FREE).
    async fn wake(&self, asleep: BTreeMap<KeyspaceId, Instant>, jobs: &mut Vec<Job>, answers: &mut Answers) {
        for (keyspace, deadline) in asleep {
            let problem = match timeout_at(deadline, self.sync.make_live(keyspace)).await {
                Ok(Ok(())) => continue,
                Ok(Err(problem)) => later(Reason::Unavailable, problem, 200),
                Err(_) => later(Reason::Deadline, "the keyspace could not be opened for writes in time", 200),
            };
            let stuck = |job: &mut Job| {
                matches!(job.what, Doing::Write { .. }) && job.position.keyspace() == Some(keyspace)
            };
            answers.extend(jobs.extract_if(.., stuck).map(|job| (job.slot, refused(false, problem.clone()))));
        }
    }

    /// Carries jobs to their replicas, again under each newer ring that is met.
    async fn carry(self: &Arc<Self>, mut jobs: Vec<Job>, answers: &mut Answers) {
        for _ in 0..MAX_RINGS {
            let Some(ring) = self.ring.get() else { break };
            let again = self.attempt(&ring, jobs, answers).await;
            if again.is_empty() {
                return;
            }
            jobs = again;
        }
        answers.extend(jobs.into_iter().map(|job| stranded(job, ring_moves())));
    }

    async fn attempt(self: &Arc<Self>, ring: &Arc<Ring>, jobs: Vec<Job>, answers: &mut Answers) -> Vec<Job> {
        let mut again = Vec::new();
        let mut groups: BTreeMap<Group<'_>, (&RingArc, Vec<Job>)> = BTreeMap::new();
        for job in jobs {
            let Some(arc) = ring.arc_at(&job.position) else {
                let gone = refuse(Reason::NoSuchKeyspace, "the keyspace is gone");
                answers.push(stranded(job, gone));
                continue;
            };
            let write = matches!(job.what, Doing::Write { .. });
            let (replicas, next) = (&arc.replicas[..], arc.next.as_deref());
            let group = (replicas, next, arc.keyspace, write, job.need, job.deadline);
            groups.entry(group).or_insert_with(|| (arc, Vec::new())).1.push(job);
        }
        let mut messages = Vec::with_capacity(groups.len());
        for ((.., write, need, deadline), (arc, jobs)) in groups {
            let scope = Scope { ring: Arc::clone(ring), sets: Sets::of(ring, arc, need), deadline };
            for jobs in chunks(jobs) {
                messages.push(self.message(scope.clone(), write, need, jobs));
            }
        }
        if messages.len() == 1
            && let Some(message) = messages.pop()
        {
            let (done, moved) = message.await;
            answers.extend(done);
            return moved;
        }
        for (done, moved) in join_all(messages).await {
            answers.extend(done);
            again.extend(moved);
        }
        again
    }

    /// Carries one message's jobs; gives answers, and what must go on under a newer ring.
    async fn message(
        self: &Arc<Self>,
        scope: Scope,
        write: bool,
        need: Need,
        jobs: Vec<Job>,
    ) -> (Answers, Vec<Job>) {
        if write { self.write_jobs(scope, need, jobs).await } else { self.read_jobs(scope, jobs).await }
    }

    async fn write_jobs(self: &Arc<Self>, scope: Scope, need: Need, jobs: Vec<Job>) -> (Answers, Vec<Job>) {
        let deadline = scope.deadline;
        let items = jobs
            .into_iter()
            .filter_map(|job| match job.what {
                Doing::Write { record, open } => {
                    Some(Item { slot: job.slot, entry: Entry { position: job.position, record }, open })
                }
                Doing::Read { .. } => None,
            })
            .collect();
        let written = self.write(scope, items).await;
        let answers =
            written.answers.into_iter().map(|(slot, outcome)| (slot, write_answer(outcome))).collect();
        let again = written.again.into_iter().map(|Item { slot, entry, open }| Job {
            slot,
            position: entry.position,
            need,
            deadline,
            wave: 0,
            what: Doing::Write { record: entry.record, open },
        });
        (answers, again.collect())
    }

    /// As many messages as the values take. Beyond a bound in bytes the rest is to be asked for again.
    async fn read_jobs(&self, scope: Scope, mut jobs: Vec<Job>) -> (Answers, Vec<Job>) {
        let mut answers = Vec::with_capacity(jobs.len());
        let mut bytes = 0;
        let mut charge = self.settings.budget.open();
        while !jobs.is_empty() {
            if bytes >= READ_BYTES || bytes > 0 && self.settings.budget.is_spent() {
                let message =
                    format!("values of {} MiB are on their way; ask again for the rest", bytes >> 20);
                let rest = later(Reason::Busy, message, 10);
                answers.extend(jobs.into_iter().map(|job| (job.slot, refused(true, rest.clone()))));
                break;
            }
            let asked: Vec<(Position, Version)> = jobs
                .iter()
                .map(|job| match job.what {
                    Doing::Read { at_least } => (job.position.clone(), at_least),
                    Doing::Write { .. } => (job.position.clone(), Version::ZERO),
                })
                .collect();
            let got = match self.read(&scope, &[], &asked).await {
                // At least one is got each time; none would be asked for again for ever.
                Ok(got) if !got.is_empty() => got,
                Ok(_) => vec![Err(too_large())],
                Err(Short::Moved) => return (answers, jobs),
                Err(Short::Failed(rejected)) => {
                    let failed = |job: Job| (job.slot, refused(true, rejected.clone()));
                    answers.extend(jobs.into_iter().map(failed));
                    break;
                }
            };
            for (job, got) in jobs.drain(..got.len().min(asked.len())).zip(got) {
                let value = got.as_ref().ok().and_then(Option::as_ref).map_or(0, |record| record.value.len());
                bytes += value;
                charge.force(value);
                let outcome = match got {
                    Ok(record) => seen(record),
                    Err(rejected) => get_reply::Outcome::Failed(rejected),
                };
                answers.push((job.slot, get_answer(outcome)));
            }
        }
        (answers, Vec::new())
    }
}

fn refused(read: bool, rejected: Rejected) -> Answer {
    if read {
        get_answer(get_reply::Outcome::Failed(rejected))
    } else {
        write_answer(write_reply::Outcome::Rejected(rejected))
    }
}

/// The answer to a job that found no way.
fn stranded(job: Job, rejected: Rejected) -> (usize, Answer) {
    let answer = match job.what {
        Doing::Write { record, open: true } => {
            let message = format!("it may surface later; {}", rejected.message);
            write_answer(write_reply::Outcome::Unknown(Unknown {
                version: Some(record.version.into()),
                acks: 0,
                message,
            }))
        }
        Doing::Write { .. } => refused(false, rejected),
        Doing::Read { .. } => refused(true, rejected),
    };
    (job.slot, answer)
}

/// Jobs that may go at the same time, in the order in which they must: a write waits for what the batch has before
/// it at its position, a read for the last write there.
fn waves(mut jobs: Vec<Job>) -> Vec<Vec<Job>> {
    if jobs.len() < 2 {
        return vec![jobs];
    }
    let mut last: HashMap<Position, (u32, bool)> = HashMap::with_capacity(jobs.len());
    let mut highest = 0;
    for job in &mut jobs {
        let write = matches!(job.what, Doing::Write { .. });
        match last.get_mut(&job.position) {
            Some((wave, written)) => {
                *wave += u32::from(*written || write);
                *written = write;
                job.wave = *wave;
                highest = highest.max(*wave);
            }
            None => {
                last.insert(job.position.clone(), (0, write));
            }
        }
    }
    let mut waves: Vec<Vec<Job>> = (0..=highest).map(|_| Vec::new()).collect();
    for job in jobs {
        if let Some(wave) = waves.get_mut(job.wave as usize) {
            wave.push(job);
        }
    }
    waves
}

/// Cuts jobs where one message would grow too large.
fn chunks(jobs: Vec<Job>) -> Vec<Vec<Job>> {
    let mut out = vec![Vec::new()];
    let mut bytes = 0;
    for job in jobs {
        let size = match &job.what {
            Doing::Write { record, .. } => record.value.len() + job.position.as_bytes().len(),
            Doing::Read { .. } => job.position.as_bytes().len(),
        };
        if bytes > 0 && bytes + size > MESSAGE_BYTES {
            out.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(chunk) = out.last_mut() {
            chunk.push(job);
        }
    }
    out
}
