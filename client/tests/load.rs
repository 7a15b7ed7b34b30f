//! `god load`: what a file says is what is there afterwards.

#![allow(clippy::unwrap_used, clippy::format_push_string)]

mod fake;

use bytes::Bytes;
use fake::Fake;
use serde_json::Value;
use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
    sync::atomic::Ordering,
};

fn load(fake: &Fake, args: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_god"))
        .arg("load")
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

#[track_caller]
fn loads(fake: &Fake, code: i32, args: &[&str], stdin: &[u8]) -> String {
    let ended = load(fake, args, stdin);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(code), "{args:?}: {said}");
    said
}

/// What is stored under a key, as text.
fn value(fake: &Fake, key: &'static str) -> String {
    let value = fake.pairs().get(&Bytes::from(key)).cloned().unwrap_or_default();
    String::from_utf8(value.to_vec()).unwrap()
}

#[test]
fn of_lines_with_the_same_key_the_last_one_wins() {
    let fake = fake::start();
    fake.knobs.backwards.store(true, Ordering::SeqCst);
    let mut lines = String::new();
    for n in 0..1_000 {
        lines += &format!("one\t{n}\nother {}\t{n}\nbusy\t{n}\n", n % 7);
    }
    let told = load(&fake, &["-", "-o", "json"], lines.as_bytes());
    assert_eq!(told.status.code(), Some(0), "{}", String::from_utf8_lossy(&told.stderr));
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&told["loaded"], &told["unknown"]), (&3_000.into(), &0.into()));
    assert_eq!((value(&fake, "one"), value(&fake, "busy")), ("999".to_owned(), "999".to_owned()));
    assert_eq!(value(&fake, "other 6"), "993");
    let before = fake.pairs();
    loads(&fake, 0, &["-"], lines.as_bytes());
    assert_eq!(fake.pairs(), before, "loading it again changes something");
}

#[test]
fn a_line_that_is_refused_does_not_hold_up_the_others_of_its_key() {
    let fake = fake::start();
    let said = loads(&fake, 4, &["-"], b"refused\t1\nunknown\t1\nrefused\t2\na\t1\nunknown\t2\na\t2\n");
    assert!(said.contains("line 3: refused") && said.contains("line 5: outcome unknown"), "{said}");
    assert_eq!(value(&fake, "a"), "2");
}

#[test]
fn a_json_value_is_stored_as_it_is_written() {
    let fake = fake::start();
    let lines = b"{\"key\":\"big\",\"value\":18446744073709551616}\n{\"key\":\"price\",\"value\":12.50}\n\
        {\"key\":\"object\",\"value\":{\"b\": 1, \"a\": 2, \"b\": 3}}\n";
    loads(&fake, 0, &["-"], lines);
    assert_eq!(value(&fake, "big"), "18446744073709551616");
    assert_eq!(value(&fake, "price"), "12.50");
    assert_eq!(value(&fake, "object"), r#"{"b": 1, "a": 2, "b": 3}"#);
}
