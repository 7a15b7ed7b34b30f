//! The `god` command from outside: what scripts rely on.

use std::{
    fs,
    io::Write as _,
    process::{Command, Output, Stdio},
};

fn god(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_god"));
    for name in ["GOD_SERVER", "GOD_KEYSPACE", "GOD_OUTPUT", "GOD_NODE"] {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An address at which nobody listens: none that the system gives to the server of another test.
const NOBODY: &str = "127.0.0.1:1";

#[test]
fn without_a_server_every_command_that_needs_one_ends_with_5() {
    for command in [
        &["status"][..],
        &["ring"],
        &["init"],
        &["keyspace", "list"],
        &["put", "k", "v"],
        &["get", "k"],
        &["del", "k"],
        &["scan"],
        &["count"],
        &["rank", "k"],
        &["select", "0"],
        &["export"],
    ] {
        let ended = god(&[command, &["--server", NOBODY, "--timeout", "500ms"]].concat());
        assert_eq!(ended.status.code(), Some(5), "{command:?}: {}", text(&ended.stderr));
        let said = text(&ended.stderr);
        assert!(said.contains(NOBODY), "{command:?} does not name the server: {said}");
        assert!(said.contains("--server"), "{command:?} shows no way out: {said}");
        assert!(ended.stdout.is_empty(), "{command:?}");
    }
}

#[test]
fn what_cannot_be_meant_ends_with_2() {
    for command in [
        &[][..],
        &["gett", "k"],
        &["get"],
        &["get", "k", "--consistency", "most"],
        &["get", "k", "--timeout", "5"],
        &["get", "k", "--server", "nowhere"],
        &["get", "k", "--output", "xml"],
        &["scan", "--from", "a", "--after", "b"],
        &["select", "-1"],
        &["keyspace", "create", "names", "--split", "g"],
        &["dev", "stop", "--data", "/nowhere/at/all"],
    ] {
        let ended = god(command);
        assert_eq!(ended.status.code(), Some(2), "{command:?}: {}", text(&ended.stderr));
        assert!(!ended.stderr.is_empty(), "{command:?}");
    }
}

#[test]
fn a_value_beyond_a_bound_is_refused_with_option_value_and_bound() {
    for (command, says) in [
        (&["get", "k", "--timeout", "10m"][..], ["--timeout", "10m", "30s"]),
        (&["bench", "--connections", "17"], ["--connections", "17", "16"]),
        (&["bench", "--value-size", "8388609"], ["--value-size", "8388609", "8388608"]),
        (&["bench", "--duration", "3h", "--window", "1s"], ["--window", "1s", "7200"]),
    ] {
        let ended = god(command);
        let said = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{command:?}: {said}");
        assert!(says.iter().all(|part| said.contains(part)), "{command:?}: {said}");
    }
}

#[test]
fn help_goes_to_stdout_and_names_the_exit_codes() {
    let ended = god(&["--help"]);
    assert_eq!(ended.status.code(), Some(0));
    let help = text(&ended.stdout);
    assert!(help.contains("Exit codes:") && help.contains("Examples:"), "{help}");
    for line in help.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

#[test]
fn completions_are_printed_without_a_server() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = god(&["completion", shell]);
        assert_eq!(ended.status.code(), Some(0));
        assert!(text(&ended.stdout).contains("keyspace"), "{shell}");
    }
}

#[test]
fn output_that_nobody_reads_on_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_god"))
        .args(["completion", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
}

#[test]
fn nodes_are_told_when_to_give_memory_back_unless_somebody_else_has_told_them() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("god-node");
    fs::write(
        &program,
        "#!/bin/sh\necho at $MALLOC_MMAP_THRESHOLD_ and $MALLOC_TRIM_THRESHOLD_ >&2\nexit 7\n",
    )
    .unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let said = |name: &str, variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_god"));
        command.env_remove("MALLOC_MMAP_THRESHOLD_").env_remove("MALLOC_TRIM_THRESHOLD_");
        command.args(["dev", "--nodes", "1", "--data"]).arg(dir.path().join(name));
        command.env("GOD_NODE", &program).envs(variables.iter().copied()).stdin(Stdio::null());
        text(&command.output().unwrap().stderr)
    };
    let by_itself = said("one", &[]);
    assert!(by_itself.contains("at 262144 and 1048576"), "{by_itself}");
    let told = said("two", &[("MALLOC_TRIM_THRESHOLD_", "4096")]);
    assert!(told.contains("at 262144 and 4096"), "{told}");
}

#[test]
fn a_node_that_ends_as_it_starts_is_named_with_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("god-node");
    let mut file = fs::File::create(&program).unwrap();
    file.write_all(b"#!/bin/sh\necho the disk is made of cheese >&2\nexit 7\n").unwrap();
    drop(file);
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_god"))
        .args(["dev", "--nodes", "1", "--data"])
        .arg(dir.path().join("data"))
        .env("GOD_NODE", &program)
        .output()
        .unwrap();
    let said = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(said.contains("node 1 ended by itself (exit code 7)"), "{said}");
    assert!(said.contains("the disk is made of cheese"), "{said}");
}

#[test]
fn dev_says_where_it_looked_for_the_node_program() {
    let ended = Command::new(env!("CARGO_BIN_EXE_god"))
        .args(["dev", "--data", "/nowhere"])
        .env("GOD_NODE", "/nowhere/god-node")
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(2));
    assert!(text(&ended.stderr).contains("GOD_NODE names /nowhere/god-node"));
}
