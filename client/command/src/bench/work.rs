//! The load: clients that each wait for their answer before they ask again, as the tasks of a real program do.

use super::process::{MeasuredNodes, Process};
use crate::failure::Failure;
use bytes::Bytes;
use clap::ValueEnum;
use futures::{StreamExt as _, stream};
use god_client::{Error, Keyspace};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

/// Writes in flight while keys are loaded.
const LOADING: usize = 256;
/// How often a write of the loading is tried.
const LOAD_TRIES: u32 = 20;
/// Bytes from which values are cut: noise, so that no disk format makes them smaller than they are.
const NOISE: usize = 1 << 20;
/// The most windows that are told apart.
pub const MAX_WINDOWS: usize = 7_200;
/// How far behind its rate a client may be.
const MAX_BEHIND: Duration = Duration::from_secs(10);
/// The longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 60_000_000;

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// What the clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Overwrite keys
    Write,
    /// Read keys
    Read,
    /// Half of each
    Mixed,
}

impl Workload {
    pub fn name(self) -> &'static str {
        match self {
            Workload::Write => "write",
            Workload::Read => "read",
            Workload::Mixed => "mixed",
        }
    }
}

/// Keys and values.
#[derive(Clone)]
pub struct BenchData {
    pub keys: u64,
    value_size: usize,
    noise: Bytes,
}

impl BenchData {
    pub fn new(keys: u64, value_size: usize) -> BenchData {
        let mut noise = vec![0; NOISE.max(2 * value_size)];
        rand::fill(&mut noise[..]);
        BenchData { keys, value_size, noise: noise.into() }
    }

    fn key(number: u64) -> Bytes {
        format!("bench/{number:010}").into()
    }

    fn any_key(&self) -> Bytes {
        BenchData::key(rand::random_range(0..self.keys))
    }

    /// No copy: a part of the noise.
    fn value(&self) -> Bytes {
        let at = rand::random_range(0..=self.noise.len() - self.value_size);
        self.noise.slice(at..at + self.value_size)
    }
}

/// Writes every key once. Gives how long it took.
pub async fn load(
    keyspace: &Keyspace,
    data: &BenchData,
    mut at: impl FnMut(u64),
) -> Result<Duration, Failure> {
    let began = Instant::now();
    let write = |number| async move {
        let mut tries = 0;
        loop {
            match keyspace.put(BenchData::key(number), data.value()).await {
                Ok(_) => return Ok(()),
                Err(Error::Invalid(why)) => return Err(Failure::Usage(why)),
                Err(error) if tries == LOAD_TRIES => return Err(error.into()),
                // The same key may be written twice: nobody reads it yet.
                Err(_) => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    let mut writes = stream::iter(0..data.keys).map(write).buffer_unordered(LOADING);
    let mut written = 0;
    while let Some(outcome) = writes.next().await {
        outcome?;
        written += 1;
        at(written);
    }
    Ok(began.elapsed())
}

/// What one client saw.
struct ClientStats {
    latencies: Histogram<u64>,
    failed: u64,
    missing: u64,
    first_error: Option<String>,
}

/// What one workload with one number of clients came to.
#[derive(Debug, Serialize)]
pub struct Run {
    pub workload: Workload,
    pub clients: u32,
    pub seconds: f64,
    /// Calls that were answered as asked.
    pub ops: u64,
    pub ops_per_second: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
    /// Of all nodes together; none, where their processes are not known.
    pub server_cpu_us_per_op: Option<f64>,
    pub client_cpu_us_per_op: Option<f64>,
    /// Refused, unknown or unreachable, and reads that missed a key which is there.
    pub errors: u64,
    pub first_error: Option<String>,
    /// One after the other, where they were asked for.
    pub windows: Vec<Window>,
}

/// A part of the time that is measured.
#[derive(Debug, Serialize)]
pub struct Window {
    pub ops_per_second: f64,
    pub p99_us: u64,
}

/// How a workload is run and looked at.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    pub workload: Workload,
    pub clients: u32,
    pub warm_up: Duration,
    pub duration: Duration,
    /// Calls a second of all clients together; none: as many as are answered.
    pub rate: Option<u32>,
    /// The length of windows that are told apart.
    pub window: Option<Duration>,
}

/// Latencies of each window.
type Windows = Arc<Mutex<Vec<Histogram<u64>>>>;

/// Runs a workload: warms up, then measures.
pub async fn run(
    keyspace: &Keyspace,
    data: &BenchData,
    course: Course,
    nodes: &MeasuredNodes,
) -> Result<Run, Failure> {
    let Course { workload, clients, warm_up, duration, window, .. } = course;
    let windows = Windows::default();
    let phase = Arc::new(AtomicU8::new(WARMING));
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            tokio::spawn(client(
                keyspace.clone(),
                data.clone(),
                course,
                Arc::clone(&phase),
                Arc::clone(&windows),
            ))
        })
        .collect();
    tokio::time::sleep(warm_up).await;
    let me = Process::this();
    let (server, own) = (nodes.cpu(), me.cpu());
    let began = Instant::now();
    phase.store(MEASURING, Ordering::Relaxed);
    tokio::time::sleep(duration).await;
    phase.store(OVER, Ordering::Relaxed);
    let took = began.elapsed();
    let (server_after, own_after) = (nodes.cpu(), me.cpu());

    let mut all = fresh()?;
    let (mut errors, mut first_error) = (0, None);
    for task in tasks {
        let seen = task.await.map_err(|error| Failure::Refused(format!("a client ended: {error}")))??;
        all.add(&seen.latencies).map_err(|error| Failure::Refused(error.to_string()))?;
        errors += seen.failed + seen.missing;
        first_error = first_error.or(seen.first_error);
        if seen.missing > 0 {
            first_error = first_error.or(Some("a key that was loaded is not there".to_owned()));
        }
    }
    let ops = all.len();
    let per_op = |before: Option<Duration>, after: Option<Duration>| {
        let used = after?.saturating_sub(before?);
        (ops > 0).then(|| used.as_secs_f64() * 1e6 / ops as f64)
    };
    Ok(Run {
        workload,
        clients,
        seconds: took.as_secs_f64(),
        ops,
        ops_per_second: ops as f64 / took.as_secs_f64(),
        p50_us: all.value_at_quantile(0.5),
        p99_us: all.value_at_quantile(0.99),
        p999_us: all.value_at_quantile(0.999),
        max_us: all.max(),
        server_cpu_us_per_op: per_op(server, server_after),
        client_cpu_us_per_op: per_op(own, own_after),
        errors,
        first_error,
        windows: window.map_or_else(Vec::new, |window| told_apart(&windows.lock(), window, duration)),
    })
}

