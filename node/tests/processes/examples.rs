//! Every example of every `--help`, as it stands there, against real nodes. They are found through the command line's
//! own definition, so that a new one cannot be forgotten.

use crate::{
    client::KEYSPACE,
    cluster::{Cluster, turn, wait_for},
    ring::{another, settled},
    shell::{Desk, Said},
    tour::README,
};
use std::{collections::BTreeSet, fs};

/// Examples that are not typed as they stand, and why.
const NOT_TYPED: [(&str, &str); 0] = [];

/// Where an example can be typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scene {
    /// Nothing but the program: a node's settings are printed.
    Alone,
    /// A node that is in no cluster yet.
    Unfounded,
    /// A cluster in which all are well.
    Calm,
    /// One that changes.
    Changing,
    /// One that has lost nodes, and has enough left to decide.
    Bereaved,
    /// One that has not.
    Stuck,
    /// A directory in which `god dev` was not called yet.
    Dev,
}

fn scene(example: &str) -> Scene {
    let begins = |with: &str| example.starts_with(with);
    if begins("god-node ") {
        Scene::Alone
    } else if begins("god init") {
        Scene::Unfounded
    } else if begins("god recover") {
        Scene::Stuck
    } else if begins("god ring") && example.contains("--lost") {
        Scene::Bereaved
    } else if ["god ring plan", "god ring change", "god ring watch", "god ring cancel"]
        .iter()
        .any(|it| begins(it))
    {
        Scene::Changing
    } else if begins("god dev") || begins("god bench --data") {
        Scene::Dev
    } else {
        Scene::Calm
    }
}

/// The commands, as bash completes them: each is a label with its words, made from the command line's definition.
fn commands(desk: &Desk) -> Vec<String> {
    let script = desk.types("god completion bash").text;
    let labels = script.lines().filter_map(|line| line.trim().strip_suffix(')'));
    let labels = labels.filter(|label| label.starts_with("god") && !label.contains(','));
    let words = |label: &str| {
        let path: Vec<&str> = label.split("__").filter(|word| *word != "subcmd").collect();
        path.join(" ")
    };
    let all: BTreeSet<String> = labels.map(words).collect();
    assert!(all.len() > 20 && all.contains("god ring plan"), "{all:?}");
    all.into_iter().collect()
}

/// The examples of a help text, without what is said of them. Each is a line that is indented by two, and what is said
/// of it stands apart by two spaces at least.
fn of_help(help: &str) -> Vec<String> {
    let examples = help.split_once("\nExamples:\n").map_or("", |(_, rest)| rest);
    let lines = examples.lines().filter_map(|line| line.strip_prefix("  "));
    let lines = lines
        .filter(|line| line.starts_with("god ") || line.starts_with("god-node ") || line.contains("| god "));
    lines.map(|line| line.split("  ").next().unwrap().to_owned()).collect()
}

/// What README has a reader type beside the tour. (`make` is tried by CI.)
fn of_readme() -> Vec<String> {
    let blocks = README.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("sh\n"));
    let lines = blocks.flat_map(str::lines);
    let lines = lines.filter(|line| line.starts_with("god ") || line.starts_with("god-node "));
    lines.map(|line| line.split("  ").next().unwrap().to_owned()).collect()
}

/// All examples there are, each once, in the order of the commands.
fn all(desk: &Desk) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut with_none = Vec::new();
    let node = "god-node".to_owned();
    for command in commands(desk).into_iter().chain([node]) {
        let help = desk.types(&format!("{command} --help"));
        assert_eq!(help.code, 0, "{command}: {}", help.text);
        let examples = of_help(&help.text);
        // Those of a command's own commands stand with it.
        if examples.is_empty() && command.split(' ').count() <= 2 {
            with_none.push(command);
        }
        for example in examples {
            if !found.contains(&example) {
                found.push(example);
            }
        }
    }
    let of_readme = of_readme();
    assert!(of_readme.len() >= 3, "{of_readme:?}");
    found.extend(of_readme);
    assert!(with_none.is_empty(), "commands without an example: {with_none:?}");
    found
}

/// The examples of a scene.
fn of(desk: &Desk, wanted: Scene) -> Vec<String> {
    let all = all(desk).into_iter();
    all.filter(|it| scene(it) == wanted && NOT_TYPED.iter().all(|(example, _)| example != it)).collect()
}

