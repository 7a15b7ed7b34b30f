//! Reasons: what a plan does, as sentences.

use super::{
    Move,
    layout::{Cause, KeyspaceLayout, PlannedArc},
    wish::Wish,
};
use god_proto::ids::NodeId;

/// The moves of one keyspace; with each, its urgency: the least comes first.
pub(super) fn moves(layout: &KeyspaceLayout<'_>, wish: &Wish) -> Vec<(u8, Move)> {
    let ids = |places: &[usize]| places.iter().map(|at| layout.nodes[*at].id).collect::<Vec<NodeId>>();
    let mut arcs: Vec<&PlannedArc> = layout.arcs.iter().filter(|arc| arc.now != arc.was).collect();
    arcs.sort_by(|a, b| a.range.start.cmp(&b.range.start));
    arcs.into_iter()
        .map(|arc| {
            let step = Move {
                arc: arc.id,
                from: ids(&arc.was),
                to: ids(&arc.now),
                bytes: arc.size.bytes.saturating_mul(arc.news as u64),
                reason: reason(layout, wish, arc),
            };
            let changes = arc.news > 0 || arc.now.len() != arc.was.len();
            let urgency = arc.cause.filter(|_| changes).map_or(u8::MAX, |cause| cause as u8);
            (urgency, step)
        })
        .collect()
}

fn reason(layout: &KeyspaceLayout<'_>, wish: &Wish, arc: &PlannedArc) -> String {
    let without = |from: &[usize], others: &[usize]| {
        from.iter().copied().filter(|node| !others.contains(node)).collect::<Vec<usize>>()
    };
    let (gained, lost) = (without(&arc.now, &arc.was), without(&arc.was, &arc.now));
    let leads = match (arc.was.first(), arc.now.first()) {
        (Some(was), Some(now)) if was != now => format!("node {} leads", layout.nodes[*now].id),
        _ => String::new(),
    };
    let passes = match (gained.as_slice(), lost.as_slice()) {
        ([], []) => return format!("leads follow weight: {leads}"),
        (gained, []) => format!("{} a copy", does(layout, gained, "takes", "take")),
        ([], lost) => format!("{} a copy up", does(layout, lost, "gives", "give")),
        (gained, lost) => {
            format!("{} over from {}", does(layout, gained, "takes", "take"), names(layout, lost))
        }
    };
    let sentence = match (arc.cause, wish) {
        (Some(Cause::Joins), _) if lost.is_empty() => format!("a copy was missing: {passes}"),
        (Some(Cause::Joins), _) => {
            format!("{} its part from {}", does(layout, &gained, "takes", "take"), names(layout, &lost))
        }
        (Some(Cause::Leaves), Wish::Leave(old)) => {
            format!("node {old} leaves: {} over", does(layout, &gained, "takes", "take"))
        }
        (Some(Cause::Leaves), Wish::Lost(old)) if gained.is_empty() => {
            format!("the data of node {old} are gone, and there is no other node for a copy")
        }
        (Some(Cause::Leaves), Wish::Lost(old)) => {
            format!("the data of node {old} are gone: {} a copy", does(layout, &gained, "takes", "take"))
        }
        (Some(Cause::Replaced), Wish::Replace { old, new }) => format!("node {new} replaces node {old}"),
        (Some(Cause::Copies | Cause::Surplus), _) if arc.was.len() != arc.now.len() => {
            format!("{} copies instead of {}: {passes}", arc.now.len(), arc.was.len())
        }
        (Some(Cause::Zones), _) => match new_zone(layout, arc) {
            Some(zone) => format!("zone {zone} had no copy: {passes}"),
            None => passes,
        },
        _ => format!("{}: {passes}", evenness(layout, &gained, &lost)),
    };
    if leads.is_empty() { sentence } else { format!("{sentence}; {leads}") }
}

/// A zone that an arc is to be in and was not.
fn new_zone<'a>(layout: &KeyspaceLayout<'a>, arc: &PlannedArc) -> Option<&'a str> {
    let zone = |node: &usize| layout.nodes[*node].zone;
    let new = arc.now.iter().map(zone).find(|new| !arc.was.iter().any(|was| zone(was) == *new))?;
    layout.zones.get(new).copied()
}

/// Who held how much of its share before.
fn evenness(layout: &KeyspaceLayout<'_>, gained: &[usize], lost: &[usize]) -> String {
    let had = |node: usize| super::layout::ratio(layout.before[node], layout.share(node));
    let off = |node: &usize| (had(*node) - 1.0).abs();
    let most = gained.iter().chain(lost).copied().max_by(|a, b| off(a).total_cmp(&off(b)));
    match most {
        Some(node) => format!("node {} held {:.2} of its share", layout.nodes[node].id, had(node)),
        None => "evenness".to_owned(),
    }
}

fn names(layout: &KeyspaceLayout<'_>, places: &[usize]) -> String {
    let ids: Vec<String> = places.iter().map(|at| layout.nodes[*at].id.to_string()).collect();
    match ids.as_slice() {
        [one] => format!("node {one}"),
        [others @ .., last] => format!("nodes {} and {last}", others.join(", ")),
        [] => "nobody".to_owned(),
    }
}

fn does(layout: &KeyspaceLayout<'_>, places: &[usize], one: &str, many: &str) -> String {
    format!("{} {}", names(layout, places), if places.len() == 1 { one } else { many })
}

/// A number of bytes for people.
pub(super) fn bytes(count: u64) -> String {
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].into_iter();
    let (mut count, mut unit) = (count as f64, units.next().unwrap_or_default());
    while count >= 1024.0
        && let Some(next) = units.next()
    {
        (count, unit) = (count / 1024.0, next);
    }
    if unit == "B" { format!("{count} B") } else { format!("{count:.1} {unit}") }
}
