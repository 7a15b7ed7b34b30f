#![allow(clippy::unwrap_used)]
use super::*;
use crate::doctor::observe::NodeAnswers;
use god_proto::v1::{Arc, DepartedNode, Keyspace, Operation, OperationStatus, Transition};

/// Three nodes that are as they should be, with one keyspace.
fn healthy() -> Examined {
    let report =
        NodeReport { disk_free_bytes: 100 << 30, bytes: 1 << 30, ready: true, ..NodeReport::default() };
    let node = |number: u32| NodeStatus {
        number,
        state: "up".to_owned(),
        grpc_address: format!("db-{number}:7000"),
        version: "0.1.0".to_owned(),
        voter: true,
        report: Some(report.clone()),
        ..NodeStatus::default()
    };
    let nodes: Vec<NodeStatus> = (1..=3).map(node).collect();
    let status =
        StatusReply { cluster: vec![9; 16].into(), epoch: 4, nodes, arcs: 2, ..StatusReply::default() };
    let keyspace = Keyspace {
        id: 1,
        name: "default".to_owned(),
        replicas: 3,
        write_quorum: 2,
        read_quorum: 2,
        ..Keyspace::default()
    };
    let arc = |id| Arc {
        id,
        start: [&1u32.to_be_bytes()[..], &[id as u8]].concat().into(),
        replicas: vec![1, 2, 3],
        transition: None,
        changed: 0,
    };
    let mut seen = Examined { version: "0.1.0".to_owned(), ..Examined::default() };
    seen.ring.keyspaces = vec![keyspace];
    seen.ring.arcs = vec![arc(1), arc(2)];
    seen.nodes = (1..=3)
        .map(|_| NodeAnswers {
            own: Ok(status.clone()),
            http: Ok(Http {
                figures: [("process_max_fds".to_owned(), 1e6), ("process_open_fds".to_owned(), 90.0)].into(),
                ahead_ms: Some((-5, 1_990)),
            }),
        })
        .collect();
    seen.status = status;
    seen
}

fn down(seen: &mut Examined, at: usize) {
    seen.status.nodes[at].state = "down".to_owned();
    seen.status.nodes[at].report = None;
    seen.nodes[at].own = Err("connection refused".to_owned());
    seen.nodes[at].http = Err("connection refused".to_owned());
}

/// What is worse than a note.
fn found(seen: &Examined) -> Vec<(Severity, &'static str)> {
    let all = judge(seen);
    assert!(all.iter().all(|it| it.severity == Severity::Note || !it.remedy.is_empty()), "{all:?}");
    all.iter().filter(|it| it.severity > Severity::Note).map(|it| (it.severity, it.check)).collect()
}

#[test]
fn nothing_is_found_of_a_healthy_cluster() {
    assert_eq!(found(&healthy()), []);
    let notes: Vec<&str> = judge(&healthy()).iter().map(|it| it.check).collect();
    assert_eq!(notes, ["certificates"]);
}

#[test]
fn one_node_that_is_down_is_a_warning_and_two_are_a_problem() {
    let mut seen = healthy();
    down(&mut seen, 2);
    use Severity::{Problem, Warning};
    assert_eq!(found(&seen), [(Warning, "reach"), (Warning, "voters"), (Warning, "quorums")]);
    down(&mut seen, 0);
    assert_eq!(
        found(&seen),
        [(Problem, "voters"), (Problem, "quorums"), (Warning, "reach"), (Warning, "reach")]
    );
    let all = judge(&seen);
    assert!(all[0].remedy.contains("god recover --lost 1,3"), "{all:?}");
    assert!(all[1].what.contains("write to 2 of 2 arcs and to read from 2 of 2 arcs"), "{all:?}");
}

fn unready(seen: &mut Examined, at: usize, reason: &str) {
    let report = seen.status.nodes[at].report.as_mut().unwrap();
    (report.ready, report.reasons) = (false, vec![reason.to_owned()]);
    seen.status.nodes[at].state = "unready".to_owned();
}

fn suspect(seen: &mut Examined, at: usize) {
    seen.status.nodes[at].state = "suspect".to_owned();
    seen.status.nodes[at].report = None;
}

/// What is found of the voters, and what to do.
fn of_voters(seen: &Examined) -> (Severity, String) {
    let found = judge(seen).into_iter().find(|it| it.check == "voters").unwrap();
    (found.severity, format!("{}; {}", found.what, found.remedy))
}

