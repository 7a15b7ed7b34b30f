//! `god load`: what a file says is what is there afterwards.

use crate::{
    fake::{self, Fake},
    run::god_with,
};
use bytes::Bytes;
use serde_json::Value;
use std::{
    process::{Command, Output},
    sync::atomic::Ordering,
};

fn load(fake: &Fake, args: &[&str], stdin: &[u8]) -> Output {
    god_with(fake, &[&["load"], args].concat(), stdin)
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

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_key() {
    let marked = |text: &str| format!("\u{feff}{text}").into_bytes();
    for (args, file) in [
        (&["-"][..], "a\t1\n"),
        (&["-"], "\r\na\t1\r\n"),
        (&["-"], "{\"key\":\"a\",\"value\":1}\n"),
        (&["-", "--raw"], "a\t1\n"),
        (&["-", "--key-format", "hex"], "61\t1\n"),
    ] {
        let fake = fake::start();
        loads(&fake, 0, args, &marked(file));
        assert_eq!((value(&fake, "a"), fake.pairs().len()), ("1".to_owned(), 1), "{args:?}");
    }
    let fake = fake::start();
    loads(&fake, 0, &["-"], &marked("0041;LATIN CAPITAL LETTER A;Lu;0;L;;;;;N;;;;0061;\n"));
    assert!(value(&fake, "LATIN CAPITAL LETTER A U+0041").starts_with("0041;"));
}

#[test]
fn a_key_that_begins_with_a_byte_order_mark_survives_an_export() {
    let from = fake::start();
    from.holds("\u{feff}a", "1");
    let out = Command::new(env!("CARGO_BIN_EXE_god"))
        .args(["export", "--server", &from.address.to_string()])
        .env_remove("GOD_OUTPUT")
        .output()
        .unwrap();
    let to = fake::start();
    loads(&to, 0, &["-"], &out.stdout);
    assert_eq!(to.pairs(), from.pairs());
}

#[test]
fn a_file_that_is_not_utf_8_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let fake = fake::start();
    let utf_16 =
        |text: &str, unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
    let latin_1 = b"a\tGr\xfc\xdfe\n";
    for (name, bytes, why) in [
        ("little.tsv", utf_16("\u{feff}a\t1\n", u16::to_le_bytes), "line 1 is UTF-16"),
        ("big.txt", utf_16("\u{feff}a\t1\n", u16::to_be_bytes), "line 1 is UTF-16"),
        ("unmarked.txt", utf_16("a\t1\n", u16::to_le_bytes), "line 1 is UTF-16"),
        ("latin.tsv", latin_1.to_vec(), "line 1 is not UTF-8"),
        ("latin.jsonl", b"{\"key\":\"a\",\"value\":\"\xfc\"}\n".to_vec(), "line 1 is not UTF-8"),
    ] {
        let file = dir.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        let said = loads(&fake, 2, &[file.to_str().unwrap()], b"");
        assert!(said.contains(name) && said.contains(why), "{said}");
    }
    let said = loads(&fake, 2, &["-"], latin_1);
    assert!(said.contains("cannot read stdin: line 1 is not UTF-8"), "{said}");
    assert!(fake.pairs().is_empty());
    // What came before is loaded, and told.
    let said = loads(&fake, 2, &["-"], &[b"b\t1\nc\t2\n", &latin_1[..]].concat());
    assert!(
        said.contains("before that 2 keys had been loaded") && said.contains("line 3 is not UTF-8"),
        "{said}"
    );
    assert_eq!(fake.pairs().len(), 2);
    // Bytes are bytes where no text is asked for.
    loads(&fake, 0, &["-", "--raw"], latin_1);
    assert_eq!(fake.pairs()[&Bytes::from("a")][..], *b"Gr\xfc\xdfe");
}
