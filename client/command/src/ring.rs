//! `god ring`: who holds what.

use crate::{
    context::Context,
    failure::Failure,
    figures::counted,
    operation::{self, ChangeArgs, WishArgs},
    output::{self, render},
    status::context_id,
    text::{escape, shown},
};
use clap::{Args, Subcommand};
use god_proto::{
    ring::partitioner,
    v1::{Arc, Keyspace, Mode, Partitioner, RingDocument},
};
use serde_json::{Value, json};

/// Shows who holds what
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god ring show
  god ring show --arcs                   every arc, where it starts, and its replicas (the first one leads)
  god ring show --arcs -o json | jq '.arcs[] | select(.next)'      arcs that change hands
  god ring plan --leave 3                what would move if node 3 left; nothing does
  god ring change --leave 3              node 3 gives its data to the others, and is retired
  god ring watch                         operations and how far they are
  god ring watch -o json                 the same as lines of JSON, one at each change
  god ring cancel ID                     undo one that has not ended")]
pub struct RingArgs {
    /// List every arc
    #[arg(long)]
    arcs: bool,
    #[command(subcommand)]
    command: Option<RingCommand>,
}

/// What can be done with a ring.
#[derive(Subcommand, Debug)]
enum RingCommand {
    /// Shows keyspaces, nodes and what changes (as `god ring` alone does)
    Show {
        /// List every arc
        #[arg(long)]
        arcs: bool,
    },
    /// Shows what an operation would move, and why; nothing moves
    Plan(WishArgs),
    /// Begins an operation: data moves in the background
    Change(ChangeArgs),
    /// Shows operations until the last one has ended
    Watch,
    /// Undoes an operation that has not ended
    Cancel {
        /// Its id, as `god ring watch` shows it
        id: String,
    },
}

pub async fn run(context: &Context, args: &RingArgs) -> Result<(), Failure> {
    match &args.command {
        Some(RingCommand::Plan(wish)) => operation::plan(context, wish).await,
        Some(RingCommand::Change(change)) => operation::change(context, change).await,
        Some(RingCommand::Watch) => operation::watch(context).await,
        Some(RingCommand::Cancel { id }) => operation::cancel(context, id).await,
        Some(RingCommand::Show { arcs }) => show(context, *arcs || args.arcs).await,
        None => show(context, args.arcs).await,
    }
}

async fn show(context: &Context, arcs: bool) -> Result<(), Failure> {
    let ring = context.client().ring().await?;
    output::document(context.output(), &as_json(&ring, arcs), || as_text(&ring, arcs))
}

/// The arcs of a keyspace: those whose start has its number.
fn arcs_of<'a>(ring: &'a RingDocument, keyspace: &'a Keyspace) -> impl Iterator<Item = &'a Arc> {
    ring.arcs.iter().filter(|arc| arc.start.starts_with(&keyspace.id.to_be_bytes()))
}

fn as_text(ring: &RingDocument, arcs: bool) -> String {
    let voters: Vec<String> = ring.voters.iter().map(ToString::to_string).collect();
    let mut out = format!(
        "cluster {}   epoch {}\n{}, voters {}, {} virtual nodes\n\n",
        context_id(&ring.cluster),
        ring.epoch,
        counted(ring.nodes.len() as u64, "node"),
        voters.join(" "),
        ring.virtual_nodes
    );
    let mut table = output::table(
        &["keyspace", "order", "replicas", "write", "read", "mode", "arcs", "changing hands"],
        &["replicas", "write", "read", "arcs", "changing hands"],
    );
    for keyspace in &ring.keyspaces {
        let moving = arcs_of(ring, keyspace).filter(|arc| arc.transition.is_some()).count();
        let arcs = arcs_of(ring, keyspace).count();
        table.add_row(cells(keyspace).into_iter().chain([arcs.to_string(), moving.to_string()]));
    }
    out += &render(table);
    out += "\n\n";
    let mut table = output::table(
        &["node", "address", "zone", "weight", "leads", "holds"],
        &["weight", "leads", "holds"],
    );
    for node in &ring.nodes {
        let leads = ring.arcs.iter().filter(|arc| arc.replicas.first() == Some(&node.number)).count();
        let holds = ring.arcs.iter().filter(|arc| arc.replicas.contains(&node.number)).count();
        table.add_row([
            node.number.to_string(),
            node.grpc_address.clone(),
            node.zone.clone(),
            node.weight.to_string(),
            leads.to_string(),
            holds.to_string(),
        ]);
    }
    out += &render(table);
    for operation in &ring.operations {
        out += &format!("\n\noperation {}: {}", operation.id, operation::words(operation));
    }
    if arcs {
        let mut table = output::table(&["arc", "keyspace", "from", "replicas", "next"], &["arc"]);
        for keyspace in &ring.keyspaces {
            for arc in arcs_of(ring, keyspace) {
                let next = arc.transition.as_ref().map(|transition| numbers(&transition.next));
                table.add_row([
                    arc.id.to_string(),
                    keyspace.name.clone(),
                    start(keyspace, arc),
                    numbers(&arc.replicas),
                    next.unwrap_or_default(),
                ]);
            }
        }
        out += "\n\n";
        out += &render(table);
    }
    out
}

