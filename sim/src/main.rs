//! `god-sim`: simulated clusters under faults, each repeatable by its seed.

use clap::{Parser, Subcommand};
use god_sim::run::{Broken, Outcome, run};
use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::{
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::Instant,
};

/// Simulates clusters of GoD under partitions, crashes and clock jumps, and checks what their clients saw
#[derive(Parser)]
#[command(
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  god-sim run --seeds 200               seeds 1 to 200, on all processors
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
    let Command::Run { seeds, from, seed, trace, jobs } = Cli::parse().command;
    let (from, seeds) = seed.map_or((from, seeds), |seed| (seed, 1));
    let jobs = jobs.or(std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1).max(1);
    let began = Instant::now();
    let next = AtomicU64::new(from);
    let (send, receive) = mpsc::channel::<Outcome>();
    let mut total = Total::default();
    let broken = std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (send, next) = (send.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= from.saturating_add(seeds) || send.send(run(seed, Broken::Nothing)).is_err() {
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
                println!("{:4} of {seeds} seeds, {:.1} s", total.runs, began.elapsed().as_secs_f64());
            }
            if !outcome.problems.is_empty() {
                // No new ones; those that run are waited for.
                next.store(u64::MAX, Relaxed);
                broken.push(outcome);
            }
        }
        broken
    });
    total.print(began);
    broken.iter().for_each(print_broken);
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
    fn add(&mut self, outcome: &Outcome) {
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

fn print_trace(outcome: &Outcome) {
    println!("seed {}: {}; fingerprint {:016x}", outcome.seed, outcome.setting, outcome.fingerprint);
    outcome.faults.iter().for_each(|(at, fault)| println!("  {:10.6}  {fault}", *at as f64 / 1e6));
    outcome.history.iter().for_each(|event| println!("  {event}"));
}

fn print_broken(outcome: &Outcome) {
    eprintln!("\nseed {} broke a promise ({})", outcome.seed, outcome.setting);
    outcome.faults.iter().for_each(|(at, fault)| eprintln!("  {:10.6}  {fault}", *at as f64 / 1e6));
    outcome.problems.iter().for_each(|problem| eprintln!("{problem}"));
    eprintln!("again: god-sim run --seed {} --trace", outcome.seed);
}