/// What each whole window came to. One in which nothing was answered counts as well.
fn told_apart(windows: &[Histogram<u64>], window: Duration, duration: Duration) -> Vec<Window> {
    let whole = (duration.as_millis() / window.as_millis().max(1)) as usize;
    let told = |at: usize| {
        let seen = windows.get(at);
        Window {
            ops_per_second: seen.map_or(0, Histogram::len) as f64 / window.as_secs_f64(),
            p99_us: seen.map_or(window.as_micros() as u64, |seen| seen.value_at_quantile(0.99)),
        }
    };
    (0..whole).map(told).collect()
}

/// Sorts a call into its window, by when it was answered.
fn note(windows: &Windows, began: Instant, window: Duration, took: Duration) -> Result<(), Failure> {
    let at = (began.elapsed().as_millis() / window.as_millis().max(1)) as usize;
    let mut windows = windows.lock();
    while windows.len() <= at.min(MAX_WINDOWS) {
        windows.push(fresh()?);
    }
    if let Some(seen) = windows.get_mut(at) {
        seen.saturating_record(took.as_micros() as u64);
    }
    Ok(())
}

/// Counts what is answered while it is measured; only that which did what was asked has a latency.
async fn client(
    keyspace: Keyspace,
    data: BenchData,
    course: Course,
    phase: Arc<AtomicU8>,
    windows: Windows,
) -> Result<ClientStats, Failure> {
    let Course { workload, clients, rate, window, .. } = course;
    // With a rate, calls are due at set times, and those that come late because others took long are late from then.
    let pause = rate.map(|rate| Duration::from_secs_f64(f64::from(clients) / f64::from(rate)));
    let mut due = Instant::now() + pause.unwrap_or_default().mul_f64(rand::random());
    let mut measuring: Option<Instant> = None;
    let mut seen = ClientStats { latencies: fresh()?, failed: 0, missing: 0, first_error: None };
    loop {
        let writes = match workload {
            Workload::Write => true,
            Workload::Read => false,
            Workload::Mixed => rand::random(),
        };
        let began = match pause {
            Some(pause) => {
                tokio::time::sleep_until(due.into()).await;
                // What is more than a while behind is given up.
                let began = due.max(Instant::now().checked_sub(MAX_BEHIND).unwrap_or(due));
                due = began + pause;
                began
            }
            None => Instant::now(),
        };
        let outcome = if writes {
            keyspace.put(data.any_key(), data.value()).await.map(|_| true)
        } else {
            keyspace.get(data.any_key()).await.map(|found| found.is_some())
        };
        let took = began.elapsed();
        match phase.load(Ordering::Relaxed) {
            WARMING => {}
            MEASURING => match outcome {
                Ok(true) => {
                    seen.latencies.saturating_record(took.as_micros() as u64);
                    if let Some(window) = window {
                        note(&windows, *measuring.get_or_insert_with(Instant::now), window, took)?;
                    }
                }
                Ok(false) => seen.missing += 1,
                Err(error) => {
                    seen.failed += 1;
                    seen.first_error.get_or_insert_with(|| error.to_string());
                }
            },
            _ => return Ok(seen),
        }
    }
}

fn fresh() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).map_err(|error| Failure::Refused(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_size_that_was_asked_for_and_differ() {
        let data = BenchData::new(10, 100);
        assert_eq!(data.value().len(), 100);
        assert_ne!(data.value(), data.value());
        assert_eq!(BenchData::new(1, 3 << 20).value().len(), 3 << 20);
        assert_eq!(BenchData::new(1, 0).value().len(), 0);
    }
}