/// What may be meant by words that stand for the reader's own: nodes by their names, and places outside of the desk.
fn own(example: &str, desk: &Desk, cluster: Option<&Cluster>) -> String {
    let here = desk.path();
    let mut text = example.to_owned();
    for place in ["/tmp/", "/etc/"] {
        text = text.replace(place, &format!("{}{place}", here.display()));
    }
    for (at, node) in cluster.iter().flat_map(|cluster| cluster.nodes.iter().enumerate()) {
        text = text.replace(&format!("db-{}:7000", at + 1), &node.grpc);
        if at == 0 {
            text = text.replace("db-0:7000", &node.grpc).replace("first:7000", &node.grpc);
        }
    }
    text
}

/// What an example may end with, beside 0.
fn may_end_with(example: &str, said: &Said) -> bool {
    // Whether something is wrong with the machine (its disk, its limits) is no matter of the test.
    let other: &[i32] = if example.starts_with("god doctor") { &[6, 7] } else { &[] };
    said.code == 0 || other.contains(&said.code)
}

fn types(desk: &Desk, cluster: Option<&Cluster>, example: &str) {
    let typed = own(example, desk, cluster);
    let said = desk.types(&typed);
    assert!(may_end_with(example, &said), "$ {typed}\n{}-> {}", said.text, said.code);
    assert!(!said.text.contains("error:"), "$ {typed}\n{}", said.text);
}

/// Something that is no example, and that has to work.
fn prepare(desk: &Desk, script: &str) {
    let said = desk.types(script);
    assert_eq!(said.code, 0, "{script}: {}", said.text);
}

fn desk_at(cluster: &Cluster) -> Desk {
    let mut desk = Desk::new();
    let servers: Vec<&str> = cluster.nodes.iter().map(|node| node.grpc.as_str()).collect();
    desk.variables.push(("GOD_SERVER".to_owned(), servers.join(",")));
    desk
}

#[test]
fn each_example_that_is_not_typed_is_still_there() {
    let desk = Desk::new();
    let all = all(&desk);
    for (example, why) in NOT_TYPED {
        assert!(all.iter().any(|it| it == example), "{example} ({why}) is no example any more");
    }
    assert!(all.len() > 60, "{all:#?}");
}

#[test]
fn examples_are_found_in_a_help_text() {
    let help = "Usage: god x\n\nExamples:\n  god x 1      one\n  god x | jq '.a'   two\n  generate | god x -\n\nOr:\n  god y\n";
    assert_eq!(of_help(help), ["god x 1", "god x | jq '.a'", "generate | god x -", "god y"]);
    assert_eq!(of_help("Commands:\n  god x\n"), [""; 0]);
}