fn numbers(nodes: &[u32]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn order(keyspace: &Keyspace) -> &'static str {
    match partitioner(keyspace) {
        Partitioner::Hashed => "hashed",
        Partitioner::Ordered => "ordered",
    }
}

fn mode(keyspace: &Keyspace) -> &'static str {
    match keyspace.mode() {
        Mode::Lww => "lww",
        Mode::Linearizable => "linearizable",
    }
}

/// What tables show of a keyspace: its name, order, replicas, quorums of writes and reads, and mode.
pub fn cells(keyspace: &Keyspace) -> [String; 6] {
    [
        keyspace.name.clone(),
        order(keyspace).to_owned(),
        keyspace.replicas.to_string(),
        keyspace.write_quorum.to_string(),
        keyspace.read_quorum.to_string(),
        mode(keyspace).to_owned(),
    ]
}

/// Where an arc starts, as its keyspace counts: a hash, or a key.
fn start(keyspace: &Keyspace, arc: &Arc) -> String {
    let rest = arc.start.get(4..).unwrap_or_default();
    if rest.is_empty() {
        return "(start)".to_owned();
    }
    match partitioner(keyspace) {
        Partitioner::Hashed => hex::encode(rest),
        Partitioner::Ordered => shown(&key_of_start(rest)),
    }
}

/// The key of an ordered arc's start: escaped zeros undone, up to the terminator.
fn key_of_start(start: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(start.len());
    let mut rest = start;
    loop {
        match rest {
            [0x00, 0xff, after @ ..] => {
                key.push(0);
                rest = after;
            }
            [] | [0x00, ..] => return key,
            [byte, after @ ..] => {
                key.push(*byte);
                rest = after;
            }
        }
    }
}

fn as_json(ring: &RingDocument, arcs: bool) -> Value {
    let keyspaces: Vec<Value> = ring
        .keyspaces
        .iter()
        .map(|keyspace| {
            let mut json = keyspace_json(keyspace);
            if let Some(object) = json.as_object_mut() {
                object.insert("arcs".to_owned(), arcs_of(ring, keyspace).count().into());
                let moving = arcs_of(ring, keyspace).filter(|arc| arc.transition.is_some()).count();
                object.insert("changing_hands".to_owned(), moving.into());
            }
            json
        })
        .collect();
    let nodes: Vec<Value> = ring
        .nodes
        .iter()
        .map(|node| {
            json!({
                "number": node.number,
                "uuid": context_id(&node.uuid),
                "grpc": node.grpc_address,
                "peer": node.peer_address,
                "http": node.http_address,
                "zone": node.zone,
                "weight": node.weight,
                "state": node.state().as_str_name().trim_start_matches("MEMBER_STATE_").to_lowercase(),
                "version": node.version,
            })
        })
        .collect();
    let mut json = json!({
        "cluster": context_id(&ring.cluster),
        "epoch": ring.epoch,
        "voters": ring.voters,
        "virtual_nodes": ring.virtual_nodes,
        "keyspaces": keyspaces,
        "nodes": nodes,
        "operations": ring.operations.iter().map(operation::as_json).collect::<Vec<Value>>(),
    });
    if arcs && let Some(object) = json.as_object_mut() {
        let arcs = ring.keyspaces.iter().flat_map(|keyspace| {
            arcs_of(ring, keyspace).map(|arc| {
                let start_key = (partitioner(keyspace) == Partitioner::Ordered)
                    .then(|| escape(&key_of_start(arc.start.get(4..).unwrap_or_default())));
                json!({
                    "id": arc.id,
                    "keyspace": keyspace.name,
                    "start": hex::encode(&arc.start),
                    "start_key": start_key,
                    "replicas": arc.replicas,
                    "next": arc.transition.as_ref().map(|transition| transition.next.clone()),
                })
            })
        });
        object.insert("arcs".to_owned(), arcs.collect());
    }
    json
}

/// A keyspace as JSON.
pub fn keyspace_json(keyspace: &Keyspace) -> Value {
    json!({
        "id": keyspace.id,
        "name": keyspace.name,
        "partitioner": order(keyspace),
        "replicas": keyspace.replicas,
        "write_quorum": keyspace.write_quorum,
        "read_quorum": keyspace.read_quorum,
        "mode": mode(keyspace),
        "default_ttl_ms": keyspace.default_ttl_ms,
        "live": keyspace.live,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use god_proto::{ids::KeyspaceId, position::Position};

    #[test]
    fn an_arcs_start_is_shown_as_its_keyspace_counts() {
        let ordered = Keyspace { id: 2, partitioner: Partitioner::Ordered.into(), ..Keyspace::default() };
        let hashed = Keyspace { id: 2, ..Keyspace::default() };
        let arc = |start: Position| Arc { start: start.into_bytes(), ..Arc::default() };
        let id = KeyspaceId(2);
        assert_eq!(start(&ordered, &arc(Position::keyspace_start(id))), "(start)");
        assert_eq!(start(&ordered, &arc(Position::of_ordered_bound(id, b"k\0\tm"))), "k\\x00\\tm");
        assert_eq!(start(&ordered, &arc(Position::from_bytes(b"\0\0\0\x02cut".to_vec()))), "cut");
        assert_eq!(start(&hashed, &arc(Position::of_hash(id, 1 << 63))), "8000000000000000");
    }
}
