//! The `god` command against a cluster: what it prints, and what it ends with.

use crate::{
    fake::{self, Fake},
    run::god_with,
};
use god_proto::v1::{
    EndedOperation, JoinWish, ListOperationsReply, Operation, OperationPhase, OperationStatus, Wish, wish,
};
use serde_json::Value;
use std::{
    fs,
    process::{Command, Output, Stdio},
};

fn god(fake: &Fake, args: &[&str]) -> Output {
    god_with(fake, args, b"")
}

fn ends_with(fake: &Fake, code: i32, args: &[&str]) -> Output {
    let ended = god(fake, args);
    assert_eq!(ended.status.code(), Some(code), "{args:?}: {}", String::from_utf8_lossy(&ended.stderr));
    ended
}

#[test]
fn get_prints_the_bare_value_or_ends_with_1() {
    let fake = fake::start();
    let picture = b"\x00\xff\n\r\nlast line\n";
    assert_eq!(god_with(&fake, &["put", "picture", "-"], picture).status.code(), Some(0));
    assert_eq!(ends_with(&fake, 0, &["get", "picture"]).stdout, picture);
    assert_eq!(
        ends_with(&fake, 0, &["get", "picture", "--value-format", "hex"]).stdout,
        hex::encode(picture).as_bytes()
    );

    let missing = ends_with(&fake, 1, &["get", "nothing"]);
    assert!(missing.stdout.is_empty());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("nothing in keyspace default"));

    ends_with(&fake, 0, &["del", "picture"]);
    ends_with(&fake, 1, &["get", "picture"]);
    ends_with(&fake, 1, &["select", "0"]);
}

#[test]
fn a_refused_write_ends_with_3_and_an_unknown_one_with_4() {
    let fake = fake::start();
    let refused = ends_with(&fake, 3, &["put", "refused", "v"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("this key is refused"));
    let unknown = ends_with(&fake, 4, &["put", "unknown", "v"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("may surface later"));
    let nowhere = ends_with(&fake, 3, &["get", "k", "--keyspace", "nowhere"]);
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("god keyspace create"));
    ends_with(&fake, 3, &["init"]);
}

#[test]
fn keys_may_be_typed_as_hex_or_base64_or_come_from_stdin() {
    let fake = fake::start();
    ends_with(&fake, 0, &["put", "--key-format", "hex", "00ff", "v"]);
    ends_with(&fake, 0, &["get", "--key-format", "base64", "AP8="]);
    assert_eq!(god_with(&fake, &["get", "-", "--key-format", "hex"], b"00ff\n").stdout, b"v");
    assert_eq!(fake.pairs().keys().next().unwrap()[..], [0, 0xff]);
}

#[test]
fn a_scan_goes_through_all_pages_in_both_directions_within_its_bounds() {
    let fake = fake::start();
    for key in ["a", "b", "c", "d", "e"] {
        ends_with(&fake, 0, &["put", key, &key.to_uppercase()]);
    }
    let scan = |args: &[&str]| {
        let out = ends_with(&fake, 0, &[&["scan"], args].concat()).stdout;
        String::from_utf8(out).unwrap().replace('\n', " ")
    };
    assert_eq!(scan(&["--keys-only"]), "a b c d e ");
    assert_eq!(scan(&["--keys-only", "--reverse", "--limit", "3"]), "e d c ");
    assert_eq!(scan(&["--keys-only", "--after", "a", "--through", "d"]), "b c d ");
    assert_eq!(scan(&["--limit", "1"]), "a\tA ");
    let json: Value = serde_json::from_str(&scan(&["-o", "json", "--limit", "1"])).unwrap();
    assert_eq!((&json["key"], &json["value"], &json["version"]), (&"a".into(), &"A".into(), &"7.0@1".into()));
    let count = ends_with(&fake, 0, &["count", "--from", "b", "--before", "e"]).stdout;
    assert_eq!(count, b"3\n");
    assert_eq!(ends_with(&fake, 0, &["rank", "c"]).stdout, b"2\n");
    assert_eq!(ends_with(&fake, 0, &["select", "2"]).stdout, b"c\tC\n");
}

#[test]
fn an_export_loads_back_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let from = fake::start();
    let mut lines = String::new();
    for (at, value) in
        [&b"plain"[..], b"", b"a\tb\nc\\", b"\xff\x00\r", "Grüße".as_bytes()].iter().enumerate()
    {
        lines += &format!("{}\t{}\n", hex::encode(format!("k\t{at}")), hex::encode(value));
    }
    let as_hex = ["--key-format", "hex", "--value-format", "hex"];
    let loaded = god_with(&from, &[&["load", "-"], &as_hex[..]].concat(), lines.as_bytes());
    assert_eq!(loaded.status.code(), Some(0), "{}", String::from_utf8_lossy(&loaded.stderr));
    assert_eq!(from.pairs().len(), 5);
    for name in ["all.tsv", "all.jsonl", "all.JSONL"] {
        let file = dir.path().join(name);
        let file = file.to_str().unwrap();
        let to = fake::start();
        ends_with(&from, 0, &["export", file]);
        ends_with(&to, 0, &["load", file]);
        assert_eq!(to.pairs(), from.pairs(), "{name}");
    }
}

