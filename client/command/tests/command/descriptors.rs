//! The `god` command when its descriptors do not do their part: whoever reads has gone, or a disk is full.

use crate::{
    chance::{closed, full},
    fake::{self, Fake},
};
use std::{
    fs::File,
    process::{Command, Stdio},
};

fn god(fake: &Fake, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_god"));
    command.args(args).env("GOD_SERVER", fake.address.to_string()).stdin(Stdio::null());
    for name in ["GOD_KEYSPACE", "GOD_OUTPUT"] {
        command.env_remove(name);
    }
    command
}

#[track_caller]
fn ends_with(code: i32, mut command: Command) -> String {
    let ended = command.stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(code), "{command:?}: {said}");
    said
}

#[test]
fn what_writes_finishes_its_work_when_nobody_reads_of_it() {
    for stdout in [closed, full] {
        let fake = fake::start();
        for key in ["a1", "a2", "a3", "a4"] {
            let mut put = god(&fake, &["put", key, "v"]);
            put.stdout(stdout());
            ends_with(0, put);
        }
        assert_eq!(fake.pairs().len(), 4);
        let mut del = god(&fake, &["del", "a1", "a2", "a3", "a4"]);
        del.stdout(stdout());
        ends_with(0, del);
        assert!(fake.pairs().is_empty());
    }
}

#[test]
fn what_writes_keeps_its_exit_code_when_nobody_reads_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.tsv");
    std::fs::write(&file, "a\t1\nno tab here\nb\t2\n").unwrap();
    for stdout in [closed, full] {
        let fake = fake::start();
        let mut load = god(&fake, &["load", file.to_str().unwrap()]);
        load.stdout(stdout());
        ends_with(3, load);
        assert_eq!(fake.pairs().len(), 2);
        let mut del = god(&fake, &["del", "a", "unknown", "b"]);
        del.stdout(stdout());
        ends_with(4, del);
        for writer in [&["keyspace", "create", "names"][..], &["ring", "cancel", "x"]] {
            let mut command = god(&fake, writer);
            command.stdout(stdout());
            ends_with(0, command);
        }
    }
    let fake = fake::start();
    let mut export = god(&fake, &["export", dir.path().join("all.tsv").to_str().unwrap()]);
    export.stdout(full());
    let said = ends_with(0, export);
    assert!(said.contains("cannot write the output"), "{said}");
}

#[test]
fn what_reads_ends_quietly_when_nobody_reads_on_and_with_2_when_there_is_no_room() {
    let fake = fake::start();
    for key in ["a", "b", "c"] {
        ends_with(0, god(&fake, &["put", key, "v"]));
    }
    for reader in [&["scan"][..], &["export"], &["get", "a"], &["status"], &["ring"], &["count"]] {
        let mut command = god(&fake, reader);
        command.stdout(closed());
        let said = ends_with(0, command);
        assert!(!said.contains("god:"), "{reader:?}: {said}");
        let mut command = god(&fake, reader);
        command.stdout(full());
        let said = ends_with(2, command);
        assert!(said.contains("cannot write the output"), "{reader:?}: {said}");
    }
}

#[test]
fn a_closed_or_full_stderr_changes_no_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.tsv");
    std::fs::write(&file, "no tab here\nrefused\tx\n").unwrap();
    let file = file.to_str().unwrap();
    let fake = fake::start();
    for stderr in [closed, full] {
        for (code, args) in [
            (1, &["get", "nothing"][..]),
            (2, &["load", "/nowhere/at/all"]),
            (2, &["gett"]),
            (3, &["put", "refused", "v"]),
            (3, &["load", file]),
            (4, &["put", "unknown", "v"]),
            (5, &["get", "k", "--server", "127.0.0.1:1"]),
            (0, &["--help"]),
            (0, &["put", "k", "v"]),
        ] {
            let mut command = god(&fake, args);
            let ended = command.stdout(Stdio::null()).stderr(stderr()).status().unwrap();
            assert_eq!(ended.code(), Some(code), "{args:?}");
        }
        // Both at once.
        let mut command = god(&fake, &["del", "refused"]);
        let ended = command.stdout(full()).stderr(stderr()).status().unwrap();
        assert_eq!(ended.code(), Some(3));
    }
}

#[test]
fn a_stdin_that_cannot_be_read_is_a_wrong_command() {
    let fake = fake::start();
    let dir = tempfile::tempdir().unwrap();
    for args in [&["put", "k", "-"][..], &["load", "-"]] {
        let mut command = god(&fake, args);
        command.stdin(File::open(dir.path()).unwrap());
        ends_with(2, command);
    }
    assert!(fake.pairs().is_empty());
}
