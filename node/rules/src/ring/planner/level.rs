//! What moves so that nodes are even: copies pass from nodes that hold too much to nodes that hold too little.
//!
//! A copy passes only where that lowers Σ (held − share)² / share over all nodes. That sum falls with each pass, so no
//! copy can go round in circles. Where no pass lowers it, whole arcs are as even as passing them one by one can make
//! them, and then an arc is cut.

use super::{
    EVEN, NEAR, chain,
    layout::KeyspaceLayout,
    pass::{Aim, Fit, Pass},
};

/// The most times that all nodes are looked through.
const MOST_ROUNDS: usize = 64;

/// Whether arcs may be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cutting {
    Forbidden,
    Allowed,
}

/// Makes nodes even, as far as arcs allow it.
pub(super) fn even_out(layout: &mut KeyspaceLayout<'_>, aim: Aim) {
    if aim.thrifty && aim.node.is_none() && is_even(layout) {
        return;
    }
    let cutting = if layout.may_cut { Cutting::Allowed } else { Cutting::Forbidden };
    // Straight from who held too much to who held too little, no byte is copied twice. Only where that does not do,
    // copies also pass through others.
    if aim.thrifty {
        let over: Vec<bool> =
            (0..layout.nodes.len()).map(|node| layout.held[node] > layout.share(node)).collect();
        level(layout, aim, Some(over), cutting);
        if is_even(layout) {
            return;
        }
    }
    level(layout, aim, None, cutting);
    for _ in 0..MOST_ROUNDS {
        if is_even(layout) {
            return;
        }
        let mut helped = Search::new(layout, aim, None, Fit::Poor).run(Cutting::Forbidden);
        helped |= chain::even_out(layout, aim.cause, cutting);
        if !is_even(layout) {
            helped |= Search::wide(layout, aim).run(cutting);
        }
        if !helped {
            return;
        }
        level(layout, aim, None, cutting);
    }
}

/// Makes nodes about even by what costs nothing: who is given copies that must be made anyway.
pub(super) fn even_roughly(layout: &mut KeyspaceLayout<'_>, aim: Aim) {
    level(layout, aim, None, Cutting::Forbidden);
    if !is_even(layout) && chain::even_out(layout, aim.cause, Cutting::Forbidden) {
        level(layout, aim, None, Cutting::Forbidden);
    }
}

/// Passes whole arcs, and then, where that does not do, cuts them. For who joins they are cut at once, as it must not
/// be filled up by those who have lighter arcs instead of those who hold the most.
fn level(layout: &mut KeyspaceLayout<'_>, aim: Aim, over: Option<Vec<bool>>, cutting: Cutting) {
    let at_once = layout.taker.is_some() && cutting == Cutting::Allowed;
    if !at_once {
        Search::new(layout, aim, over.clone(), Fit::Tolerable).run(Cutting::Forbidden);
    }
    if cutting == Cutting::Allowed && (at_once || !is_even(layout)) {
        Search::new(layout, aim, over, Fit::Tolerable).run(cutting);
    }
}

/// Whether every node holds what it should, give or take what is even enough.
pub(super) fn is_even(layout: &KeyspaceLayout<'_>) -> bool {
    layout.takers().all(|node| !is_uneven(layout, node))
}

pub(super) fn is_uneven(layout: &KeyspaceLayout<'_>, node: usize) -> bool {
    (layout.ratio(node) - 1.0).abs() > EVEN
}

struct Search<'s, 'a> {
    layout: &'s mut KeyspaceLayout<'a>,
    aim: Aim,
    /// Who held too much at first, where only those may give and only the others take.
    over: Option<Vec<bool>>,
    /// What a pass must come to.
    least: Fit,
    /// Whether the node that is aimed at held too much at first.
    gives: bool,
    /// Nodes that were uneven, and are not near to their shares yet.
    active: Vec<bool>,
    /// Nodes that nothing can be done for, as long as nothing else changes.
    stuck: Vec<bool>,
    /// Zones in which all are brought near to their shares, not only who is uneven.
    zones: Vec<bool>,
}

impl<'s, 'a> Search<'s, 'a> {
    fn new(layout: &'s mut KeyspaceLayout<'a>, mut aim: Aim, over: Option<Vec<bool>>, least: Fit) -> Self {
        let gives = aim.node.is_some_and(|node| layout.ratio(node) > 1.0);
        // What it could have at once it has.
        if aim.thrifty && over.is_none() {
            aim.node = aim.node.filter(|node| (layout.ratio(*node) - 1.0).abs() > NEAR);
        }
        let none = vec![false; layout.nodes.len()];
        let zones = vec![false; layout.zones.len()];
        Search { layout, aim, over, least, gives, active: none.clone(), stuck: none, zones }
    }