#[test]
fn an_export_to_stdout_is_what_answers_are_and_loads_back() {
    let from = fake::start();
    ends_with(&from, 0, &["put", "a", "1"]);
    for (args, text) in [
        (&["export"][..], "a\t1\n"),
        (&["export", "-o", "json"], "{\"key\":\"a\",\"value\":\"1\"}\n"),
        (&["export", "-", "-o", "json"], "{\"key\":\"a\",\"value\":\"1\"}\n"),
        (&["export", "/dev/stdout"], "a\t1\n"),
        (&["export", "-o", "yaml", "--format", "tsv"], "a\t1\n"),
    ] {
        let out = ends_with(&from, 0, args).stdout;
        assert_eq!(String::from_utf8_lossy(&out), text, "{args:?}");
        let to = fake::start();
        assert_eq!(god_with(&to, &["load", "-"], &out).status.code(), Some(0));
        assert_eq!(to.pairs(), from.pairs());
    }
    ends_with(&from, 2, &["export", "-o", "yaml"]);
}

#[test]
fn a_load_tells_bad_lines_by_number_is_patient_with_a_busy_cluster_and_loads_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pairs.tsv");
    let fake = fake::start();
    let file = |text: &str| {
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    ends_with(&fake, 0, &["load", &file("a\t1\nbusy\t2\n")]);
    assert_eq!(fake.pairs().len(), 2);
    let bad = ends_with(&fake, 3, &["load", "-o", "json", &file("c\t1\nno tab here\nrefused\tx\nd\t2\n")]);
    let said = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(said.contains("line 2: no tab") && said.contains("line 3: refused"), "{said}");
    let summary: Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!(
        (&summary["loaded"], &summary["bad_lines"], &summary["refused"]),
        (&2.into(), &1.into(), &1.into())
    );
    ends_with(&fake, 4, &["load", &file("unknown\tx\n")]);
    ends_with(&fake, 3, &["load", "-k", "nowhere", &file("a\t1\n")]);
    ends_with(&fake, 2, &["load", "/nowhere/at/all"]);
}

#[test]
fn a_keyspace_is_deleted_by_a_word_of_its_own() {
    let fake = fake::start();
    ends_with(&fake, 0, &["keyspace", "create", "old", "--replicas", "1"]);
    let said = ends_with(&fake, 0, &["keyspace", "delete", "old"]).stdout;
    assert!(String::from_utf8_lossy(&said).contains("would delete keyspace old with 0 keys"));
    let names = || {
        let listed = ends_with(&fake, 0, &["keyspace", "list", "-o", "json"]).stdout;
        let listed: Value = serde_json::from_slice(&listed).unwrap();
        listed.as_array().unwrap().iter().map(|it| it["name"].clone()).collect::<Vec<_>>()
    };
    assert!(names().contains(&"old".into()), "nothing was deleted yet");
    ends_with(&fake, 0, &["keyspace", "delete", "old", "--yes"]);
    assert!(!names().contains(&"old".into()));
    let again = ends_with(&fake, 3, &["keyspace", "delete", "old", "--yes"]).stderr;
    assert!(String::from_utf8_lossy(&again).contains("there is no keyspace old"));
}

#[test]
fn unicode_data_goes_into_an_ordered_keyspace_made_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("UnicodeData.txt");
    fs::write(
        &file,
        "0000;<control>;Cc;0;BN;;;;;N;NULL;;;;\n0041;LATIN CAPITAL LETTER A;Lu;0;L;;;;;N;;;;0061;\n\
         2603;SNOWMAN;So;0;ON;;;;;N;;;;;\n",
    )
    .unwrap();
    let fake = fake::start();
    ends_with(&fake, 0, &["load", "-k", "names", "--create", "ordered", file.to_str().unwrap()]);
    let line = ends_with(&fake, 0, &["get", "-k", "names", "SNOWMAN U+2603"]).stdout;
    assert_eq!(line, b"2603;SNOWMAN;So;0;ON;;;;;N;;;;;");
    let keyspaces = ends_with(&fake, 0, &["keyspace", "list", "-o", "json"]).stdout;
    let keyspaces: Value = serde_json::from_slice(&keyspaces).unwrap();
    assert_eq!(keyspaces[1]["partitioner"], "ordered");
}

