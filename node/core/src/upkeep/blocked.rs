//! Why an operation does not go on: which nodes it waits for, and what to do about it.

use super::drive::{Answers, Unclean};
use crate::peer::CallError;
use god_proto::{
    ids::NodeId,
    peer::{ArcProgress, ArcSizesDone, Cause},
    ring::RingArc,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

/// The most nodes that are named one by one.
const MOST_NAMED: usize = 5;

/// The most characters of an error that are passed on.
const MOST_WORDS: usize = 300;
/// How long something has to be in the way before it is told: who has yet to hear of a ring hears of it.
const TELL_AFTER: Duration = Duration::from_secs(2);

/// What is in the way: since when there is something, and what it was at the latest.
#[derive(Debug)]
pub(super) struct Obstacle<T>(Mutex<Option<(Instant, T)>>);

impl<T> Default for Obstacle<T> {
    fn default() -> Obstacle<T> {
        Obstacle(Mutex::new(None))
    }
}

impl<T: Clone> Obstacle<T> {
    /// What it is, if it has been there for a while.
    pub(super) fn why(&self) -> Option<T> {
        let known = self.0.lock();
        known.as_ref().filter(|(since, _)| since.elapsed() >= TELL_AFTER).map(|(_, why)| why.clone())
    }

    pub(super) fn is(&self, why: Option<T>) {
        let mut known = self.0.lock();
        let since = known.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        *known = why.map(|why| (since, why));
    }
}

pub(super) fn in_short(error: &impl ToString) -> String {
    error.to_string().chars().take(MOST_WORDS).collect()
}

/// Why arcs do not go on; nothing, if they do. `moving` are those that change hands; `said` is what those who receive
/// them say of each, among the `answers` of all who receive; `unclean` are those to whom no arc may begin to move.
/// `id` is that of the operation, where it can be cancelled.
pub(super) fn blocked(
    id: Option<&str>,
    moving: &[&RingArc],
    said: &[(NodeId, &ArcProgress)],
    answers: &Answers,
    unclean: &BTreeMap<NodeId, Unclean>,
) -> String {
    let receivers: BTreeSet<NodeId> = moving.iter().flat_map(|arc| arc.copiers()).collect();
    let silent: Vec<NodeId> = receivers.into_iter().filter(|node| !answers.contains_key(node)).collect();
    if !silent.is_empty() {
        return format!(
            "{} to hold the arcs, and {}",
            named(&silent, "is", "are"),
            does_not_answer(&silent, id)
        );
    }
    let waits = said.iter().find(|(_, it)| !it.blocked.is_empty());
    if let Some((node, it)) = waits {
        return format!("node {node}: {}", it.blocked);
    }
    // While others move, whoever is not clean yet holds up nothing.
    if !moving.is_empty() || unclean.is_empty() {
        return String::new();
    }
    let of = |wanted: fn(&Unclean) -> bool| -> Vec<NodeId> {
        unclean.iter().filter(|(_, why)| wanted(why)).map(|(node, _)| *node).collect()
    };
    let (silent, holding) = (of(|why| *why == Unclean::Silent), of(|why| matches!(why, Unclean::Holds(_))));
    let behind = of(|why| *why == Unclean::Behind);
    let mut reasons = Vec::new();
    if !silent.is_empty() {
        reasons.push(format!(
            "{} to be given arcs, and {}",
            named(&silent, "is", "are"),
            does_not_answer(&silent, id)
        ));
    }
    if !holding.is_empty() {
        let records: u64 =
            unclean.values().map(|why| if let Unclean::Holds(count) = why { *count } else { 0 }).sum();
        reasons.push(format!(
            "{} to be given arcs, and first hands {records} records of arcs that it does not hold to their owners: that \
             takes a write quorum of these, so start those that are down",
            named(&holding, "is", "are")
        ));
    }
    if !behind.is_empty() {
        reasons.push(format!("{} yet to hear of the newest ring", named(&behind, "has", "have")));
    }
    reasons.join("; ")
}

/// Why a change of quorums is not over yet. `holds`: the new ones do already.
pub(super) fn unheard(id: &str, waiting: &BTreeMap<NodeId, Unclean>, holds: bool) -> String {
    let of = |silent: bool| -> Vec<NodeId> {
        waiting
            .iter()
            .filter(|(_, why)| (**why == Unclean::Silent) == silent)
            .map(|(node, _)| *node)
            .collect()
    };
    match (of(true), of(false)) {
        (silent, _) if !silent.is_empty() => {
            let who = named(&silent, "must hear", "must hear");
            let end = match holds {
                true => "the new quorums, which hold already, before others may follow on them",
                false => "the new quorums before the old ones are gone",
            };
            format!("{who} of {end}, and {}", does_not_answer(&silent, Some(id)))
        }
        (_, behind) if !behind.is_empty() => {
            format!("{} yet to hear of the newest ring", named(&behind, "has", "have"))
        }
        _ => String::new(),
    }
}

/// Why a node that leaves is not retired yet: what is in the way of what it still holds, and says of it in `said`.
pub(super) fn handing_over(
    id: &str,
    node: NodeId,
    is_down: bool,
    said: &Result<ArcSizesDone, CallError>,
) -> String {
    let said = match said {
        _ if is_down => {
            return format!(
                "node {node} does not answer: start it to have it hand over what it holds; it is retired without \
                 when it stays silent"
            );
        }
        Err(CallError::Refused(failure)) if failure.cause() == Cause::StaleEpoch => {
            return format!("node {node} has yet to hear of the newest ring");
        }
        Err(error) => {
            return format!(
                "node {node} does not say what it still holds ({error}): look at its log; once it is down it is \
                 retired without handing over, or `god ring cancel {id}`"
            );
        }
        Ok(said) => said,
    };
    let Some(kept) = said.kept.as_ref().filter(|_| said.misplaced_entries > 0) else {
        return String::new();
    };
    let (records, error) = (said.misplaced_entries, &kept.error);
    let owners: Vec<NodeId> = kept.owners.iter().map(|owner| NodeId(*owner)).collect();
    let Some(first) = owners.first() else {
        return format!(
            "node {node} cannot hand over {records} records that it still holds ({error}): look at its disk and its \
             log; where it cannot be mended, stop it: it is retired without, or `god ring cancel {id}`"
        );
    };
    let it = if owners.len() == 1 { "it" } else { "them" };
    format!(
        "node {node} still holds {records} records that {} not take ({error}): `god status` says how {it} fared; \
         start {it}, or `god ring cancel {id}`, or, where data are gone, `god ring change --leave {first} --lost`",
        named(&owners, "does", "do")
    )
}

fn does_not_answer(silent: &[NodeId], id: Option<&str>) -> String {
    let (does, it) = if silent.len() == 1 { ("does", "it") } else { ("do", "them") };
    let lost = silent.first().map_or_else(String::new, |node| {
        format!(", or, where its data are gone, `god ring change --leave {node} --lost`")
    });
    let cancel = id.map_or_else(String::new, |id| format!(", or `god ring cancel {id}`"));
    format!("{does} not answer: start {it}{cancel}{lost}")
}

/// `node 3 is`, `nodes 3, 4 are`.
fn named(nodes: &[NodeId], one: &str, more: &str) -> String {
    let names: Vec<String> = nodes.iter().take(MOST_NAMED).map(ToString::to_string).collect();
    let names = names.join(", ");
    match nodes.len() {
        1 => format!("node {names} {one}"),
        count if count > MOST_NAMED => format!("nodes {names} and {} others {more}", count - MOST_NAMED),
        _ => format!("nodes {names} {more}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use god_proto::{
        ids::{ArcId, Epoch, KeyspaceId},
        peer::{Kept, MovingDone},
        position::PositionRange,
    };

    fn why(unclean: &[(u32, Unclean)]) -> String {
        let unclean = unclean.iter().map(|(node, why)| (NodeId(*node), *why)).collect();
        blocked(Some("join-4"), &[], &[], &Answers::new(), &unclean)
    }

    #[test]
    fn who_is_not_clean_or_does_not_answer_is_named_with_what_to_do() {
        assert_eq!(why(&[]), "");
        let told = why(&[(4, Unclean::Holds(120)), (7, Unclean::Silent)]);
        for words in [
            "node 4 is to be given",
            "120 records",
            "write quorum",
            "node 7 is",
            "does not answer",
            "start it",
        ] {
            assert!(told.contains(words), "{words:?} is not in {told:?}");
        }
        assert!(told.contains("`god ring cancel join-4`") && told.contains("--leave 7 --lost"), "{told}");
        let many: Vec<(u32, Unclean)> = (1..=8).map(|node| (node, Unclean::Silent)).collect();
        assert!(why(&many).contains("nodes 1, 2, 3, 4, 5 and 3 others are"), "{}", why(&many));
        assert!(why(&[(2, Unclean::Behind)]).contains("node 2 has yet to hear of the newest ring"));
    }

    #[test]
    fn what_keeps_a_node_from_leaving_is_said_with_what_to_do() {
        let holds = |kept: Option<Kept>| {
            let said = ArcSizesDone { misplaced_entries: 12, kept, ..ArcSizesDone::default() };
            handing_over("out", NodeId(3), false, &Ok(said))
        };
        let kept = |owners: &[u32], error: &str| Kept { owners: owners.to_vec(), error: error.to_owned() };
        assert_eq!(holds(None), "", "it hands over");
        assert_eq!(handing_over("out", NodeId(3), false, &Ok(ArcSizesDone::default())), "");
        let told = holds(Some(kept(&[2], "refused: its disk is full")));
        for words in [
            "node 3 still holds 12 records that node 2 does not take",
            "(refused: its disk is full)",
            "`god ring cancel out`",
            "--leave 2 --lost",
        ] {
            assert!(told.contains(words), "{words:?} is not in {told:?}");
        }
        let told = holds(Some(kept(&[1, 2], "2 of its 3 owners have to take it, and 1 can")));
        assert!(told.contains("nodes 1, 2 do not take (2 of its 3 owners have to"), "{told}");
        assert!(told.contains("start them"), "{told}");
        let told = holds(Some(kept(&[], "checksum")));
        assert!(told.contains("cannot hand over 12 records") && told.contains("(checksum)"), "{told}");
        assert!(told.contains("stop it"), "{told}");
        let silent = || Err(CallError::TimedOut);
        assert!(handing_over("out", NodeId(3), true, &silent()).contains("start it to have it hand over"));
        let told = handing_over("out", NodeId(3), false, &silent());
        assert!(told.contains("does not say what it still holds (no answer in time)"), "{told}");
    }

    #[test]
    fn who_must_hear_of_new_quorums_is_named() {
        let told = |waiting: &[(u32, Unclean)], holds| {
            unheard("two", &waiting.iter().map(|(node, why)| (NodeId(*node), *why)).collect(), holds)
        };
        let of = |waiting: &[(u32, Unclean)]| told(waiting, false);
        assert!(told(&[(3, Unclean::Silent)], true).contains("which hold already"));
        assert_eq!(of(&[]), "");
        let told = of(&[(2, Unclean::Behind), (3, Unclean::Silent)]);
        assert!(
            told.starts_with(
                "node 3 must hear of the new quorums before the old ones are gone, and does not"
            ),
            "{told}"
        );
        assert!(told.contains("`god ring cancel two`"), "{told}");
        assert_eq!(of(&[(2, Unclean::Behind)]), "node 2 has yet to hear of the newest ring");
    }

    #[test]
    fn what_moves_is_held_up_by_who_receives_it() {
        let arc = RingArc {
            id: ArcId(1),
            keyspace: KeyspaceId(1),
            range: PositionRange::of_keyspace(KeyspaceId(1)),
            replicas: [1, 2, 3].map(NodeId).to_vec(),
            next: Some([1, 2, 4].map(NodeId).to_vec()),
            since: Epoch(7),
            changed: Epoch(7),
        };
        let unclean = BTreeMap::from([(NodeId(5), Unclean::Holds(1))]);
        let told = blocked(Some("join-4"), &[&arc], &[], &Answers::new(), &unclean);
        assert!(told.contains("node 4 is to hold the arcs, and does not answer"), "{told}");
        assert!(told.contains("`god ring cancel join-4`"), "{told}");
        let told = blocked(None, &[&arc], &[], &Answers::new(), &unclean);
        assert!(told.contains("start it, or, where its data") && !told.contains("cancel"), "{told}");
        let answers = Answers::from([(NodeId(4), MovingDone::default())]);
        assert_eq!(blocked(Some("join-4"), &[&arc], &[], &answers, &unclean), "", "others go on meanwhile");
        let waits = ArcProgress { blocked: "1 of 2 old replicas".to_owned(), ..ArcProgress::default() };
        let told = blocked(Some("join-4"), &[&arc], &[(NodeId(4), &waits)], &answers, &unclean);
        assert_eq!(told, "node 4: 1 of 2 old replicas");
    }
}
