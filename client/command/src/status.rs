//! `god status`: what an operator on call reads first.

use crate::{
    context::Context,
    failure::Failure,
    figures::{CLOCK_BAD_US, CLOCK_LOOK_US, bytes, counted, offset_us, short, uptime},
    follow::line,
    operation::status_json,
    output::{self, Judgement, judged, render},
};
use clap::Args;
use god_proto::v1::{DepartedNode, NodeStatus, OperationStatus, StatusReply};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Shows how the cluster is
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god status
  god status --server db-1:7000,db-2:7000
  god status --output json | jq '.nodes[] | select(.state != \"up\")'

What is shown of each node: its state; its part of all copies (share, arcs); keys, bytes and requests a second;
how far its clock is ahead of its peers'; writes it keeps for others (hints); how long it runs (age).
Below them: operations that are under way, how far they are, and why one does not go on.
A * marks the voters, which decide changes of the ring.")]
pub struct StatusArgs {}

pub async fn run(context: &Context, _: &StatusArgs) -> Result<(), Failure> {
    // Both at once: a node that hangs is waited for once.
    let (reply, operations) = tokio::join!(context.client().status(), context.client().list_operations());
    let mut reply = reply?;
    // What is wrong is looked for when much is: one answer less keeps nobody from the others.
    let operations = match operations {
        Ok(list) => Some(list.operations),
        Err(error) => {
            reply.warnings.push(format!("what is under way is not known: {error}"));
            None
        }
    };
    let operations = operations.as_deref();
    output::document(context.output(), &as_json(&reply, operations), || as_text(&reply, operations))
}

fn as_text(reply: &StatusReply, operations: Option<&[OperationStatus]>) -> String {
    let up = reply.nodes.iter().filter(|node| node.state == "up").count();
    let versions: BTreeSet<&str> = reply.nodes.iter().map(|node| node.version.as_str()).collect();
    let zones = reply.nodes.iter().any(|node| !node.zone.is_empty());
    let mut out = format!("cluster {}   epoch {}", context_id(&reply.cluster), reply.epoch);
    if let (Some(version), 1) = (versions.first(), versions.len()) {
        out += &format!("   version {version}");
    }
    out += &format!("\n{up} of {} up", counted(reply.nodes.len() as u64, "node"));
    out += &match reply.under_replicated_arcs {
        0 => format!(", all {} fully replicated", counted(reply.arcs.into(), "arc")),
        few => format!(", {few} of {} UNDER-REPLICATED", counted(reply.arcs.into(), "arc")),
    };
    out += "\n\n";
    out += &table(reply, zones, versions.len() > 1);
    let mut said = false;
    for operation in operations.into_iter().flatten() {
        out += if said { "\n" } else { "\n\n" };
        out += &format!("operation {}", line(operation));
        said = true;
    }
    for (node, reason) in
        reply.nodes.iter().flat_map(|node| reasons(node).into_iter().map(move |why| (node, why)))
    {
        out += if said { "\n" } else { "\n\n" };
        out += &format!("node {} is {}: {reason}", node.number, node.state);
        said = true;
    }
    for node in &reply.departed {
        out += if said { "\n" } else { "\n\n" };
        out += &departed(node);
        said = true;
    }
    for warning in &reply.warnings {
        out += if said { "\n" } else { "\n\n" };
        out += &format!("warning: {warning}");
        said = true;
    }
    out
}

