//! Settings that are invalid, and the ones that are.

use clap::CommandFactory as _;
use god_node::settings::Cli;
use std::process::{Command, Output};

fn node(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_god-node")).env_clear().args(arguments).output().unwrap()
}

fn with(variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_god-node"));
    command.env_clear().arg("--print-config").envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let command = Cli::command();
    let all: Vec<&str> =
        command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    assert!(all.len() > 35 && all.contains(&"GOD_SEEDS") && all.contains(&"GOD_CONFIG"), "{all:?}");
    let empty: Vec<(&str, &str)> = all.iter().map(|name| (*name, "")).collect();
    let printed = with(&empty);
    assert_eq!(printed.status.code(), Some(0), "{}", String::from_utf8_lossy(&printed.stderr));
    assert_eq!(String::from_utf8_lossy(&printed.stdout), String::from_utf8_lossy(&with(&[]).stdout));
    assert!(printed.stderr.is_empty(), "{}", String::from_utf8_lossy(&printed.stderr));
    let listed = with(&[("GOD_SEEDS", "a:1, b:2,")]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("seeds: [\"a:1\", \"b:2\"]"), "{listed:?}");
}

#[test]
fn a_misspelt_variable_is_told_with_the_nearest_name_and_those_of_others_are_not() {
    for (name, meant) in [
        ("GOD_SEED", "GOD_SEEDS"),
        ("GOD_SEDS", "GOD_SEEDS"),
        ("GOD_ZONES", "GOD_ZONE"),
        ("god_memory", "GOD_MEMORY"),
        ("GOD_WRITE_QUORUMS", "GOD_WRITE_QUORUM"),
        ("GOD_ADVERTISE_GPRC", "GOD_ADVERTISE_GRPC"),
    ] {
        let said = String::from_utf8(with(&[(name, "1")]).stderr).unwrap();
        assert!(said.contains(name) && said.contains(&format!("is {meant} meant?")), "{name}: {said}");
    }
    for name in [
        "GOD_SERVER",
        "GOD_KEYSPACE",
        "GOD_OUTPUT",
        "GOD_NODE",
        "GOD_IMAGE",
        "GOD_CACHE",
        "GOD_PORT",
        "GOD_SERVICE_HOST",
        "GOD_SERVICE_PORT",
        "GOD_SERVICE_PORT_GRPC",
        "GOD_PORT_7000_TCP",
        "GOD_PORT_7000_TCP_ADDR",
        "GOD_PEERS_SERVICE_HOST",
        "GOD_PEERS_PORT",
        "GOD_OPERATOR_HTTP_ADDRESS",
        "GODOT",
        "GOD_",
        "GOD",
        "PATH",
    ] {
        let printed = with(&[(name, "1")]);
        assert!(printed.status.success() && printed.stderr.is_empty(), "{name}: {printed:?}");
    }
}

#[test]
fn impossible_settings_are_refused_by_name() {
    for (arguments, words) in [
        (&["--write-quorum", "4"][..], "write-quorum 4 exceeds replicas 3"),
        (&["--read-quorum", "9", "--replicas", "5"], "read-quorum 9 exceeds replicas 5"),
        (&["--replicas", "0"], "replicas 0"),
        (&["--weight=-1"], "weight -1"),
        (&["--memory", "1KiB"], "memory"),
        (&["--gossip-fanout", "0"], "gossip-fanout 0"),
        (&["--seed", "nowhere"], "seed \"nowhere\" is not HOST:PORT"),
        (&["--grpc-address", "0.0.0.0:0"], "grpc-address"),
        (&["--color", "blue"], "--color"),
    ] {
        let output = node(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?} should be refused by {words:?}, not by: {said}");
    }
}

#[test]
fn an_unknown_setting_in_the_file_is_refused_by_name() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "replicas: 3\nreplicsa: 3\n").unwrap();
    let output = node(&["--config", file.path().to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("replicsa") && said.contains("line 2"), "{said}");
}

#[test]
fn the_effective_configuration_is_one_that_the_node_reads() {
    let printed = node(&["--print-config", "--replicas", "5", "--seed", "a:1,b:2"]);
    assert!(printed.status.success());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &printed.stdout).unwrap();
    let again = node(&["--print-config", "--config", file.path().to_str().unwrap()]);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    let settings = |bytes: &[u8]| -> Vec<String> {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.lines().map(|line| line.split('#').next().unwrap().trim().to_owned()).collect()
    };
    let same =
        settings(&again.stdout).into_iter().filter(|line| !line.starts_with("config")).collect::<Vec<_>>();
    assert_eq!(
        settings(&printed.stdout).into_iter().filter(|line| !line.starts_with("config")).collect::<Vec<_>>(),
        same
    );
    assert!(same.iter().any(|line| line == "replicas: 5"), "{same:?}");
}
