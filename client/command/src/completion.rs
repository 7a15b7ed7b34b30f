//! `god completion` and `god manual`: what shells and `man` are told of this command.

use crate::{failure::Failure, options::Output, output};
use clap::{Args, Command};
use god_manual::{Shell, completion, pages};
use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

/// Prints completions for a shell
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god completion bash > /etc/bash_completion.d/god
  god completion zsh > ~/.zfunc/_god
  god completion fish > ~/.config/fish/completions/god.fish

`make install` puts them where each shell looks.")]
pub struct CompletionArgs {
    /// Which shell
    shell: Shell,
}

/// Of the whole command line.
pub fn run(command: Command, args: &CompletionArgs) -> Result<(), Failure> {
    let script = completion(command, args.shell);
    io::stdout().write_all(script.as_bytes()).map_err(|error| Failure::of_output(&error))
}

/// Writes the manual pages into a directory
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god manual ~/.local/share/man/man1

`make install` puts them where `man` looks.")]
pub struct ManualArgs {
    /// The directory; it is made if it is not there
    directory: PathBuf,
}

/// Of the whole command line.
pub fn manual(command: Command, args: &ManualArgs) -> Result<(), Failure> {
    let write = || -> io::Result<usize> {
        let pages = pages(command, "1", "GoD")?;
        fs::create_dir_all(&args.directory)?;
        for page in &pages {
            fs::write(args.directory.join(&page.file), &page.text)?;
        }
        Ok(pages.len())
    };
    let count = write().map_err(|error| {
        Failure::Usage(format!("cannot write manual pages into {}: {error}", args.directory.display()))
    })?;
    output::report(Output::Table, &count.into(), || format!("{count} pages in {}", args.directory.display()));
    Ok(())
}
