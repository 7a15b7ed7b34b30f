//! `god-sim`: simulated clusters under faults, each repeatable by its seed.

use clap::{Parser, Subcommand};
use god_sim::{
    run::{Broken, RunReport, run},
    seeds::{self, Seeds},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Simulates clusters of GoD under partitions, crashes and clock jumps, and checks what their clients saw
#[derive(Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  god-sim run --seeds 200               seeds 1 to 200, on all processors
  god-sim run --seeds 0 --fresh 3       seeds that nobody has run, for three minutes
  god-sim run --seed 17 --trace         one seed again, with everything that happened"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs seeds until one breaks a promise
    Run {
        /// How many
        #[arg(long, default_value_t = 200, value_name = "N")]
        seeds: u64,
        /// The first of them
        #[arg(long, default_value_t = 1, value_name = "SEED")]
        from: u64,
        /// Before them, the seeds that a file has: a number begins each line, the rest of it says what it found
        #[arg(long, value_name = "FILE", conflicts_with = "seed")]
        known: Option<PathBuf>,
        /// After them, seeds that nobody has run, for so many minutes; what goes wrong prints how to run it again
        #[arg(long, value_name = "MINUTES", conflicts_with = "seed")]
        fresh: Option<u32>,
        /// The first of those; by the clock where it is not given
        #[arg(long, value_name = "SEED", requires = "fresh")]
        fresh_from: Option<u64>,
        /// Just this one
        #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "from"])]
        seed: Option<u64>,
        /// Prints what went wrong and what the clients did
        #[arg(long)]
        trace: bool,
        /// How many at a time [default: one a processor]
        #[arg(long, value_name = "N")]
        jobs: Option<usize>,
    },
}

fn main() -> ExitCode {
    let Command::Run { seeds, from, known, fresh, fresh_from, seed, trace, jobs } = Cli::parse().command;
    let known = match known.as_deref().map_or(Ok(Vec::new()), read_seeds) {
        Ok(known) => known,
        Err(problem) => {
            eprintln!("god-sim: {problem}");
            return ExitCode::from(2);
        }
    };
    let (from, count) = seed.map_or((from, seeds), |seed| (seed, 1));
    let fresh =
        fresh.map(|minutes| (fresh_from.unwrap_or_else(first_fresh), Duration::from_secs(60) * minutes));
    if let Some((first, most)) = fresh {
        println!("then fresh seeds from {first} on, for {} s", most.as_secs());
    }
    let seeds = Seeds { known, from, count, fresh };
    let jobs = jobs.or(std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1).max(1);
    let began = Instant::now();
    let (next, fresh_since, ends) = (AtomicU64::new(0), OnceLock::<Instant>::new(), AtomicBool::new(false));
    // The seed to run next; the first fresh one begins their time.
    let take = || {
        let place = next.fetch_add(1, Relaxed);
        let since = match place < seeds.listed() {
            true => Duration::ZERO,
            false => fresh_since.get_or_init(Instant::now).elapsed(),
        };
        if ends.load(Relaxed) { None } else { seeds.at(place, since) }
    };
    let (send, receive) = mpsc::channel::<RunReport>();
    let mut total = Total::default();
    let broken = std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (send, take) = (send.clone(), &take);
            scope.spawn(move || {
                while let Some(seed) = take() {
                    if send.send(run(seed, Broken::Nothing)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        let mut broken = Vec::new();
        for outcome in receive {
            total.add(&outcome);
            if trace {
                print_trace(&outcome);
            }
            if total.runs.is_multiple_of(20) {
                let of = seeds.listed().max(total.runs);
                println!("{:4} of {of} seeds, {:.1} s", total.runs, began.elapsed().as_secs_f64());
            }
            if !outcome.problems.is_empty() {
                // No new ones; those that run are waited for.
                ends.store(true, Relaxed);
                broken.push(outcome);
            }
        }
        broken
    });
    total.print(began);
    broken.iter().for_each(print_broken);
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The seeds that a file lists.
fn read_seeds(file: &Path) -> Result<Vec<u64>, String> {
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    seeds::read(&text)
        .map_err(|(at, line)| format!("{}:{at}: {line:?} does not begin with a seed", file.display()))
}

/// Where seeds begin that nobody has run: by the second, with room for those of one run before those of the next.
fn first_fresh() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() * 1_000
}

/// What all runs were, together: so that a reader sees that something happened in them.
#[derive(Default)]
struct Total {
    runs: u64,
    committed: usize,
    unknown: usize,
    rejected: usize,
    read: usize,
    surveys: usize,
    faults: BTreeMap<&'static str, usize>,
}

impl Total {
    fn add(&mut self, outcome: &RunReport) {
        self.runs += 1;
        self.committed += outcome.committed();
        self.unknown += outcome.unknown();
        self.rejected += outcome.rejected();
        self.read += outcome.read();
        self.surveys += outcome.surveys;
        for (_, fault) in &outcome.faults {
            *self.faults.entry(fault.kind()).or_default() += 1;
        }
    }

    fn print(&self, began: Instant) {
        let each = |(kind, count): (&&str, &usize)| format!("{count} {kind}");
        let faults: Vec<String> = self.faults.iter().map(each).collect();
        println!("{} seeds in {:.1} s", self.runs, began.elapsed().as_secs_f64());
        println!(
            "writes acknowledged {}, of unknown outcome {}; refused operations {}; reads answered {}, listings and counts {}",
            self.committed, self.unknown, self.rejected, self.read, self.surveys
        );
        println!("faults: {}", faults.join(", "));
    }
}

fn print_trace(outcome: &RunReport) {
    println!("seed {}: {}; fingerprint {:016x}", outcome.seed, outcome.setting, outcome.fingerprint);
    outcome.faults.iter().for_each(|(at, fault)| println!("  {:10.6}  {fault}", *at as f64 / 1e6));
    outcome.history.iter().for_each(|event| println!("  {event}"));
}

fn print_broken(outcome: &RunReport) {
    eprintln!("\nseed {} broke a promise ({})", outcome.seed, outcome.setting);
    outcome.faults.iter().for_each(|(at, fault)| eprintln!("  {:10.6}  {fault}", *at as f64 / 1e6));
    outcome.problems.iter().for_each(|problem| eprintln!("{problem}"));
    eprintln!("again: god-sim run --seed {} --trace", outcome.seed);
}
