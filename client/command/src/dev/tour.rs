//! What `god dev` says once the cluster is ready: where it is, what to try, how to stop it.

use super::{start::Nodes, state::Loaded};
use crate::{
    figures::{counted, grouped},
    output,
};
use god_proto::v1::StatusReply;
use std::path::Path;

/// The text. `data` is shown as it was typed.
pub fn text(nodes: &Nodes, status: &StatusReply, detached: bool, data: &Path) -> String {
    let state = &nodes.state;
    let mut out = format!(
        "\nA cluster of {} is ready, its data in {}\n\n",
        counted(state.nodes.len() as u64, "node"),
        data.display()
    );
    let mut table = output::table(&["  node", "clients", "http", "process", "log"], &[]);
    for node in &state.nodes {
        let log = data.join(format!("node-{}.log", node.id));
        let pid = node.pid.map(|pid| pid.to_string()).unwrap_or_default();
        table.add_row([
            format!("  {}", node.id),
            node.grpc.clone(),
            format!("http://{}", node.http),
            pid,
            log.display().to_string(),
        ]);
    }
    out += &output::render(table);
    out.push('\n');
    if status.under_replicated_arcs > 0 {
        out += &format!(
            "\n{} are under-replicated yet; see `status`.\n",
            counted(status.under_replicated_arcs.into(), "arc")
        );
    }
    for loaded in &state.loaded {
        let name = loaded.file.file_name().unwrap_or_default().to_string_lossy();
        out += &format!(
            "\nKeyspace {} (ordered) has the {} keys of {name}.\n",
            loaded.keyspace,
            grouped(loaded.keys)
        );
    }
    out += "\nTry, in another terminal:\n";
    let server = state.nodes.first().map(|node| node.grpc.as_str()).unwrap_or_default();
    let god = program();
    for command in commands(state.loaded.last()) {
        let (verb, rest) = command.split_once(' ').unwrap_or((&command, ""));
        out += format!("  {god} {verb} --server {server} {rest}").trim_end();
        out.push('\n');
    }
    out += &format!(
        "  curl http://{}/metrics\n",
        state.nodes.first().map(|node| node.http.as_str()).unwrap_or_default()
    );
    let stop = format!("{god} dev stop --data {}", data.display());
    out +=
        &if detached { format!("\nStop it: {stop}") } else { format!("\nStop it: Ctrl-C here (or {stop})") };
    out
}

/// Five to try: about the loaded data if there is some.
fn commands(loaded: Option<&Loaded>) -> Vec<String> {
    let mut all = vec!["status".to_owned()];
    match loaded.map(|loaded| (loaded.keyspace.as_str(), loaded.keys)) {
        Some(("unicodedata", _)) => all.extend([
            "get -k unicodedata 'SNOWMAN U+2603'".to_owned(),
            "scan -k unicodedata --prefix 'GREEK SMALL LETTER' --limit 5".to_owned(),
            "count -k unicodedata --from A --before B".to_owned(),
            "rank -k unicodedata 'SNOWMAN U+2603'".to_owned(),
        ]),
        Some((name, keys)) => all.extend([
            format!("scan -k {name} --limit 5"),
            format!("scan -k {name} --reverse --limit 5"),
            format!("count -k {name}"),
            format!("select -k {name} {}", keys / 2),
        ]),
        None => all.extend([
            "put colour blue".to_owned(),
            "get colour".to_owned(),
            "count".to_owned(),
            "keyspace create names --ordered".to_owned(),
        ]),
    }
    all
}

/// This program as it was typed, if it was by its path.
fn program() -> String {
    std::env::args().next().filter(|name| name.contains('/')).unwrap_or_else(|| "god".to_owned())
}