fn table(reply: &StatusReply, zones: bool, versions: bool) -> String {
    let mut header = vec!["node", "state", "address"];
    if zones {
        header.push("zone");
    }
    let right = ["weight", "share", "arcs", "keys", "bytes", "ops/s", "clock", "hints", "age"];
    header.extend(right.iter().take(8));
    // While versions differ a rollout is on: it tells as much as the age does.
    header.push(if versions { "version" } else { "age" });
    let mut table = output::table(&header, &right);
    for node in &reply.nodes {
        let voter = if node.voter { "*" } else { "" };
        let mut row = vec![
            format!("{}{voter}", node.number).into(),
            judged(&node.state, of_state(&node.state)),
            middle_cut(&node.grpc_address, if zones { 21 } else { 26 }).into(),
        ];
        if zones {
            row.push(middle_cut(&node.zone, 8).into());
        }
        row.push(node.weight.to_string().into());
        row.push(format!("{:.1}%", node.share * 100.0).into());
        row.push(node.arcs.to_string().into());
        match &node.report {
            Some(report) => {
                row.push(short(report.keys as f64).into());
                row.push(bytes(report.bytes).into());
                row.push(short(report.requests_per_second).into());
                row.push(judged(&offset_us(report.clock_offset_us), of_clock(report.clock_offset_us)));
                let hints = short(report.hints_pending as f64);
                let look = report.hints_pending > 0 || report.hints_dropped > 0;
                row.push(judged(&hints, if look { Judgement::Look } else { Judgement::Good }));
            }
            None => row.extend(std::iter::repeat_n("-".into(), 5)),
        }
        let age = node.report.as_ref().map_or_else(|| "-".to_owned(), |report| uptime(report.uptime_ms));
        row.push(if versions { node.version.clone() } else { age }.into());
        table.add_row(row);
    }
    render(table)
}

/// Why a node is not as it should be, and what it lost.
fn reasons(node: &NodeStatus) -> Vec<String> {
    let mut all = node.reasons.clone();
    if let Some(report) = &node.report {
        all.extend(report.reasons.iter().filter(|reason| !node.reasons.contains(reason)).cloned());
        if report.hints_dropped > 0 {
            all.push(format!(
                "{} dropped for lack of room; {} to be compared",
                counted(report.hints_dropped, "hint"),
                counted(report.suspect_arcs.into(), "arc")
            ));
        }
    }
    all
}

/// What is left to be seen of a node that was retired.
fn departed(node: &DepartedNode) -> String {
    let known = counted(node.acknowledged_by.len() as u64, "node");
    let by = if node.acknowledged {
        format!("a quorum knows it ({known})")
    } else {
        format!("not yet known to a quorum ({known}): keep its volume")
    };
    let data = if node.handed_over { "all it held was handed over" } else { "it handed nothing over" };
    format!("left: node {} in epoch {}; {by}; {data}", context_id(&node.uuid), node.epoch)
}

fn of_state(state: &str) -> Judgement {
    match state {
        "up" => Judgement::Good,
        "down" => Judgement::Bad,
        _ => Judgement::Look,
    }
}

fn of_clock(us: i64) -> Judgement {
    match us.unsigned_abs() {
        0..CLOCK_LOOK_US => Judgement::Good,
        CLOCK_LOOK_US..CLOCK_BAD_US => Judgement::Look,
        _ => Judgement::Bad,
    }
}

/// At most so many characters: both ends of a long name tell more than one.
fn middle_cut(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let head = (most - 1) / 2;
    let tail = most - 1 - head;
    let begin: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - tail).collect();
    format!("{begin}…{end}")
}

/// A UUID as it is shown.
pub fn context_id(id: &[u8]) -> String {
    uuid::Uuid::from_slice(id).map_or_else(|_| hex::encode(id), |id| id.to_string())
}

fn as_json(reply: &StatusReply, operations: Option<&[OperationStatus]>) -> Value {
    let nodes: Vec<Value> = reply.nodes.iter().map(node_json).collect();
    json!({
        "cluster": context_id(&reply.cluster),
        "epoch": reply.epoch,
        "arcs": reply.arcs,
        "under_replicated_arcs": reply.under_replicated_arcs,
        "warnings": reply.warnings,
        "nodes": nodes,
        "operations": operations.map(|all| all.iter().map(status_json).collect::<Vec<_>>()),
        "departed": reply.departed.iter().map(|it| json!({
            "uuid": context_id(&it.uuid),
            "epoch": it.epoch,
            "handed_over": it.handed_over,
            "acknowledged_by": it.acknowledged_by,
            "acknowledged": it.acknowledged,
        })).collect::<Vec<_>>(),
    })
}

