//! Writing the records: a bounded number in flight, those of one key in the file's order, patient with a busy cluster.

use super::{
    feed::{Fed, Source},
    turns::Turns,
};
use crate::{
    context::Context, failure::Failure, figures::counted, progress::ProgressDisplay, records::FileRecord,
};
use bytes::Bytes;
use futures::{StreamExt as _, stream::FuturesUnordered};
use god_client::{Error, Reason};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// How often a write is tried again while the cluster is busy.
const BUSY_TRIES: u32 = 50;
/// The wait in between where the cluster names none.
const BUSY_LEAST: Duration = Duration::from_millis(5);
/// The longest wait in between.
const BUSY_WAIT: Duration = Duration::from_secs(1);
/// Problems that are told one by one; the rest are counted.
const TOLD: u64 = 10;
/// Lines that wait for an earlier one of their key, at most: no more is read while there are so many.
const MAX_WAITING: usize = 1_024;
/// Refused and unknown writes after which it makes no sense to go on.
const GIVE_UP: u64 = 1_000;

/// What came of a load.
#[derive(Debug, Default)]
pub struct LoadSummary {
    pub loaded: u64,
    pub bad_lines: u64,
    pub refused: u64,
    pub unknown: u64,
    pub took: Duration,
}

impl LoadSummary {
    /// What was not loaded, and the exit code that goes with it.
    pub fn verdict(&self) -> Result<(), Failure> {
        let mut missed = Vec::new();
        if self.bad_lines > 0 {
            missed.push(format!("{} bad", counted(self.bad_lines, "line")));
        }
        if self.refused > 0 {
            missed.push(format!("{} refused", counted(self.refused, "key")));
        }
        if self.unknown > 0 {
            missed.push(format!("{} of unknown outcome", counted(self.unknown, "key")));
        }
        if missed.is_empty() {
            return Ok(());
        }
        let text = format!("not all was loaded: {} (loading again is safe)", missed.join(", "));
        Err(if self.unknown > 0 { Failure::Unknown(text) } else { Failure::Refused(text) })
    }
}

/// A line to write.
struct PendingLine {
    line: u64,
    offset: u64,
    record: FileRecord,
}

/// One line's way.
enum Done {
    Written {
        offset: u64,
    },
    Bad {
        line: u64,
        problem: String,
    },
    Failed {
        line: u64,
        failure: Failure,
    },
    /// Nothing more can come.
    Over(Failure),
}