#[test]
fn status_and_ring_are_for_people_and_for_programs() {
    let fake = fake::start();
    let status = String::from_utf8(ends_with(&fake, 0, &["status"]).stdout).unwrap();
    assert!(status.contains("1 node up, all 1 arc fully replicated"), "{status}");
    assert!(status.contains("1*"), "{status}");
    assert!(!status.contains('\x1b'), "colours without a terminal: {status:?}");
    let json: Value = serde_json::from_slice(&ends_with(&fake, 0, &["status", "-o", "json"]).stdout).unwrap();
    assert_eq!(json["nodes"][0]["report"]["ready"], true);
    let ring = String::from_utf8(ends_with(&fake, 0, &["ring", "--arcs"]).stdout).unwrap();
    assert!(ring.contains("(start)") && ring.contains("default"), "{ring}");
    let yaml = ends_with(&fake, 0, &["ring", "-o", "yaml"]).stdout;
    assert!(String::from_utf8(yaml).unwrap().contains("epoch: 1"));
}

/// Of a join, what a node says while so much of it is done; nothing is under way where nothing is left of it.
fn joining(bytes_done: u64, bytes_total: u64) -> ListOperationsReply {
    let joins = Wish { wish: Some(wish::Wish::Join(JoinWish { node: 4 })) };
    let operation = Operation {
        id: "join-4".to_owned(),
        wish: Some(joins.clone()),
        phase: OperationPhase::Moving.into(),
        ..Operation::default()
    };
    let status = OperationStatus {
        operation: Some(operation),
        driver: 1,
        arcs_done: 3,
        arcs_total: 12,
        arcs_moving: 2,
        entries_done: 10,
        entries_total: 40,
        bytes_done,
        bytes_total,
        bytes_per_second: 1 << 20,
        eta_ms: 2_000,
        blocked: if bytes_done == 0 { "node 4 is away".to_owned() } else { String::new() },
    };
    let ended = EndedOperation { id: "join-4".to_owned(), wish: Some(joins), ..EndedOperation::default() };
    match bytes_done < bytes_total {
        true => ListOperationsReply { operations: vec![status], epoch: 7, ..ListOperationsReply::default() },
        false => ListOperationsReply { ended: vec![ended], epoch: 8, ..ListOperationsReply::default() },
    }
}

#[test]
fn status_shows_what_is_under_way() {
    let fake = fake::start();
    let none: Value = serde_json::from_slice(&ends_with(&fake, 0, &["status", "-o", "json"]).stdout).unwrap();
    assert_eq!(none["operations"], Value::Array(vec![]));
    fake.knobs.tell_operations([joining(3 << 20, 8 << 20)]);
    let text = String::from_utf8(ends_with(&fake, 0, &["status"]).stdout).unwrap();
    let line = "operation join-4: node 4 joins; it moves data; 3 of 12 arcs, 2 moving: 10 of 40 entries, \
                3.0 MiB of 8.0 MiB, 1.0 MiB/s, about 2 s left";
    assert!(text.lines().any(|it| it == line), "{text}");
    let json: Value = serde_json::from_slice(&ends_with(&fake, 0, &["status", "-o", "json"]).stdout).unwrap();
    let operation = &json["operations"][0];
    assert_eq!((&operation["id"], &operation["phase"]), (&"join-4".into(), &"moving".into()));
    assert_eq!(operation["bytes_done"], 3 << 20);
    assert_eq!(operation["driver"], 1);
    // A node that does not say what is under way keeps nobody from the rest.
    let failed = god_proto::v1::Rejected { message: "not now".to_owned(), ..Default::default() };
    fake.knobs.tell_operations([ListOperationsReply { failed: Some(failed), ..Default::default() }]);
    let text = String::from_utf8(ends_with(&fake, 0, &["status"]).stdout).unwrap();
    assert!(text.contains("1 node up") && text.contains("warning: what is under way is not known"), "{text}");
    let json: Value = serde_json::from_slice(&ends_with(&fake, 0, &["status", "-o", "json"]).stdout).unwrap();
    assert_eq!(json["operations"], Value::Null);
}