fn node_json(node: &NodeStatus) -> Value {
    let report = node.report.as_ref().map(|report| {
        json!({
            "keys": report.keys,
            "bytes": report.bytes,
            "epoch": report.epoch,
            "uptime_ms": report.uptime_ms,
            "requests_per_second": report.requests_per_second,
            "clock_offset_us": report.clock_offset_us,
            "hints_pending": report.hints_pending,
            "hints_dropped": report.hints_dropped,
            "suspect_arcs": report.suspect_arcs,
            "lapsed_arcs": report.lapsed_arcs,
            "memory_bytes": report.memory_bytes,
            "disk_free_bytes": report.disk_free_bytes,
            "misplaced_entries": report.misplaced_entries,
            "ready": report.ready,
            "reasons": report.reasons,
            "version": report.version,
        })
    });
    json!({
        "number": node.number,
        "uuid": context_id(&node.uuid),
        "grpc": node.grpc_address,
        "peer": node.peer_address,
        "http": node.http_address,
        "zone": node.zone,
        "weight": node.weight,
        "state": node.state,
        "reasons": node.reasons,
        "version": node.version,
        "arcs": node.arcs,
        "share": node.share,
        "voter": node.voter,
        "report": report,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use god_proto::v1::NodeReport;

    fn node(number: u32, state: &str) -> NodeStatus {
        let report = NodeReport {
            keys: 333_333_333,
            bytes: 999 << 30,
            uptime_ms: 86_400_000 * 999,
            requests_per_second: 123_456.0,
            clock_offset_us: -499_000,
            hints_pending: 123_456,
            ..NodeReport::default()
        };
        NodeStatus {
            number,
            state: state.to_owned(),
            grpc_address: format!("production-god-{number}.production-god.databases.svc.cluster.local:7000"),
            weight: 0.25,
            share: 0.333,
            arcs: 99_999,
            voter: true,
            zone: "europe-west3-a".to_owned(),
            version: "0.1.0".to_owned(),
            report: (state != "down").then_some(report),
            ..NodeStatus::default()
        }
    }

    #[test]
    fn the_widest_cluster_fits_100_columns() {
        let mut reply = StatusReply { cluster: vec![1; 16].into(), arcs: 99_999, ..StatusReply::default() };
        reply.nodes = vec![node(1, "up"), node(200, "unready"), node(999, "down")];
        for line in as_text(&reply, None).lines() {
            assert!(line.chars().count() <= 100, "{}: {line}", line.chars().count());
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_words() {
        let mut reply = StatusReply { under_replicated_arcs: 4, arcs: 30, ..StatusReply::default() };
        reply.nodes = vec![node(1, "up"), node(2, "unready")];
        reply.nodes[1].reasons = vec!["its clock is 612 ms ahead".to_owned()];
        reply.warnings = vec!["fewer zones than replicas".to_owned()];
        let text = as_text(&reply, None);
        assert!(text.contains("1 of 2 nodes up, 4 of 30 arcs UNDER-REPLICATED"), "{text}");
        assert!(text.contains("node 2 is unready: its clock is 612 ms ahead"), "{text}");
        assert!(text.contains("warning: fewer zones than replicas"), "{text}");
    }

    #[test]
    fn who_left_is_told_of_until_it_is_forgotten() {
        let mut reply = StatusReply { nodes: vec![node(1, "up")], ..StatusReply::default() };
        let gone = DepartedNode {
            uuid: vec![7; 16].into(),
            epoch: 12,
            acknowledged_by: vec![1],
            ..DepartedNode::default()
        };
        reply.departed = vec![gone.clone(), DepartedNode { handed_over: true, acknowledged: true, ..gone }];
        let text = as_text(&reply, None);
        assert!(
            text.contains(
                "in epoch 12; not yet known to a quorum (1 node): keep its volume; it handed nothing"
            ),
            "{text}"
        );
        assert!(
            text.contains("in epoch 12; a quorum knows it (1 node); all it held was handed over"),
            "{text}"
        );
    }

    #[test]
    fn a_version_has_a_column_only_while_they_differ() {
        let mut reply = StatusReply { nodes: vec![node(1, "up"), node(2, "up")], ..StatusReply::default() };
        assert!(as_text(&reply, None).contains("version 0.1.0"));
        assert!(!as_text(&reply, None).contains("VERSION"));
        reply.nodes[1].version = "0.2.0".to_owned();
        assert!(as_text(&reply, None).contains("VERSION"));
    }

    #[test]
    fn a_long_name_is_cut_in_its_middle() {
        assert_eq!(middle_cut("abcdefghij", 5), "ab…ij");
        assert_eq!(middle_cut("abc", 5), "abc");
    }
}
