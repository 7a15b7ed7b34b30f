//! Sets of replicas, tallies and selections, as files of requests and answers: `testdata/`.
#![allow(clippy::unwrap_used)]

use super::{
    JointReplicas, Need, ReplicaMask, ReplicaSelector, Tally, Use, WriteOutcome, bits,
    replicas::tests::replicas,
};
use crate::{
    ring::{Founding, Joiner, found},
    testing::script,
};
use god_proto::{
    ids::NodeId,
    ring::{Ring, RingArc},
};
use std::fmt::Write;
use uuid::Uuid;

/// A ring whose only keyspace keeps so many copies.
fn ring(replicas: u32, write_quorum: u32, read_quorum: u32) -> Ring {
    let first = Joiner {
        uuid: Uuid::from_u128(1),
        peer_address: "a:7100".to_owned(),
        grpc_address: "a:7000".to_owned(),
        http_address: "a:7200".to_owned(),
        zone: String::new(),
        weight: 1.0,
        version: "1".to_owned(),
        takes_part: false,
    };
    let founding =
        Founding { replicas, write_quorum, read_quorum, virtual_nodes: 1, under_replicated: false };
    found(Uuid::from_u128(9), &first, founding).unwrap()
}

/// `1,2,3` as numbers; `-` is none.
fn numbers(word: &str) -> Vec<u32> {
    word.split(',').filter_map(|number| number.parse().ok()).collect()
}

fn nodes(word: &str) -> Vec<NodeId> {
    numbers(word).into_iter().map(NodeId).collect()
}

fn names(replicas: &JointReplicas, who: impl Iterator<Item = usize>) -> String {
    let names: Vec<String> = who.filter_map(|at| replicas.node(at)).map(|node| node.to_string()).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

fn mask(replicas: &JointReplicas, word: &str) -> ReplicaMask {
    let who = nodes(word);
    replicas.those(|node| who.contains(&node))
}

#[test]
fn joint_replicas() {
    let mut terms = (3, 2, 2);
    let mut all = replicas(&[1], None, 1);
    script("quorum/testdata/replicas.txt", |words| match *words {
        ["keyspace", n, w, r] => {
            terms = (n.parse().unwrap(), w.parse().unwrap(), r.parse().unwrap());
            String::new()
        }
        ["arc", outgoing, incoming, need] => {
            let ring = ring(terms.0, terms.1, terms.2);
            let next = Some(nodes(incoming)).filter(|next| !next.is_empty());
            let arc = RingArc { replicas: nodes(outgoing), next, ..ring.arcs()[0].clone() };
            let need = match need {
                "write" => Need::Default(Use::Write),
                "read" => Need::Default(Use::Read),
                "majority" => Need::Majority,
                "all" => Need::All,
                count => Need::Count(count.parse().unwrap()),
            };
            all = JointReplicas::of(&ring, &arc, need);
            let (_, needed) = all.shortfall(0);
            let (_, covering) = all.covering().shortfall(0);
            format!("members {}, needs {needed}, to be met by every read {covering}\n", names(&all, 0..64))
        }
        ["enough", who] => {
            let who = mask(&all, who);
            let (is, needed) = all.shortfall(who);
            let helpful = bits(all.all() & !who).filter(|at| all.helps(who, 1 << at));
            match all.enough(who) {
                true => "yes\n".to_owned(),
                false => format!("{is} of {needed}; would help: {}\n", names(&all, helpful)),
            }
        }
        _ => panic!("{words:?}: keyspace N W R | arc OUTGOING INCOMING NEED | enough NODES"),
    });
}

#[test]
fn tally() {
    let mut all = replicas(&[1, 2, 3], None, 2);
    let mut tally = Tally::default();
    script("quorum/testdata/tally.txt", |words| {
        match *words {
            ["write", outgoing, incoming, need] => {
                let next = Some(numbers(incoming)).filter(|next| !next.is_empty());
                all = replicas(&numbers(outgoing), next.as_deref(), need.parse().unwrap());
                tally = Tally::default();
                return String::new();
            }
            ["again", open] => tally = Tally::resumed(open == "open"),
            ["send", asked, missed] => tally.begin(mask(&all, asked), mask(&all, missed)),
            ["acknowledged", who] => tally.acked(mask(&all, who)),
            ["superseded", who] => tally.superseded(mask(&all, who)),
            ["refused", who] => tally.failed(mask(&all, who), false),
            ["lost", who] => tally.failed(mask(&all, who), true),
            ["late"] => tally.reopen(),
            ["timeout"] => return format!("{:?}\n", tally.give_up()),
            _ => panic!(
                "{words:?}: write OUTGOING INCOMING NEED | again open|closed | send ASKED MISSED | acknowledged, superseded, refused or lost NODES | late | timeout"
            ),
        }
        let mut out = format!("round {}", tally.round());
        let waiting = names(&all, bits(tally.pending()));
        write!(out, ", waiting for {waiting}, to hint {}", names(&all, bits(tally.missed()))).unwrap();
        let outcome = match tally.decide(&all) {
            None => "open".to_owned(),
            Some(WriteOutcome::Committed { acks }) => format!("committed by {acks}"),
            Some(other) => format!("{other:?}"),
        };
        format!("{out}: {outcome}\n")
    });
}

#[test]
fn selection() {
    let mut all = replicas(&[1, 2, 3], None, 2);
    let mut order = Vec::new();
    // What was heard: a selector is made anew of it for each request, so that the file says all of it.
    let mut heard: Vec<(String, usize)> = Vec::new();
    script("quorum/testdata/selection.txt", |words| {
        match *words {
            ["replicas", outgoing, incoming, need, "order", ordered] => {
                let next = Some(numbers(incoming)).filter(|next| !next.is_empty());
                all = replicas(&numbers(outgoing), next.as_deref(), need.parse().unwrap());
                let at = |node: NodeId| all.members().iter().position(|member| *member == node).unwrap();
                order = nodes(ordered).into_iter().map(at).collect();
                heard.clear();
            }
            ["answered" | "failed" | "slow", who] => {
                heard.extend(bits(mask(&all, who)).map(|at| (words[0].to_owned(), at)));
            }
            _ => panic!(
                "{words:?}: replicas OUTGOING INCOMING NEED order NODES | answered, failed or slow NODE"
            ),
        }
        let mut selector = ReplicaSelector::new(&all, order.clone());
        let mut asked = selector.ask();
        for (what, at) in &heard {
            asked = match what.as_str() {
                "answered" => {
                    selector.answered(*at);
                    selector.ask()
                }
                "failed" => {
                    selector.failed(*at);
                    selector.ask()
                }
                _ => selector.hedge(*at).into_iter().collect(),
            };
        }
        let (is, needed) = selector.shortfall();
        let end = match (selector.is_done(), selector.has_hope()) {
            (true, _) => "done".to_owned(),
            (false, true) => format!("{is} of {needed}, waiting for {}", names(&all, selector.pending())),
            (false, false) => format!("{is} of {needed}, hopeless"),
        };
        format!("ask {}; {end}\n", names(&all, asked.into_iter()))
    });
}
