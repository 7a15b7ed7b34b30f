//! README's tour, as it stands there: its commands are typed, and what they say is what is shown.

use crate::{
    cluster::{PATIENCE, turn},
    shell::{Desk, Said, blocks},
};
use serde_json::Value;
use std::{
    net::SocketAddr,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

pub const README: &str = include_str!("../../../README.md");
/// What `make run` loads: Debian's `unicode-data`.
const NAMES: &str = "/usr/share/unicode/UnicodeData.txt";
/// Sections whose commands are typed elsewhere, and why.
const ELSEWHERE: [(&str, &str); 1] = [("On Kubernetes", "it needs one; `make e2e` plays scenarios there")];

/// What is typed, and what is shown below it.
#[derive(Debug)]
struct Step {
    command: String,
    shown: Vec<String>,
}

/// The steps of each section that has any.
fn sections() -> Vec<(String, Vec<Step>)> {
    let of = |lines: Vec<String>| {
        let mut steps: Vec<Step> = Vec::new();
        for line in lines {
            if let Some(command) = line.strip_prefix("$ ") {
                steps.push(Step { command: command.to_owned(), shown: Vec::new() });
                continue;
            }
            let step = steps.last_mut().expect("a block begins with a command");
            match step.command.strip_suffix('\\') {
                Some(begun) => step.command = format!("{begun}{}", line.trim_start()),
                None => step.shown.push(line),
            }
        }
        steps
    };
    blocks(README, "console", &["##"]).into_iter().map(|(title, lines)| (title, of(lines))).collect()
}

/// What differs from one cluster to the next, wherever it stands.
fn varies(word: &str) -> Option<&'static str> {
    let word = word.trim_end_matches([',', ')']);
    if word.parse::<SocketAddr>().is_ok() {
        return Some("an address");
    }
    if uuid::Uuid::try_parse(word).is_ok() {
        return Some("an id");
    }
    let version = word.split_once('@').is_some_and(|(time, node)| {
        time.split('.').all(|part| part.parse::<u64>().is_ok()) && node.parse::<u32>().is_ok()
    });
    version.then_some("a version")
}

/// What differs from one look at a cluster to the next: figures, of the lines of `god status` that hold some.
fn figure(word: &str) -> Option<&'static str> {
    if ["B", "KiB", "MiB"].contains(&word) {
        return Some("a unit");
    }
    let number =
        word.trim_start_matches(['-', '+']).trim_end_matches(|c: char| c.is_alphabetic() || c == '%');
    number.parse::<f64>().is_ok().then_some("a figure")
}

/// Whether a line is what was shown, but for what varies.
fn alike(command: &str, shown: &str, real: &str) -> bool {
    let is_row = shown.split_whitespace().next().is_some_and(|word| word.ends_with('*'));
    let figures = command == "bin/god status" && (is_row || shown.starts_with("cluster "));
    let same = |(shown, real): (&str, &str)| {
        shown == real
            || varies(shown).is_some_and(|kind| varies(real) == Some(kind))
            || figures && figure(shown).is_some_and(|kind| figure(real) == Some(kind))
    };
    // A table's columns are as wide as what is in them.
    let words = |line: &'_ str| -> Vec<String> {
        match command == "bin/god status" {
            true => line.split_whitespace().map(str::to_owned).collect(),
            false => line.split(' ').map(str::to_owned).collect(),
        }
    };
    let (shown, real) = (words(shown), words(real));
    shown.len() == real.len() && shown.iter().zip(&real).all(|(a, b)| same((a, b)))
}

fn all_alike(step: &Step, said: &Said) -> bool {
    let real: Vec<&str> = said.text.lines().collect();
    real.len() == step.shown.len()
        && step.shown.iter().zip(&real).all(|(shown, real)| alike(&step.command, shown, real))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tour_of_the_readme_is_so() {
    let sections = sections();
    for (title, why) in ELSEWHERE {
        assert!(sections.iter().any(|(name, _)| name == title), "{title} ({why}) is not in README any more");
    }
    assert!(Path::new(NAMES).is_file(), "{NAMES} is not there: .ci/setup data");
    let _turn = turn().await;
    let mut desk = Desk::new();
    // What `make run` does, but for staying.
    let run =
        desk.types(&format!("bin/god dev --nodes 3 --data data --load {NAMES} --detach -o json 2>/dev/null"));
    assert_eq!(run.code, 0, "{}", run.text);
    let nodes: Value = serde_json::from_str(&run.text).unwrap();
    let of = |at: usize, what: &str| nodes["nodes"][at][what].to_string().trim_matches('"').to_owned();
    let (first, third) = (of(0, "grpc"), of(2, "pid"));
    let (mut code, mut typed, mut problems) = (0, 0, Vec::new());
    for (title, steps) in sections.iter().filter(|(title, _)| ELSEWHERE.iter().all(|it| it.0 != title)) {
        for step in steps {
            typed += 1;
            if let Some(variable) = step.command.strip_prefix("export ") {
                let (name, value) = variable.split_once('=').unwrap();
                assert_eq!(varies(value), Some("an address"), "{}", step.command);
                desk.variables.push((name.to_owned(), first.clone()));
                continue;
            }
            // The process id that the reader sees in a table.
            let command = match step.command.strip_prefix("kill -9 ") {
                Some(pid) if pid.parse::<u32>().is_ok() => format!("kill -9 {third}"),
                _ => step.command.clone(),
            };
            // Nodes find out within seconds that another one is gone.
            let deadline = Instant::now() + PATIENCE;
            let said = loop {
                let said = desk.types(&format!("(exit {code})\n{command}"));
                let late = step.command != "bin/god status" || Instant::now() > deadline;
                if late || all_alike(step, &said) {
                    break said;
                }
                sleep(Duration::from_millis(200));
            };
            code = said.code;
            if !all_alike(step, &said) {
                problems.push(format!(
                    "{title}: $ {command}\n{}--- shown:\n{}\n",
                    said.text,
                    step.shown.join("\n")
                ));
            }
        }
    }
    let stop = desk.types("bin/god dev stop --data data");
    assert_eq!(stop.code, 0, "{}", stop.text);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(typed > 8, "README's tour was not found: {sections:?}");
}

#[test]
fn what_is_shown_may_differ_in_what_varies_and_in_nothing_else() {
    let status = "bin/god status";
    for (command, shown, real, is_alike) in [
        ("bin/god count", "511", "511", true),
        ("bin/god count", "511", "512", false),
        (
            "bin/god put a b",
            "written on 2 replicas, version 1.0@1",
            "written on 2 replicas, version 99.7@3",
            true,
        ),
        (
            "bin/god put a b",
            "written on 2 replicas, version 1.0@1",
            "written on 3 replicas, version 1.0@1",
            false,
        ),
        ("bin/god get a", "blue", "blue ", false),
        (status, "2*  up  127.0.0.1:1  3.6 MiB  -26µs", "2*  up 127.0.0.1:2  4 MiB  0", true),
        (status, "2*  up  127.0.0.1:1", "2*  down  127.0.0.1:1", false),
        (status, "3* down -", "3* down 5", false),
        (status, "2 of 3 nodes up", "3 of 3 nodes up", false),
    ] {
        assert_eq!(alike(command, shown, real), is_alike, "{shown} {real}");
    }
}
