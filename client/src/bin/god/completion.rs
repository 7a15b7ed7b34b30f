//! `god completion`: what a shell needs to complete commands and options.

use crate::{cli::Cli, failure::Failure};
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use std::io::{self, Write as _};

/// Prints completions for a shell
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god completion bash > /etc/bash_completion.d/god
  god completion zsh > ~/.zfunc/_god
  god completion fish > ~/.config/fish/completions/god.fish")]
pub struct CompletionArgs {
    /// Which shell
    shell: Shell,
}

pub fn run(args: &CompletionArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "god", &mut script);
    io::stdout().write_all(&script).map_err(|error| Failure::of_output(&error))
}
