//! `god completion`: what a shell needs to complete commands and options.

use crate::{cli::Cli, failure::Failure};
use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;
use std::{
    collections::BTreeSet,
    io::{self, Write as _},
};

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
    io::stdout().write_all(script(args.shell).as_bytes()).map_err(|error| Failure::of_output(&error))
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    let mut command = Cli::command();
    clap_complete::generate(shell, &mut command, "god", &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if shell == Shell::Zsh {
        // A colon ends the name of a value there, and what comes after it would be run.
        for name in value_names(&command) {
            script = script.replace(&format!(":{name}:"), &format!(":{}:", name.replace(':', "\\:")));
        }
    }
    script
}

/// Names of values that have a colon, of all commands.
fn value_names(command: &Command) -> BTreeSet<String> {
    let own = command.get_opts().flat_map(|option| option.get_value_names().unwrap_or_default());
    let own = own.map(ToString::to_string).filter(|name| name.contains(':'));
    own.chain(command.get_subcommands().flat_map(value_names)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of an option's line in a zsh script, which unescaped colons part: the option, the name of its value,
    /// and how that is completed.
    fn parts(line: &str) -> usize {
        let mut escaped = false;
        let colon = |c: char| {
            let is = c == ':' && !escaped;
            escaped = c == '\\' && !escaped;
            is
        };
        line.split(colon).count()
    }

    #[test]
    fn zsh_takes_no_part_of_a_values_name_for_how_it_is_completed() {
        let script = script(Shell::Zsh);
        assert!(script.contains(":HOST\\:PORT,…:"), "{script}");
        let names = value_names(&Cli::command());
        assert!(names.len() > 3, "{names:?}");
        for line in script.lines().filter(|line| line.starts_with('\'') && line.contains("]:")) {
            assert_eq!(parts(line), 3, "{line}");
        }
    }
}