#[test]
fn examples_of_the_node_are_settings_that_it_takes() {
    let desk = Desk::new();
    fs::create_dir(desk.path().join("etc")).unwrap();
    fs::write(desk.path().join("etc/god.yaml"), "memory: 1GiB\n").unwrap();
    for example in of(&desk, Scene::Alone) {
        let print = if example.contains("--print-config") { "" } else { " --print-config" };
        types(&desk, None, &format!("{example}{print}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_of_founding_found() {
    for example in of(&Desk::new(), Scene::Unfounded) {
        let mut cluster = Cluster::prepare(1, &[]).await;
        cluster.nodes[0].start();
        let client = cluster.nodes[0].client();
        wait_for("the node to answer", || {
            let mut client = client.clone();
            async move {
                client
                    .status()
                    .await
                    .map(|_| ())
                    .or_else(|error| if error.contains("init") { Ok(()) } else { Err(error) })
            }
        })
        .await;
        types(&desk_at(&cluster), Some(&cluster), &example);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_of_daily_work_work() {
    let cluster = Cluster::start(3, &[]).await;
    let mut desk = desk_at(&cluster);
    desk.variables.push(("GOD_KEYSPACE".to_owned(), KEYSPACE.to_owned()));
    let here = desk.path();
    let keys = ["colour", "picture", "user/1", "user/2", "b1", "2024-05", "m", "session/7", "session/8"];
    let pairs = keys.map(|key| format!("{key}\tvalue of {key}\n")).concat();
    for (name, text) in [
        ("names.tsv", pairs.as_str()),
        ("pairs.tsv", &pairs),
        ("picture.png", "a picture"),
        ("UnicodeData.txt", "0041;LATIN CAPITAL LETTER A;Lu;0;L;;;;;N;;;;0061;\n"),
        // A program of the reader's own.
        ("bin/generate", "#!/bin/sh\necho '{\"key\": \"k\", \"value\": {\"v\": 1}}'\n"),
    ] {
        fs::write(here.join(name), text).unwrap();
    }
    prepare(&desk, "chmod +x bin/generate; mkdir -p etc/bash_completion.d .zfunc .config/fish/completions");
    prepare(&desk, "god keyspace create a && god keyspace create b && god load -k a pairs.tsv");
    for example in of(&desk, Scene::Calm) {
        // What there has to be, and what there must not be.
        let names =
            if example.contains("keyspace create names") { "delete names --yes" } else { "create names" };
        desk.types(&format!("god keyspace {names}"));
        prepare(&desk, &format!("god load pairs.tsv -k {KEYSPACE}"));
        types(&desk, Some(&cluster), &hurried(&example));
    }
}

/// A benchmark that measures nothing: what it prints is another test's matter.
fn hurried(example: &str) -> String {
    match example.contains("god bench") {
        false => example.to_owned(),
        true => {
            let duration = if example.contains("--duration") { "" } else { " --duration 100ms" };
            format!(
                "{}{duration} --keys 1000 --warm-up 10ms",
                example.replace("--duration 30s", "--duration 100ms")
            )
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_of_changes_change() {
    let mut cluster = Cluster::start(4, &[]).await;
    let desk = desk_at(&cluster);
    prepare(&desk, &format!("seq 1 2000 | sed 's/.*/&\\tvalue/' | god load -k {KEYSPACE} -"));
    let (cancels, rest): (Vec<String>, Vec<String>) =
        of(&desk, Scene::Changing).into_iter().partition(|it| it.contains("cancel"));
    // It cannot end while a node does not take its part.
    let fourth = cluster.place_of(4).await;
    cluster.nodes[fourth].freeze();
    for example in cancels {
        prepare(&desk, "god ring change --leave 3 --id slow");
        types(&desk, Some(&cluster), &example.replace(" ID", " slow"));
    }
    cluster.nodes[fourth].thaw();
    cluster.wait_until_up().await;
    for example in rest {
        types(&desk, Some(&cluster), &example);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_of_making_up_for_a_node_make_up_for_it() {
    let mut cluster = Cluster::start(4, &[]).await;
    let desk = desk_at(&cluster);
    another(&mut cluster, &["--join", "manual"]);
    cluster.wait_until_up().await;
    // The first one founded the cluster, and is asked.
    let (mut lost, mut ended) = (4, 0);
    for example in of(&desk, Scene::Bereaved) {
        let place = cluster.place_of(lost).await;
        cluster.nodes[place].kill();
        // Whoever answers has not lost its data, and is refused.
        let client = cluster.nodes[0].client();
        wait_for("the node to be known to be down", || {
            let mut client = client.clone();
            async move {
                let nodes = client.status().await?.nodes;
                let state = nodes.into_iter().find(|node| node.number == lost).map(|node| node.state);
                if state.as_deref() == Some("down") { Ok(()) } else { Err(format!("{state:?}")) }
            }
        })
        .await;
        let (from, by) = (lost.to_string(), "5");
        types(&desk, Some(&cluster), &example.replace("LOST", &from).replace("NEW", by));
        ended += 1;
        settled(&cluster.nodes[0].client(), ended).await;
        lost = 5;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_of_recovery_recover() {
    let mut cluster = Cluster::start(3, &[]).await;
    let desk = desk_at(&cluster);
    let (first, second, third) =
        (cluster.place_of(1).await, cluster.place_of(2).await, cluster.place_of(3).await);
    for lost in [first, third] {
        cluster.nodes[lost].kill();
    }
    // `db-2` is the second one here, as whoever named it so had it.
    cluster.nodes.swap(1, second);
    for example in of(&desk, Scene::Stuck) {
        types(&desk, Some(&cluster), &example);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_of_clusters_to_play_with_start_and_stop() {
    let desk = Desk::new();
    fs::create_dir(desk.path().join("tmp")).unwrap();
    let line = "0041;LATIN CAPITAL LETTER A;Lu;0;L;;;;;N;;;;0061;\n";
    fs::write(desk.path().join("UnicodeData.txt"), line).unwrap();
    let _turn = turn().await;
    for example in of(&desk, Scene::Dev) {
        let goes_on = !["--detach", "stop", "bench"].iter().any(|word| example.contains(word));
        let typed = own(&hurried(&example), &desk, None);
        let said =
            if goes_on { desk.types_until(&typed, "Try, in another terminal") } else { desk.types(&typed) };
        // Whatever came of it, nothing goes on.
        for data in ["god-data", "tmp/b", "tmp/try"] {
            let keeps = data == "tmp/b" && example.contains("bench");
            if desk.path().join(data).is_dir() && !keeps {
                desk.types(&format!("god dev stop --data {data}"));
            }
        }
        assert_eq!(said.code, 0, "$ {typed}\n{}", said.text);
    }
    prepare(&desk, "god dev stop --data tmp/b");
}