#[test]
fn a_voter_that_leaves_decides_while_it_answers() {
    let mut seen = healthy();
    seen.status.nodes[1].state = "leaving".to_owned();
    assert!(judge(&seen).iter().all(|it| it.check != "voters"), "all three decide");
    down(&mut seen, 2);
    let (severity, said) = of_voters(&seen);
    assert_eq!(severity, Severity::Warning, "{said}");
    assert!(said.starts_with("2 of 3 voters are up; start them"), "{said}");
    assert!(!said.contains("god recover"), "{said}");
    seen.status.nodes[1].report = None;
    let (severity, said) = of_voters(&seen);
    assert_eq!(severity, Severity::Problem, "{said}");
    assert!(said.ends_with("god recover --lost 2,3"), "{said}");
}

#[test]
fn a_recovery_names_those_too_that_are_down_and_decide_nothing() {
    let mut seen = healthy();
    let other = NodeStatus { number: 9, voter: false, ..seen.status.nodes[2].clone() };
    seen.status.nodes.push(other);
    for node in &mut seen.status.nodes[1..] {
        (node.state, node.report) = ("down".to_owned(), None);
    }
    let (_, said) = of_voters(&seen);
    assert!(said.starts_with("1 of 3 voters are up") && said.ends_with("god recover --lost 2,3,9"), "{said}");
}

#[test]
fn voters_that_are_only_suspected_are_waited_for() {
    let mut seen = healthy();
    suspect(&mut seen, 2);
    let one = (Severity::Warning, "2 of 3 voters are up; 1 is suspected: wait a moment".to_owned());
    assert_eq!(of_voters(&seen), one);
    suspect(&mut seen, 1);
    let (severity, said) = of_voters(&seen);
    assert_eq!(severity, Severity::Problem, "{said}");
    assert_eq!(
        said, "1 of 3 voters are up: no change is decided; 2 are suspected: wait a moment",
        "nobody is lost"
    );
    down(&mut seen, 2);
    let (_, said) = of_voters(&seen);
    assert!(said.ends_with("1 is suspected: wait a moment; start node 3"), "two would be enough: {said}");
    suspect(&mut seen, 0);
    suspect(&mut seen, 1);
    let (_, said) = of_voters(&seen);
    assert!(!said.contains("god recover"), "{said}");
    down(&mut seen, 1);
    let (_, said) = of_voters(&seen);
    assert!(said.ends_with("start nodes 2,3; if they never come back: god recover --lost 2,3"), "{said}");
}

#[test]
fn a_voter_whose_storage_failed_decides_nothing_and_is_mended_first() {
    let mut seen = healthy();
    unready(&mut seen, 1, "storage failed, restart the node: IO error: /data/000042.log");
    let (severity, said) = of_voters(&seen);
    assert_eq!(severity, Severity::Warning, "{said}");
    assert!(said.starts_with("2 of 3 voters are up; mend or stop node 2"), "{said}");
    down(&mut seen, 0);
    for state in ["unready", "leaving"] {
        seen.status.nodes[1].state = state.to_owned();
        let (severity, said) = of_voters(&seen);
        assert_eq!(severity, Severity::Problem, "{said}");
        assert!(
            said.starts_with("1 of 3 voters are up: no change is decided; mend or stop node 2"),
            "{said}"
        );
        let last = "; start node 1; only then, if they never come back: god recover --lost 1,2";
        assert!(said.ends_with(last), "{said}");
    }
    let mut seen = healthy();
    unready(&mut seen, 1, "storage failed, restart the node: IO error");
    unready(&mut seen, 2, "storage failed, restart the node: IO error");
    let (severity, said) = of_voters(&seen);
    assert_eq!(severity, Severity::Problem, "{said}");
    assert!(said.contains("mend or stop nodes 2,3") && !said.contains("god recover"), "{said}");
}

#[test]
fn a_voter_that_is_unready_for_another_reason_decides() {
    for reason in [
        "its clock is 612 ms ahead",
        "the disk is full: /data has 40 MiB free, and 64 MiB are kept in reserve",
        "storage is damaged: a block of /data/000042.sst",
    ] {
        let mut seen = healthy();
        unready(&mut seen, 1, reason);
        assert!(judge(&seen).iter().all(|it| it.check != "voters"), "{reason}");
        down(&mut seen, 0);
        let (severity, said) = of_voters(&seen);
        assert_eq!(severity, Severity::Warning, "{reason}: {said}");
    }
}

#[test]
fn an_arc_that_changes_hands_needs_both_quorums() {
    let mut seen = healthy();
    seen.ring.arcs[1].transition = Some(Transition { next: vec![1, 4, 5], since: 3 });
    assert_eq!(found(&seen), [(Severity::Problem, "quorums")]);
}

#[test]
fn what_only_one_side_reaches_is_told_apart() {
    let mut seen = healthy();
    seen.nodes[1].own = Err("no route to host".to_owned());
    assert_eq!(found(&seen), [(Severity::Warning, "reach")]);
    let mut seen = healthy();
    seen.status.nodes[1].state = "down".to_owned();
    assert!(judge(&seen)[0].what.contains("this machine reaches it, and other nodes do not"));
    let mut seen = healthy();
    seen.nodes[1].own = Ok(StatusReply { cluster: vec![1; 16].into(), ..StatusReply::default() });
    assert!(judge(&seen)[0].what.contains("another cluster answers there"));
    assert_eq!(found(&seen), [(Severity::Problem, "reach")]);
}