    /// Where a zone should hold hardly more than one copy of each arc, few of its copies may leave it, and who is too
    /// full has none of them. So those beside it give theirs, and have room then for what it has.
    fn wide(layout: &'s mut KeyspaceLayout<'a>, aim: Aim) -> Self {
        let mut search = Search::new(layout, aim, None, Fit::Tolerable);
        for node in search.layout.takers().filter(|node| is_uneven(search.layout, *node)) {
            search.zones[search.layout.nodes[node].zone] = true;
        }
        search
    }

    fn is_off(&self, node: usize) -> bool {
        let off = (self.layout.ratio(node) - 1.0).abs();
        off > if self.zones[self.layout.nodes[node].zone] { NEAR } else { EVEN }
    }

    /// Passes what can be passed; says whether anything could.
    fn run(&mut self, cutting: Cutting) -> bool {
        let mut any = false;
        let copies: usize = self.layout.arcs.iter().map(|arc| arc.now.len()).sum();
        let mut steps = 64 * (copies + self.layout.nodes.len());
        for _ in 0..MOST_ROUNDS {
            let mut moved = false;
            self.stuck.fill(false);
            while let Some(node) = self.worst() {
                let helped = self.relieve(node, cutting)
                    || cutting == Cutting::Allowed && self.is_off(node) && self.cut_for(node);
                moved |= helped;
                self.stuck[node] = !helped;
                steps -= 1;
                if steps == 0 {
                    return true;
                }
            }
            any |= moved;
            if !moved {
                break;
            }
        }
        any
    }

    /// The node that is furthest from its share; the one that is aimed at before all others.
    fn worst(&mut self) -> Option<usize> {
        if let Some(node) = self.aim.node.filter(|node| !self.stuck[*node]) {
            if !self.aim.thrifty || (self.layout.ratio(node) > 1.0) == self.gives {
                return Some(node);
            }
            // It has what it should. Would it take and give by turns, all others would be made even through it.
            self.aim.node = None;
        }
        let mut worst = None;
        for node in self.layout.takers() {
            let off = (self.layout.ratio(node) - 1.0).abs();
            self.active[node] = self.is_off(node) || off > NEAR && (self.active[node] || !self.aim.thrifty);
            if self.active[node] && !self.stuck[node] && worst.is_none_or(|(most, _)| off > most) {
                worst = Some((off, node));
            }
        }
        worst.map(|(_, node)| node)
    }

    /// Passes one copy from a node that holds too much, or to one that holds too little.
    fn relieve(&mut self, node: usize, cutting: Cutting) -> bool {
        let found =
            if self.layout.ratio(node) > 1.0 { self.giving(node) } else { self.taking(node, cutting) };
        let Some(Pass { arc, from, to, .. }) = found else { return false };
        self.layout.pass(arc, Some(from), to, self.aim.cause);
        true
    }

    /// The best pass from a node: each arc to the emptiest node that may take it.
    fn giving(&self, from: usize) -> Option<Pass> {
        let all = self.sinks(from);
        let (nodes, zones) = (self.layout.nodes, 0..self.layout.zones.len());
        let mut best: Option<Pass> = None;
        for &arc in &self.layout.on[from] {
            let sinks = self.layout.choices(arc, from);
            let sinks = sinks.as_ref().map_or(&all, |choices| choices);
            let open: Vec<bool> = zones.clone().map(|zone| self.layout.may_enter(arc, from, zone)).collect();
            let sinks = sinks.iter().filter(|to| open[nodes[**to].zone]);
            let passes = sinks.filter_map(|to| Pass::new(self.layout, self.aim, arc, from, *to));
            // Whoever is fuller will not do better; but a node of little weight may be empty and yet too small.
            let pass = first_good(passes, |pass| pass.fit > Fit::Poor);
            best = best.max(pass);
        }
        best.filter(|pass| pass.fit >= self.least)
    }

