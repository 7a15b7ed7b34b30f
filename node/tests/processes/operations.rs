//! docs/OPERATIONS.md, as it stands there: the blocks of its sections are typed one after the other, on one cluster.

use crate::{
    client::Client,
    cluster::{Cluster, Process, wait_for},
    ring::{another_of, operations, settled},
    shell::{Desk, blocks},
};

const OPERATIONS: &str = include_str!("../../../docs/OPERATIONS.md");
/// Sections whose blocks are typed elsewhere, and why.
const ELSEWHERE: [(&str, &str); 1] =
    [("On machines", "it installs programs and a unit; `.ci/install test` does so in a place of its own")];
/// How a new node is started, where the reader has a machine for it.
const NEW_NODE: &str = "god-node --data /var/lib/god --seed first:7100";
/// What was loaded is there until it is deleted.
const KEYS: usize = 2_000;

/// The lines of all `sh` blocks, without what is said of them, by the section that they stand in.
fn sections() -> Vec<(String, Vec<String>)> {
    let mut all = blocks(OPERATIONS, "sh", &["##", "###"]);
    for line in all.iter_mut().flat_map(|(_, lines)| lines) {
        *line = line.split("  ").next().unwrap().to_owned();
    }
    all
}

/// Kills nodes, and waits until the others know: whoever answers has not lost its data.
async fn lose(cluster: &mut Cluster, client: &Client, numbers: &[u32]) {
    for number in numbers {
        let place = cluster.place_of(*number).await;
        cluster.nodes[place].kill();
    }
    wait_for("nodes to be known to be down", || async {
        let nodes = client.clone().status().await?.nodes;
        let down = |number: &u32| nodes.iter().any(|node| node.number == *number && node.state == "down");
        if numbers.iter().all(down) { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
}

async fn at_rest(client: &Client) {
    wait_for("operations to end", || async {
        let list = operations(client).await?;
        if list.operations.is_empty() { Ok(()) } else { Err(format!("{:?}", list.operations)) }
    })
    .await;
}

/// "Then stop its process and delete its data."
async fn stop_who_left(cluster: &mut Cluster, client: &Client) {
    let members = client.clone().status().await.unwrap().nodes;
    for node in &mut cluster.nodes {
        if node.runs() && members.iter().all(|member| member.grpc_address != node.grpc) {
            node.kill();
        }
    }
    cluster.nodes.retain_mut(Process::runs);
}

/// A node that is started as a line says, on a free place of this machine.
async fn starts(cluster: &mut Cluster, client: &Client, line: &str) {
    let options = line.strip_prefix(NEW_NODE).unwrap_or_else(|| panic!("not as other nodes begin: {line}"));
    let options: Vec<&str> = options.split_whitespace().collect();
    let ended = operations(client).await.unwrap().ended.len();
    let seed = cluster.nodes[0].peer.clone();
    another_of(cluster, &seed, &options);
    let address = cluster.nodes.last().unwrap().grpc.clone();
    wait_for("a new node to be there", || async {
        let nodes = client.clone().status().await?.nodes;
        let node = nodes.iter().find(|node| node.grpc_address == address);
        let up = node.is_some_and(|node| node.state == "up");
        if up { Ok(()) } else { Err(format!("{node:?}")) }
    })
    .await;
    if options.is_empty() {
        // It joins by itself.
        settled(client, ended + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_are_done_as_they_are_written_down() {
    let sections = sections();
    for (title, why) in ELSEWHERE {
        assert!(sections.iter().any(|(name, _)| name == title), "{title} ({why}) has no block any more");
    }
    let mut cluster = Cluster::start(3, &[]).await;
    let client = cluster.nodes[0].client();
    let mut desk = Desk::new();
    let types = |desk: &Desk, line: &str| {
        let said = desk.types(line);
        assert_eq!(said.code, 0, "$ {line}\n{}", said.text);
        said.text
    };
    let (mut typed, mut moves) = (0, 0);
    for (title, lines) in sections.iter().filter(|(title, _)| ELSEWHERE.iter().all(|it| it.0 != title)) {
        match title.as_str() {
            "Replace a lost node" => lose(&mut cluster, &client, &[2]).await,
            "Do without a lost node" => lose(&mut cluster, &client, &[5]).await,
            "Delete a keyspace" => {
                assert_eq!(types(&desk, "god count -k orders").trim(), KEYS.to_string());
            }
            "Recover" => lose(&mut cluster, &client, &[6, 7]).await,
            _ => {}
        }
        // It cannot end before it is cancelled while a node does not take its part.
        let held = match title.as_str() {
            "Cancel" => Some(cluster.place_of(4).await),
            _ => None,
        };
        held.iter().for_each(|place| cluster.nodes[*place].freeze());
        for line in lines {
            typed += 1;
            moves += usize::from(line.contains("god ring change"));
            if line.starts_with("god-node ") {
                starts(&mut cluster, &client, line).await;
                continue;
            }
            let servers: Vec<&str> = cluster.nodes.iter().map(|node| node.grpc.as_str()).collect();
            desk.variables = vec![("GOD_SERVER".to_owned(), servers.join(","))];
            if typed == 1 {
                types(&desk, "god keyspace create orders");
                types(&desk, &format!("seq 1 {KEYS} | sed 's/.*/&\\tvalue/' | god load -k orders -"));
            }
            types(&desk, line);
        }
        held.iter().for_each(|place| cluster.nodes[*place].thaw());
        // Whoever is lost decides nothing any more, nor is anything under way then.
        if title != "Recover" {
            at_rest(&client).await;
            stop_who_left(&mut cluster, &client).await;
        }
    }
    assert!(typed > 25 && moves > 12, "{typed} lines were typed, {moves} of them changes: {sections:?}");
    let status = client.clone().status().await.unwrap();
    let mut members: Vec<u32> = status.nodes.iter().map(|node| node.number).collect();
    members.sort_unstable();
    assert_eq!(members, [1, 6, 7], "the story ends with these");
    assert!(cluster.nodes.iter_mut().any(Process::runs));
}