#[test]
fn a_watch_prints_a_line_of_json_at_each_change() {
    let fake = fake::start();
    let steps = [(0, 8 << 20), (0, 8 << 20), (4 << 20, 8 << 20), (1, 1)];
    fake.knobs.tell_operations(steps.map(|(done, total)| joining(done, total)));
    let said = ends_with(&fake, 0, &["ring", "watch", "-o", "json"]);
    assert!(said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
    let lines: Vec<Value> = String::from_utf8(said.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let of = |at: usize, what: &str| lines[at]["operations"][0][what].clone();
    assert_eq!((of(0, "bytes_done"), of(0, "bytes_total")), (0.into(), (8 << 20).into()));
    assert_eq!((of(0, "blocked"), of(1, "blocked")), ("node 4 is away".into(), Value::Null));
    assert_eq!((of(1, "bytes_done"), of(1, "eta_ms")), ((4 << 20).into(), 2_000.into()));
    assert_eq!(of(1, "bytes_per_second"), 1 << 20);
    assert_eq!((lines[1]["epoch"].clone(), lines[1]["ended"].clone()), (7.into(), Value::Null));
    assert_eq!(lines[2]["operations"], Value::Array(vec![]));
    assert_eq!(lines[2]["ended"][0]["id"], "join-4");
    // For people the same goes to stderr, and bytes stand in it.
    fake.knobs.tell_operations(steps.map(|(done, total)| joining(done, total)));
    let said = ends_with(&fake, 0, &["ring", "watch"]);
    let told = String::from_utf8(said.stderr).unwrap();
    assert!(told.contains("0 B of 8.0 MiB") && told.contains("4.0 MiB of 8.0 MiB"), "{told}");
    assert!(told.contains("blocked: node 4 is away"), "{told}");
}

#[test]
fn a_value_is_text_to_every_reader_of_yaml() {
    let fake = fake::start();
    for value in ["no", "12:30", "1_000", "=", "0x1f", "2024-01-02"] {
        ends_with(&fake, 0, &["put", "on", value]);
        let quoted = format!("key: \"on\"\nvalue: \"{value}\"\nversion: \"7.0@1\"\n");
        let got = ends_with(&fake, 0, &["get", "on", "-o", "yaml"]).stdout;
        assert_eq!(String::from_utf8(got).unwrap(), quoted);
    }
    let scanned = ends_with(&fake, 0, &["scan", "-o", "yaml"]).stdout;
    assert!(String::from_utf8(scanned).unwrap().starts_with("- key: \"on\"\n  value: \"2024-01-02\"\n"));
}

#[test]
fn an_empty_variable_is_as_good_as_none_and_a_misspelt_one_is_told() {
    let fake = fake::start();
    let server = fake.address.to_string();
    let run = |variables: &[(&str, &str)], args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_god"));
        for name in ["GOD_SERVER", "GOD_KEYSPACE", "GOD_OUTPUT"] {
            command.env_remove(name);
        }
        command.args(args).envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap()
    };
    let empty = [("GOD_SERVER", ""), ("GOD_KEYSPACE", ""), ("GOD_OUTPUT", "")];
    let ended = run(&empty, &["put", "k", "v", "--server", &server]);
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    assert!(String::from_utf8_lossy(&ended.stdout).starts_with("written on"));
    // Without a server of its own it asks the default one, whoever that is.
    let ended = run(&empty, &["get", "k", "--timeout", "10ms"]);
    assert_ne!(ended.status.code(), Some(2), "{}", String::from_utf8_lossy(&ended.stderr));
    let ended = run(&[("GOD_SERVER", &format!(" {server} , ")), ("GOD_SERVERS", "x")], &["get", "k"]);
    assert_eq!((ended.status.code(), &ended.stdout[..]), (Some(0), &b"v"[..]));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("GOD_SERVERS") && said.contains("is GOD_SERVER meant?"), "{said}");
    // What is typed says something, even if it is nothing.
    for args in [["get", "k", "--server", ""], ["get", "k", "--output", ""]] {
        assert_eq!(run(&[], &args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn base64_and_hex_may_come_in_lines() {
    let fake = fake::start();
    let bytes: Vec<u8> = (0..=255).collect();
    let lines = |text: String, at: usize| -> Vec<u8> {
        text.as_bytes().chunks(at).flat_map(|line| [line, b"\n"].concat()).collect()
    };
    for (format, text) in [
        ("base64", lines(base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &bytes), 76)),
        ("hex", lines(hex::encode(&bytes), 60)),
        ("hex", lines(hex::encode(&bytes), 2)),
    ] {
        let put = god_with(&fake, &["put", "--value-format", format, "k", "-"], &text);
        assert_eq!(put.status.code(), Some(0), "{format}: {}", String::from_utf8_lossy(&put.stderr));
        assert_eq!(ends_with(&fake, 0, &["get", "k"]).stdout, bytes);
        let typed = String::from_utf8(text.clone()).unwrap();
        ends_with(&fake, 0, &["put", "--value-format", format, "typed", &typed]);
        let put = god_with(&fake, &["put", "--key-format", format, "-", "v"], &text);
        assert_eq!(put.status.code(), Some(0), "{format}: {}", String::from_utf8_lossy(&put.stderr));
    }
    assert!(fake.pairs().contains_key(&bytes[..]));
    assert_eq!(fake.pairs().len(), 3);
}
