//! The command as a process, beside a cluster in memory.

use crate::fake::Fake;
use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

/// What the `god` command does with these words and this input.
pub fn god_with(fake: &Fake, args: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_god"))
        .args(args)
        .env("GOD_SERVER", fake.address.to_string())
        .env_remove("GOD_KEYSPACE")
        .env_remove("GOD_OUTPUT")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without reading all of it.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}
