//! Settings that are invalid, and the ones that are.

use std::process::{Command, Output};

fn node(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_god-node")).env_clear().args(arguments).output().unwrap()
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