    /// The best pass to a node: from the fullest node that can give it an arc. Who joins takes only so much: first of
    /// all what others hold above their shares, and if only the heaviness of arcs hinders that, they are cut.
    fn taking(&mut self, to: usize, cutting: Cutting) -> Option<Pass> {
        let joins = self.layout.taker == Some(to);
        if self.layout.taker.is_some() && !joins {
            return self.taking_back(to);
        }
        // What will do, and how full is a node whose arcs are cut for it.
        let never = f64::INFINITY;
        let lacks = cutting == Cutting::Allowed && self.layout.ratio(to) < 1.0 - NEAR;
        let tiers: &[(Fit, f64)] = match (joins, lacks) {
            (true, true) => &[
                (Fit::Exact, never),
                (Fit::Good, 1.0 + EVEN),
                (Fit::Tolerable, never),
                (Fit::Tolerable, 1.0),
            ],
            (true, false) => &[(Fit::Exact, never), (Fit::Tolerable, never)],
            (false, _) => &[(Fit::Tolerable, never)],
        };
        let mut best: Option<Pass> = None;
        for (least, full) in tiers {
            for from in self.sources(to) {
                loop {
                    let arcs = self.layout.on[from].iter();
                    let pass = arcs.filter_map(|arc| Pass::new(self.layout, self.aim, *arc, from, to)).max();
                    if pass.is_some_and(|pass| pass.fit >= *least) {
                        return pass;
                    }
                    best = best.or(pass);
                    if self.layout.ratio(from) <= *full || !self.cut_between(from, to, 1.0) {
                        break;
                    }
                }
            }
        }
        best.filter(|pass| pass.fit >= self.least)
    }

    /// The best pass to a node that takes nothing but what it had.
    fn taking_back(&self, to: usize) -> Option<Pass> {
        let givers =
            |arc: &usize| self.layout.arcs[*arc].now.iter().map(|from| (*arc, *from)).collect::<Vec<_>>();
        let pairs = self.layout.was_on[to].iter().flat_map(givers);
        pairs.filter_map(|(arc, from)| Pass::new(self.layout, self.aim, arc, from, to)).max()
    }

    fn sinks(&self, from: usize) -> Vec<usize> {
        let side = |to: usize| self.over.as_ref().is_none_or(|over| over[from] && !over[to]);
        let least = self.layout.ratio(from);
        let emptier = self.layout.emptiest().take_while(|to| self.layout.ratio(*to) < least);
        emptier.filter(|to| side(*to)).collect()
    }

    fn sources(&self, to: usize) -> Vec<usize> {
        let side = |from: usize| self.over.as_ref().is_none_or(|over| over[from] && !over[to]);
        let most = self.layout.ratio(to);
        let fuller = self.layout.emptiest().rev().take_while(|from| self.layout.ratio(*from) > most);
        fuller.filter(|from| side(*from)).collect()
    }

    /// Cuts an arc that is too heavy to pass: the lightest such, as it takes the fewest cuts until a part can pass.
    fn cut_for(&mut self, node: usize) -> bool {
        let gives = self.layout.ratio(node) > 1.0;
        let pairs: Vec<(usize, usize)> = match gives {
            true => self.sinks(node).into_iter().map(|to| (node, to)).collect(),
            false => self.sources(node).into_iter().map(|from| (from, node)).collect(),
        };
        // Of a zone that should hold hardly more than it does all are about as full: little passes, in small arcs.
        let tight = self.zones[self.layout.nodes[node].zone] && is_uneven(self.layout, node);
        let (gap, part) = if tight { (EVEN / 4.0, 0.25) } else { (EVEN, 1.0) };
        for (from, to) in pairs {
            if self.layout.ratio(from) - self.layout.ratio(to) <= gap {
                return false;
            }
            if self.cut_between(from, to, part) {
                return true;
            }
        }
        false
    }

    /// Cuts an arc that is heavier than this part of what is light enough.
    fn cut_between(&mut self, from: usize, to: usize, part: f64) -> bool {
        let grain = part * grain(self.layout, from, to);
        let heavy = self.layout.on[from].iter().map(|arc| (self.layout.arcs[*arc].weight, *arc));
        let mut heavy: Vec<(f64, usize)> = heavy.filter(|(weight, _)| *weight > grain).collect();
        heavy.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (_, arc) in heavy {
            if self.layout.may_pass(arc, from, to) && self.layout.cut_for_evenness(arc) {
                return true;
            }
        }
        false
    }
}

/// The first that will do, or else the first of all.
fn first_good<T>(mut items: impl Iterator<Item = T>, will_do: impl Fn(&T) -> bool) -> Option<T> {
    let first = items.next()?;
    if will_do(&first) { Some(first) } else { items.find(will_do).or(Some(first)) }
}

/// An arc up to this weight is light enough to make two nodes even: a twentieth of the lesser share. Cutting ends
/// where a node has a quarter of the mean share, so that one of next to no weight does not cut everything to dust.
fn grain(layout: &KeyspaceLayout<'_>, from: usize, to: usize) -> f64 {
    let least = layout.share(from).min(layout.share(to));
    EVEN * least.max(layout.mean() / 4.0)
}
