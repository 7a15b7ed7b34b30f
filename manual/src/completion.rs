//! What a shell needs to complete commands and options.

use clap::Command;
use clap_complete::Shell;
use std::collections::BTreeSet;

/// The script that completes a command in a shell.
pub fn completion(mut command: Command, shell: Shell) -> String {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        // A colon ends the name of a value there, and what comes after it would be run.
        Shell::Zsh => {
            for name in value_names(&command) {
                script = script.replace(&format!(":{name}:"), &format!(":{}:", name.replace(':', "\\:")));
            }
        }
        // What is said of values stands within double quotes there.
        Shell::Fish => {
            for help in value_helps(&command) {
                let quoted = help.replace('\\', "\\\\").replace('\'', "\\'");
                let twice = quoted.replace('"', "\\\"").replace('$', "\\$");
                script = script.replace(&format!("\\t'{quoted}'"), &format!("\\t'{twice}'"));
            }
        }
        _ => {}
    }
    script
}

/// What is said of values and means something within double quotes, of all commands.
fn value_helps(command: &Command) -> BTreeSet<String> {
    let values = command.get_arguments().flat_map(|argument| argument.get_possible_values());
    let own = values.filter_map(|value| value.get_help().map(ToString::to_string));
    let own = own.filter(|help| help.contains(['"', '$']));
    own.chain(command.get_subcommands().flat_map(value_helps)).collect()
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
    use clap::{
        Arg,
        builder::{PossibleValue, PossibleValuesParser},
    };

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
        let option = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
        let command = Command::new("try")
            .arg(option("server", "HOST:PORT,…").help("Nodes: any"))
            .subcommand(Command::new("ring").args([option("replace", "OLD:NEW"), option("id", "ID")]));
        let script = completion(command.clone(), Shell::Zsh);
        assert!(script.contains(":HOST\\:PORT,…:") && script.contains(":OLD\\:NEW:"), "{script}");
        assert_eq!(value_names(&command).len(), 2);
        let mut lines = 0;
        for line in script.lines().filter(|line| line.starts_with('\'') && line.contains("]:")) {
            assert_eq!(parts(line), 3, "{line}");
            lines += 1;
        }
        assert!(lines >= 3, "{script}");
    }

    #[test]
    fn what_is_said_of_a_value_ends_no_string_in_fish() {
        let values =
            PossibleValuesParser::new([PossibleValue::new("json").help("{\"key\": $key}, it's a line")]);
        let command = Command::new("try")
            .subcommand(Command::new("load").arg(Arg::new("as").long("as").value_parser(values)));
        let script = completion(command, Shell::Fish);
        assert!(script.contains(r#"json\t'{\"key\": \$key}, it\'s a line'"#), "{script}");
    }
}
