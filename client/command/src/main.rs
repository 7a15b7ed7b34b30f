//! The `god` command. One file a subcommand; what they share is in the files that no subcommand is named after.

// Texts are put together where they are read: `push_str(&format!(…))` for a line at a time.
#![allow(clippy::format_push_string)]

mod bench;
mod cli;
mod completion;
mod context;
mod count;
mod del;
mod dev;
mod doctor;
mod export;
mod failure;
mod figures;
mod follow;
mod get;
mod init;
mod input;
mod keyspace;
mod load;
mod operation;
mod options;
mod output;
mod progress;
mod put;
mod range;
mod rank;
mod records;
mod recover;
mod ring;
mod scan;
mod select;
mod status;
mod text;
mod yaml;

use clap::{CommandFactory as _, FromArgMatches as _};
use cli::{Cli, Command};
use context::Context;
use failure::Failure;
use god_manual::variables;
use std::process::ExitCode;

fn main() -> ExitCode {
    let command = Cli::command();
    let mut own = variables::read_by(&command);
    own.push(dev::NODE.to_owned());
    let typed = variables::without_empty(command).get_matches();
    let cli = Cli::from_arg_matches(&typed).unwrap_or_else(|error| error.exit());
    for warning in variables::misspelt("god", &own, std::env::vars_os().map(|(name, _)| name)) {
        output::say(&format!("god: {warning}"));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return end(&Failure::Usage(format!("cannot start threads: {error}"))),
    };
    let code = match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => end(&failure),
    };
    // A thread that reads a pipe or a terminal may never come back.
    runtime.shutdown_background();
    code
}

fn end(failure: &Failure) -> ExitCode {
    let text = failure.to_string();
    if !text.is_empty() {
        output::say(&format!("god: {text}"));
    }
    failure.exit_code()
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let global = cli.global;
    let context = Context::connect(&global);
    match cli.command {
        Command::Bench(args) => bench::run(&global, &args).await,
        Command::Completion(args) => completion::run(Cli::command(), &args),
        Command::Manual(args) => completion::manual(Cli::command(), &args),
        Command::Dev(args) => dev::run(&global, args).await,
        Command::Init(args) => init::run(&context.await?, &args).await,
        Command::Status(args) => status::run(&context.await?, &args).await,
        Command::Doctor(args) => doctor::run(&global, &context.await?, &args).await,
        Command::Recover(args) => recover::run(&context.await?, &args).await,
        Command::Ring(args) => ring::run(&context.await?, &args).await,
        Command::Keyspace(args) => keyspace::run(&context.await?, args).await,
        Command::Put(args) => put::run(&context.await?, &args).await,
        Command::Get(args) => get::run(&context.await?, &args).await,
        Command::Del(args) => del::run(&context.await?, &args).await,
        Command::Scan(args) => scan::run(&context.await?, &args).await,
        Command::Count(args) => count::run(&context.await?, &args).await,
        Command::Rank(args) => rank::run(&context.await?, &args).await,
        Command::Select(args) => select::run(&context.await?, &args).await,
        Command::Load(args) => load::run(&context.await?, &args).await,
        Command::Export(args) => export::run(&context.await?, &args).await,
    }
}