#[test]
fn clocks_are_judged_by_the_nodes_bounds() {
    for (off, severity) in [
        (99_999, None),
        (-100_000, Some(Severity::Warning)),
        (399_999, Some(Severity::Warning)),
        (-400_000, Some(Severity::Problem)),
    ] {
        let mut seen = healthy();
        seen.status.nodes[0].report.as_mut().unwrap().clock_offset_us = off;
        assert_eq!(found(&seen).first().map(|it| it.0), severity, "{off}");
    }
}

#[test]
fn a_clock_that_cannot_be_this_machines_is_told_by_what_is_certain() {
    for (ahead, words) in
        [((-5, 1_990), None), ((4_000, 6_000), Some("+4.0s")), ((-9_000, -7_000), Some("-7.0s"))]
    {
        let mut seen = healthy();
        seen.nodes[0].http.as_mut().unwrap().ahead_ms = Some(ahead);
        let all = judge(&seen);
        let told = all.iter().find(|it| it.check == "clocks");
        assert_eq!(told.is_some(), words.is_some(), "{all:?}");
        assert!(told.is_none_or(|it| it.what.contains(words.unwrap_or_default())), "{all:?}");
    }
}

#[test]
fn room_on_a_disk_is_judged_beside_what_is_stored() {
    for (free, stored, severity) in [
        (100 << 30, 1 << 30, None),
        (2 << 30, 3 << 30, Some(Severity::Warning)),
        (1 << 29, 0, Some(Severity::Warning)),
        (255 << 20, 0, Some(Severity::Problem)),
    ] {
        let mut seen = healthy();
        let report = seen.status.nodes[0].report.as_mut().unwrap();
        (report.disk_free_bytes, report.bytes) = (free, stored);
        assert_eq!(found(&seen).first().copied(), severity.map(|severity| (severity, "disk")), "{free}");
    }
}

#[test]
fn open_files_are_judged_where_they_are_told() {
    for (most, open, severity) in [
        (1e6, 90.0, None),
        (1_024.0, 90.0, Some(Severity::Warning)),
        (1_024.0, 900.0, Some(Severity::Problem)),
    ] {
        let mut seen = healthy();
        let figures = &mut seen.nodes[0].http.as_mut().unwrap().figures;
        figures.insert("process_max_fds".to_owned(), most);
        figures.insert("process_open_fds".to_owned(), open);
        assert_eq!(found(&seen).first().copied(), severity.map(|severity| (severity, "files")), "{most}");
    }
    let mut seen = healthy();
    seen.nodes[0].http.as_mut().unwrap().figures.clear();
    assert!(judge(&seen).iter().any(|it| it.check == "files" && it.severity == Severity::Note));
}

#[test]
fn what_is_not_where_it_should_be_is_told() {
    let mut seen = healthy();
    let report = seen.status.nodes[0].report.as_mut().unwrap();
    (report.hints_pending, report.lapsed_arcs, report.misplaced_entries) = (7, 2, 3);
    // All nodes are up: hints are on their way.
    assert_eq!(found(&seen), [(Severity::Warning, "copies")]);
    down(&mut seen, 2);
    assert!(found(&seen).contains(&(Severity::Warning, "hints")));
    let mut seen = healthy();
    seen.status.departed =
        vec![DepartedNode { uuid: vec![3; 16].into(), epoch: 2, ..DepartedNode::default() }];
    assert!(judge(&seen)[0].remedy.contains("keep its volume"));
}

#[test]
fn versions_epochs_and_operations_are_looked_at() {
    let mut seen = healthy();
    seen.status.nodes[1].version = "0.2.0".to_owned();
    assert_eq!(found(&seen), [(Severity::Warning, "versions")]);
    let mut seen = healthy();
    seen.nodes[1].own.as_mut().unwrap().epoch = 3;
    assert_eq!(found(&seen), [(Severity::Warning, "ring")]);
    let mut seen = healthy();
    let operation = Some(Operation { id: "grow".to_owned(), ..Operation::default() });
    seen.operations.operations = vec![OperationStatus { operation, ..OperationStatus::default() }];
    assert_eq!(found(&seen), []);
    seen.operations.operations[0].blocked = "node 3 is away".to_owned();
    assert!(judge(&seen)[0].remedy.contains("god ring cancel grow"));
    let mut seen = healthy();
    seen.status.nodes[1].reasons = vec!["the disk is full".to_owned()];
    assert_eq!(found(&seen), [(Severity::Problem, "ready")]);
}
