//! The environment: which variables a program reads, that an empty one is as good as none, and what is misspelt.

use clap::{
    Command,
    builder::{OsStr, Resettable},
};
use std::{env, ffi::OsString};

const PREFIX: &str = "GOD_";

/// A variable that says something.
pub fn set(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// The command line's options without variables that are empty: their defaults hold, as without them.
pub fn without_empty(command: Command) -> Command {
    command.mut_args(|arg| {
        let empty = arg.get_env().is_some_and(|name| name.to_str().is_none_or(|name| set(name).is_none()));
        if empty { arg.env(Resettable::<OsStr>::Reset) } else { arg }
    })
}

/// The variables that a program's options are given by.
pub fn read_by(command: &Command) -> Vec<String> {
    let names = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str().map(str::to_owned));
    names.filter(|name| name.starts_with(PREFIX)).collect()
}

/// What is to be said of variables that `program` does not read, and that are nearly one of its `own`. Of those that
/// are far from it nothing: other programs have variables of their own, and Kubernetes makes some for every service.
pub fn misspelt(program: &str, own: &[String], names: impl Iterator<Item = OsString>) -> Vec<String> {
    let mut all: Vec<String> = names
        .filter_map(|name| name.into_string().ok())
        .filter_map(|name| of_misspelt(program, own, &name))
        .collect();
    all.sort();
    all
}

fn of_misspelt(program: &str, own: &[String], name: &str) -> Option<String> {
    let upper = name.to_uppercase();
    let rest = upper.strip_prefix(PREFIX)?;
    if own.iter().any(|own| own == name) {
        return None;
    }
    let nearest = own.iter().min_by_key(|own| distance(own, &upper))?;
    // Of a short name one letter, else it is another word.
    let near = distance(nearest, &upper) <= nearest.len().saturating_sub(PREFIX.len()).min(rest.len()) / 3;
    near.then(|| format!("warning: {name} is no variable of {program} and does nothing; is {nearest} meant?"))
}

/// Letters to be put in, left out or changed to make one of the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, a) in one.bytes().enumerate() {
        let mut before = line;
        let mut left = line + 1;
        for (above, b) in row.iter_mut().skip(1).zip(other.bytes()) {
            let here = (before + usize::from(a != b)).min(*above + 1).min(left + 1);
            before = std::mem::replace(above, here);
            left = here;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `god` reads.
    fn own() -> Vec<String> {
        ["GOD_NODE", "GOD_SERVER", "GOD_KEYSPACE", "GOD_OUTPUT"].map(str::to_owned).into()
    }

    #[test]
    fn a_distance_counts_the_letters_that_differ() {
        for (one, other, letters) in
            [("", "", 0), ("abc", "", 3), ("", "ab", 2), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(distance(one, other), letters, "{one} {other}");
            assert_eq!(distance(other, one), letters, "{other} {one}");
        }
    }

    #[test]
    fn a_misspelt_variable_is_told_with_the_nearest_name() {
        for (name, meant) in [
            ("GOD_SERVERS", "GOD_SERVER"),
            ("GOD_SEVER", "GOD_SERVER"),
            ("god_server", "GOD_SERVER"),
            ("GOD_KEYSPACES", "GOD_KEYSPACE"),
            ("GOD_KEY_SPACE", "GOD_KEYSPACE"),
            ("GOD_OUPTUT", "GOD_OUTPUT"),
            ("GOD_NODES", "GOD_NODE"),
        ] {
            let said = misspelt("god", &own(), [name.into()].into_iter());
            assert!(
                said.first().is_some_and(|said| said.contains(name) && said.contains(meant)),
                "{name}: {said:?}"
            );
        }
    }

    #[test]
    fn variables_of_others_are_none_of_its_business() {
        for name in [
            "GOD_SERVER",
            "GOD_KEYSPACE",
            "GOD_OUTPUT",
            "GOD_NODE",
            "GOD_SEEDS",
            "GOD_ZONE",
            "GOD_JOIN",
            "GOD_DATA",
            "GOD_CONFIG",
            "GOD_CLUSTER",
            "GOD_PORT",
            "GOD_SERVICE_HOST",
            "GOD_SERVICE_PORT",
            "GOD_PORT_7000_TCP",
            "GOD_SERVER_SERVICE_HOST",
            "GOD_SERVER_PORT",
            "GODOT_SERVER",
            "GOD_",
            "GOD",
            "PATH",
        ] {
            assert!(misspelt("god", &own(), [name.into()].into_iter()).is_empty(), "{name}");
        }
    }
}
