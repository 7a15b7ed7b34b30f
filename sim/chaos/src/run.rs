//! A run: rounds of trouble under a load, and after each of them all that must hold.

use crate::{
    cluster::Cluster,
    diary::Diary,
    large::AT_ONCE,
    load::{Load, is_of_set},
    plan::{Fault, FaultPlan, Trouble},
};
use anyhow::{Context as _, bail};
use god_history::{Event, Violation, check_register, check_set, check_surveys};
use std::{
    fmt::Write as _,
    fs, mem,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// Between two looks at the nodes.
const LOOK: Duration = Duration::from_millis(250);
/// How much of a key's history is printed; all of it is in a file.
const PRINTED: usize = 60;

/// What a run is given.
pub struct Run {
    /// What happens.
    pub plan: FaultPlan,
    /// Rounds begin until so long has passed.
    pub lasts: Duration,
    /// Or so many, if said.
    pub rounds: Option<u64>,
    /// The program of a node.
    pub program: PathBuf,
    /// Where logs are kept.
    pub logs: PathBuf,
}

/// Plays it.
///
/// # Errors
/// Says which promise was broken, and what shows it.
pub async fn run(run: &Run) -> anyhow::Result<()> {
    let diary = Arc::new(Diary::begin(&run.logs.join("diary.txt"))?);
    let mut cluster = Cluster::found(run.plan.nodes, &run.program, &run.logs, Arc::clone(&diary)).await?;
    diary.note(format_args!("{} nodes are a cluster", run.plan.nodes));
    let clients = cluster.connect().await?;
    let load = Arc::new(Load::new(Arc::clone(&diary)));
    let client = clients.first().context("there is no client")?;
    load.write_large(client).await?;
    let working = load.start(run.plan.seed, &clients);
    let played = play(run, &diary, &mut cluster, &load).await;
    load.stop();
    working.ended().await?;
    if played.is_err() {
        cluster.summary();
    }
    played?;
    judge(&run.logs, &load)?;
    let came = *load.large.lock();
    diary.note(format_args!(
        "{} values of 1 MiB were asked for, {AT_ONCE} at once: {} came, {} were refused, the rest had no answer",
        came.asked, came.found, came.refused
    ));
    load.ask_each_at_once(clients.len()).await?;
    cluster.look()?;
    cluster.summary();
    cluster.wait_for_hints().await?;
    let listed = load.read_back(client).await?;
    judge(&run.logs, &load)?;
    let history = load.history.lock();
    let set: Vec<Event> = history.iter().copied().filter(is_of_set).collect();
    kept(&run.logs, &history, check_set(&set, &listed))?;
    diary.note(format_args!("{} keys of the set are there, each as it must be", listed.len()));
    Ok(())
}

async fn play(run: &Run, diary: &Diary, cluster: &mut Cluster, load: &Load) -> anyhow::Result<()> {
    cluster.heal().await?;
    let began = Instant::now();
    for number in 0.. {
        let is_enough = match run.rounds {
            Some(rounds) => number >= rounds,
            None => began.elapsed() >= run.lasts,
        };
        if is_enough {
            break;
        }
        diary.note(format_args!("round {number}"));
        let written = load.written.load(Relaxed);
        round(cluster, &run.plan.round(number)).await?;
        cluster.heal().await?;
        let open = load.pause().await;
        judge(&run.logs, load)?;
        drop(open);
        diary.note(format_args!(
            "round {number} is over: {} writes acknowledged in it; in all {}, {} reads, {} refusals, {} unknown",
            load.written.load(Relaxed) - written,
            load.written.load(Relaxed),
            load.read.load(Relaxed),
            load.refused.load(Relaxed),
            load.unknown.load(Relaxed),
        ));
    }
    Ok(())
}

/// What begins and what ends, in the order of time.
fn steps(troubles: &[Trouble]) -> Vec<(Duration, Fault, Option<Duration>)> {
    let begin = troubles.iter().map(|it| (it.from, it.fault, Some(it.until.saturating_sub(it.from))));
    let end = troubles.iter().map(|it| (it.until, it.fault, None));
    let mut steps: Vec<_> = begin.chain(end).collect();
    steps.sort_by_key(|(at, ..)| *at);
    steps
}

async fn round(cluster: &mut Cluster, troubles: &[Trouble]) -> anyhow::Result<()> {
    let began = Instant::now();
    for (at, fault, lasts) in steps(troubles) {
        while began.elapsed() < at {
            cluster.look()?;
            cluster.all_run()?;
            sleep(LOOK.min(at.saturating_sub(began.elapsed()))).await;
        }
        match lasts {
            Some(lasts) => cluster.begin(fault, lasts)?,
            None => cluster.end(fault).await?,
        }
    }
    Ok(())
}

/// Judges what clients saw so far. No call may be under way: what a read found may be what it writes.
fn judge(logs: &Path, load: &Load) -> anyhow::Result<()> {
    if let Some(hung) = load.hung.lock().first() {
        bail!("a call did not end: {hung}");
    }
    let history = load.history.lock();
    // A pair that a scan gave is held to what a read is held to.
    let scanned = mem::take(&mut *load.scanned.lock());
    let seen: Vec<Event> = history.iter().copied().chain(scanned).collect();
    kept(logs, &seen, check_register(&seen))?;
    let surveys = mem::take(&mut *load.surveys.lock());
    let set: Vec<Event> = history.iter().copied().filter(is_of_set).collect();
    kept(logs, &history, check_surveys(&set, &surveys))
}

/// With a broken promise goes the history of its key.
fn kept(logs: &Path, history: &[Event], verdict: Result<(), Violation>) -> anyhow::Result<()> {
    let Err(violation) = verdict else { return Ok(()) };
    let mut text = format!("a promise was broken: {violation}");
    if let Some(shown) = violation.events.first() {
        let mut events: Vec<&Event> = history.iter().filter(|event| event.key == shown.key).collect();
        events.sort_by_key(|event| event.called);
        let lines: Vec<String> = events.iter().map(ToString::to_string).collect();
        let path = logs.join(format!("key-{}.txt", shown.key));
        fs::write(&path, lines.join("\n"))?;
        // Those around the last one that the verdict names.
        let last = violation.events.iter().map(|event| event.called).max().unwrap_or(0);
        let end = events.partition_point(|event| event.called <= last + 1_000_000);
        let nearby = &lines[end.saturating_sub(PRINTED)..end];
        writeln!(text, "the key's history up to then ({} has all of it):", path.display())?;
        nearby.iter().try_for_each(|line| writeln!(text, "  {line}"))?;
    }
    bail!(text)
}