/// Writes all of a source.
pub async fn write(
    context: &Context,
    source: Source,
    in_flight: usize,
    quiet: bool,
) -> Result<LoadSummary, Failure> {
    let mut progress = ProgressDisplay::new("loading", source.length(), quiet);
    let mut summary = LoadSummary::default();
    let mut offset = 0;
    let mut fed = source.feed()?;
    let (mut at_end, mut interrupted) = (false, false);
    let mut stopped = None;
    let mut turns = Turns::default();
    let mut writes = FuturesUnordered::new();
    let mut interrupts = signal(SignalKind::interrupt())
        .map_err(|error| Failure::Usage(format!("cannot watch for Ctrl-C: {error}")))?;
    loop {
        let room = !at_end && writes.len() < in_flight && turns.waiting() < MAX_WAITING;
        let done = tokio::select! {
            biased;
            Some(()) = interrupts.recv(), if room || !writes.is_empty() => {
                // What is under way is waited for, which its deadline bounds, so that it can be told. Only once.
                if interrupted {
                    let open = counted(writes.len() as u64, "write");
                    stopped = Some(Failure::Unknown(format!("interrupted; the outcome of {open} is unknown")));
                    break;
                }
                interrupted = true;
                progress.say("stopping: writes under way are waited for (Ctrl-C again: they are not)");
                if !at_end {
                    let rest = "interrupted: the rest of the file is not loaded";
                    stopped = Some(Failure::Interrupted(rest.to_owned()));
                }
                at_end = true;
                continue;
            }
            Some((key, done)) = writes.next(), if !writes.is_empty() => {
                if let Some(next) = turns.ended(&key) {
                    writes.push(write_one(context, next));
                }
                done
            }
            read = fed.recv(), if room => match read {
                Some(Fed::Record { line, offset, record }) => {
                    let key = record.key.clone();
                    if let Some(pending) = turns.comes(&key, PendingLine { line, offset, record }) {
                        writes.push(write_one(context, pending));
                    }
                    continue;
                }
                Some(Fed::Bad { line, problem }) => Done::Bad { line, problem },
                // What was read before is written and told first.
                Some(Fed::Failed(error)) => {
                    stopped = Some(source.failed(&error));
                    at_end = true;
                    continue;
                }
                None => {
                    at_end = true;
                    continue;
                }
            },
            else => break,
        };
        let problem = match done {
            Done::Written { offset: at } => {
                summary.loaded += 1;
                offset = offset.max(at);
                progress.at(offset, summary.loaded);
                continue;
            }
            Done::Over(failure) => {
                progress.finish();
                return Err(failure);
            }
            Done::Bad { line, problem } => {
                summary.bad_lines += 1;
                format!("line {line}: {problem}")
            }
            Done::Failed { line, failure } => {
                match failure {
                    Failure::Unknown(_) => summary.unknown += 1,
                    _ => summary.refused += 1,
                }
                format!("line {line}: {failure}")
            }
        };
        let problems = summary.bad_lines + summary.refused + summary.unknown;
        if problems <= TOLD {
            progress.say(&problem);
        }
        if problems == TOLD {
            progress.say("further lines that are not loaded are counted, not told");
        }
        if summary.refused + summary.unknown >= GIVE_UP {
            progress.say(&format!("gave up after {} refused or unknown", counted(GIVE_UP, "key")));
            break;
        }
    }
    let Some(failure) = stopped else {
        summary.took = progress.finish();
        return Ok(summary);
    };
    if summary.loaded > 0 {
        let loaded = counted(summary.loaded, "key");
        progress.say(&format!("stopped; before that {loaded} had been loaded (loading again is safe)"));
    }
    progress.finish();
    Err(failure)
}

async fn write_one(context: &Context, pending: PendingLine) -> (Bytes, Done) {
    let PendingLine { line, offset, record } = pending;
    let key = record.key.clone();
    let done = match put(context, record).await {
        Ok(()) => Done::Written { offset },
        Err(failure) if is_final(&failure) => Done::Over(failure),
        Err(failure) => Done::Failed { line, failure },
    };
    (key, done)
}

/// Whether the next line would fare no better.
fn is_final(failure: &Failure) -> bool {
    match failure {
        Failure::Rejected(rejected) => {
            matches!(rejected.reason, Reason::NoSuchKeyspace | Reason::NotInitialised | Reason::DiskFull)
        }
        Failure::Refused(_) | Failure::Unknown(_) | Failure::NotFound(_) => false,
        Failure::Usage(_)
        | Failure::Unreachable(_)
        | Failure::OutputClosed
        | Failure::Interrupted(_)
        | Failure::Found { .. } => true,
    }
}

/// Writes a record; again and again while the cluster is busy.
async fn put(context: &Context, record: FileRecord) -> Result<(), Failure> {
    let mut tries = 0;
    loop {
        match context.put(record.key.clone(), record.value.clone()).await {
            Err(Error::Refused { reason: Reason::Busy, retry_after, .. }) if tries < BUSY_TRIES => {
                tries += 1;
                tokio::time::sleep(retry_after.unwrap_or(BUSY_LEAST).min(BUSY_WAIT)).await;
            }
            outcome => return Ok(outcome.map(|_| ())?),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_load_is_done_only_when_every_line_is() {
        assert!(LoadSummary { loaded: 3, ..LoadSummary::default() }.verdict().is_ok());
        let bad = LoadSummary { bad_lines: 1, ..LoadSummary::default() }.verdict().unwrap_err();
        assert!(matches!(&bad, Failure::Refused(text) if text.contains("1 line bad")), "{bad}");
        let open = LoadSummary { refused: 2, unknown: 1, ..LoadSummary::default() }.verdict().unwrap_err();
        assert!(
            matches!(&open, Failure::Unknown(text) if text.contains("2 keys refused, 1 key of")),
            "{open}"
        );
    }
}
