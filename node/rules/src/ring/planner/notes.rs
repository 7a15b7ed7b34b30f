//! Notes: what a plan could not meet, and why, as sentences.

use super::{
    EVEN,
    cut::{Cut, MAX_CUTS},
    layout::{KeyspaceLayout, PlannedArc},
    space::DiskSpace,
    wish::{Node, Wish},
    words::bytes,
};

/// What could not be met, each with the keyspaces that it was not met in.
#[derive(Default)]
pub(super) struct Notes(Vec<(String, Vec<String>)>);

impl Notes {
    /// As sentences.
    pub fn sentences(self) -> Vec<String> {
        let sentence = |(text, keyspaces): (String, Vec<String>)| match keyspaces.as_slice() {
            [] => text,
            [one] => format!("{text} (keyspace {one})"),
            [one, two] => format!("{text} (keyspaces {one} and {two})"),
            [one, two, others @ ..] => format!("{text} (keyspaces {one}, {two} and {} more)", others.len()),
        };
        self.0.into_iter().map(sentence).collect()
    }

    fn add(&mut self, text: String, keyspace: &str) {
        match self.0.iter_mut().find(|(known, _)| *known == text) {
            Some((_, keyspaces)) => keyspaces.push(keyspace.to_owned()),
            None => self.0.push((text, vec![keyspace.to_owned()])),
        }
    }

    /// Notes on one keyspace.
    pub fn of(&mut self, layout: &KeyspaceLayout<'_>, wish: &Wish) {
        if matches!(wish, Wish::Replicas { keyspace, .. } if keyspace.0 != layout.keyspace.id) {
            return;
        }
        // Who joins or leaves moves only what is its own; all other wishes mend what they can.
        let otherwise = match wish {
            Wish::Join(_) | Wish::Leave(_) | Wish::Lost(_) | Wish::Replace { .. } => {
                "`god ring change --rebalance` mends that"
            }
            _ => "no disk has the room",
        };
        let mut add = |text: String| self.add(text, &layout.keyspace.name);
        if layout.copies < layout.wanted {
            add(format!(
                "{} copies are asked for and there are {} nodes: each holds all",
                layout.wanted, layout.copies
            ));
        } else if layout.spread < layout.copies && layout.spread > 1 {
            add(format!(
                "{} copies are in {} zones, as there are no more: some zones hold two copies or more of a key",
                layout.copies, layout.spread
            ));
        }
        bounds(layout).into_iter().for_each(&mut add);
        let lacking = layout.arcs.iter().filter(|arc| !arc.fixed && arc.now.len() < layout.copies).count();
        if lacking > 0 {
            add(format!("{lacking} arcs still lack copies: {otherwise}"));
        }
        let narrow = |arc: &usize| !layout.arcs[*arc].fixed && layout.zones_of(*arc) < layout.spread;
        let narrow = (0..layout.arcs.len()).filter(narrow).count();
        if narrow > 0 && lacking == 0 {
            add(format!("{narrow} arcs are in fewer than {} zones: {otherwise}", layout.spread));
        }
        let fixed: Vec<&PlannedArc> = layout.arcs.iter().filter(|arc| arc.fixed).collect();
        if !fixed.is_empty() {
            add(format!("{} arcs are changing hands already and are left as they are", fixed.len()));
        }
        let gone = |node: &usize| wish.gives_all() == Some(layout.nodes[*node].id);
        let kept = fixed.iter().filter(|arc| arc.now.iter().any(gone)).count();
        if let Some(old) = wish.gives_all().filter(|_| kept > 0) {
            add(format!("{kept} of them are to be on node {old}: plan again once they have arrived"));
        }
        if layout.may_cut {
            uneven(layout, wish).into_iter().for_each(&mut add);
        }
    }

    /// Notes on all keyspaces together. Of each node: what it is to hold, and what it should.
    pub fn all(&mut self, nodes: &[Node], weighed: &[(f64, f64)], space: &DiskSpace, exhausted: bool) {
        for (at, (held, share)) in
            weighed.iter().enumerate().filter(|(_, (held, share))| *held < (1.0 - EVEN) * share)
        {
            if !space.fits(at, (share - held) as u64) {
                self.0.push((
                    format!(
                        "node {} holds {:.2} of its share: its disk has room for {} more",
                        nodes[at].id,
                        held / share,
                        bytes(space.free(at))
                    ),
                    vec![],
                ));
            }
        }
        if exhausted {
            self.0.push((
                format!(
                    "more arcs should be cut than one plan does ({MAX_CUTS}, and no more than a ring holds)"
                ),
                vec![],
            ));
        }
    }
}

/// Nodes and zones whose weight cannot count in full.
fn bounds(layout: &KeyspaceLayout<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    let weight: f64 = layout.takers().map(|node| layout.nodes[node].weight).sum();
    let asked = |node: usize| layout.copies as f64 * layout.nodes[node].weight / weight;
    let given = |node: usize| layout.share(node) / layout.total;
    for node in layout.takers().filter(|node| given(*node) > 1.0 - 1e-6 && asked(*node) > 1.0 + EVEN) {
        notes.push(format!(
            "by weight node {} would hold {:.2} copies of each key: it holds one, as a node holds no more",
            layout.nodes[node].id,
            asked(node)
        ));
    }
    for (zone, name) in layout.zones.iter().enumerate() {
        let within = || layout.takers().filter(|node| layout.nodes[*node].zone == zone);
        let asked: f64 = within().map(asked).sum();
        let given: f64 = within().map(given).sum();
        let bound = within().next().is_some()
            && (given - 1.0).abs() < 1e-6
            && layout.copies < layout.takers().count();
        if bound && asked < 1.0 - EVEN {
            notes.push(format!(
                "zone {name} holds a copy of each key, as each key is in as many zones as there are: by weight it \
                 would hold {asked:.2}"
            ));
        } else if bound && asked > 1.0 + EVEN && within().count() > 1 && layout.copies == layout.spread {
            notes.push(format!(
                "by weight zone {name} would hold {asked:.2} copies of each key: it holds one, as each copy is in \
                 another zone"
            ));
        }
    }
    notes
}

/// The fullest node, if it is too full, and what keeps it so.
fn uneven(layout: &KeyspaceLayout<'_>, wish: &Wish) -> Option<String> {
    let fullest =
        layout.takers().max_by(|a, b| layout.ratio(*a).total_cmp(&layout.ratio(*b)).then(b.cmp(a)))?;
    if layout.ratio(fullest) <= 1.0 + EVEN {
        return None;
    }
    let share = layout.share(fullest);
    let is_heavy = |arc: &&usize| {
        let arc = &layout.arcs[**arc];
        arc.weight > EVEN * share && arc.cut == Cut::Unknown
    };
    let heavy = layout.on[fullest]
        .iter()
        .filter(is_heavy)
        .max_by(|a, b| layout.arcs[**a].weight.total_cmp(&layout.arcs[**b].weight).then(b.cmp(a)));
    let why = match heavy {
        Some(arc) => format!("arc {} is heavy and nothing tells where to cut it", layout.arcs[*arc].id),
        None if layout.taker.is_some() => {
            "only who joins takes anything; `god ring change --rebalance` does the rest".to_owned()
        }
        None if matches!(wish, Wish::Leave(_) | Wish::Lost(_)) => {
            "only what the leaving node holds moves; `god ring change --rebalance` does the rest".to_owned()
        }
        None => "its arcs have no better place".to_owned(),
    };
    Some(format!("node {} holds {:.2} of its share: {why}", layout.nodes[fullest].id, layout.ratio(fullest)))
}
