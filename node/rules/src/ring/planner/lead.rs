//! Who leads: the first in an arc's list. Leads follow weight, by as few changed lists as possible; it copies nothing.
//!
//! Nodes that hold all copies of some arcs lead all of those among themselves, and no more than the arcs that one of
//! them holds: so with few arcs not everybody can lead its share. Where somebody is off by a whole lead or more, leads
//! pass on as long as that lowers Σ (leads − share)² / share. What numbers of leads there can be are the bases of a
//! polymatroid (each arc chooses among its replicas), and there a sum of convex terms that no exchange lowers is the
//! least there is (Fujishige, "Lexicographically optimal base of a polymatroid", 1980).

use super::{layout::KeyspaceLayout, share::fill};

/// Puts every list in order: who stays keeps its place, who is new takes the place of who goes. Then makes leads even.
pub(super) fn even_out(layout: &mut KeyspaceLayout<'_>) {
    for arc in &mut layout.arcs {
        arc.now = in_place(&arc.was, &arc.now);
    }
    let mut leads = Leads::new(layout);
    let nodes = layout.nodes.len();
    // First to those that lead too few, then from those that lead too many. Each path is one lead less to go, so
    // there are never more of them than arcs.
    for _ in 0..layout.arcs.len() {
        let lacking = |node: &usize| leads.count(*node) < leads.least[*node];
        let Some(node) = (0..nodes).filter(|node| !leads.stuck[*node]).find(lacking) else { break };
        let above = |most: &[usize], at: usize| leads.count(at) > most[at];
        let path = leads.path(layout, node, false, |at| above(&leads.most, at));
        let path = path.or_else(|| leads.path(layout, node, false, |at| above(&leads.least, at)));
        leads.follow(layout, node, path);
    }
    leads.stuck.fill(false);
    for _ in 0..layout.arcs.len() {
        let beyond = |node: &usize| leads.count(*node) > leads.most[*node];
        let Some(node) = (0..nodes).filter(|node| !leads.stuck[*node]).find(beyond) else { break };
        let path = leads.path(layout, node, true, |at| leads.count(at) < leads.most[at]);
        leads.follow(layout, node, path);
    }
    leads.share_what_is_off(layout);
}

/// The nodes of `now`, each as near to its place in `was` as can be.
fn in_place(was: &[usize], now: &[usize]) -> Vec<usize> {
    let mut new = now.iter().copied().filter(|node| !was.contains(node));
    let kept = |node: &usize| if now.contains(node) { Some(*node) } else { None };
    let mut list: Vec<usize> = was.iter().filter_map(|node| kept(node).or_else(|| new.next())).collect();
    list.extend(new);
    list
}

/// Who leads what, while it changes.
struct Leads {
    /// The arcs that each node leads.
    led: Vec<Vec<usize>>,
    /// How many each node should lead: this, and so between the other two.
    shares: Vec<f64>,
    least: Vec<usize>,
    most: Vec<usize>,
    /// Nodes that nothing can be done for.
    stuck: Vec<bool>,
}

/// An arc's lead passes to a node.
type LeadPass = (usize, usize);

impl Leads {
    fn new(layout: &KeyspaceLayout<'_>) -> Leads {
        let mut led = vec![Vec::new(); layout.nodes.len()];
        for (at, arc) in layout.arcs.iter().enumerate() {
            if let Some(leader) = arc.now.first() {
                led[*leader].push(at);
            }
        }
        // Nobody leads what it does not hold.
        let held = |node: usize| if layout.nodes[node].takes { layout.on[node].len() as f64 } else { 0.0 };
        let bounds: Vec<(f64, f64)> =
            layout.nodes.iter().enumerate().map(|(at, node)| (node.weight, held(at))).collect();
        let shares = fill(layout.arcs.len() as f64, &bounds);
        let whole = |share: f64| (share - 1e-6).ceil().max(0.0) as usize;
        let least = shares.iter().map(|share| (share + 1e-6).floor() as usize).collect();
        Leads {
            led,
            least,
            most: shares.iter().copied().map(whole).collect(),
            shares,
            stuck: vec![false; layout.nodes.len()],
        }
    }

    fn count(&self, node: usize) -> usize {
        self.led[node].len()
    }

    /// Where not all can lead what they should, those that lead the most too many, or too few, share that with others.
    fn share_what_is_off(&mut self, layout: &mut KeyspaceLayout<'_>) {
        for _ in 0..layout.arcs.len() {
            let mut helped = false;
            for node in 0..self.led.len() {
                while !(self.least[node]..=self.most[node]).contains(&self.count(node)) {
                    let gives = self.count(node) > self.most[node];
                    let gains = |at| if gives { self.gains(node, at) } else { self.gains(at, node) };
                    let Some(path) = self.path(layout, node, gives, gains) else { break };
                    self.follow(layout, node, Some(path));
                    helped = true;
                }
            }
            // What one passes on may open a way for another.
            if !helped {
                return;
            }
        }
    }

    /// Whether a lead less here and one more there is more even: lowers Σ (leads − share)² / share.
    fn gains(&self, from: usize, to: usize) -> bool {
        let off = |node: usize| self.count(node) as f64 - self.shares[node];
        (2.0 * off(from) - 1.0) / self.shares[from] > (2.0 * off(to) + 1.0) / self.shares[to] + 1e-9
    }

    /// The shortest way to pass leads on, arc by arc, from a node (or, not `giving`, to it) until one that will do at
    /// the other end. Cost: O(copies of all arcs).
    fn path(
        &self,
        layout: &KeyspaceLayout<'_>,
        node: usize,
        giving: bool,
        ends: impl Fn(usize) -> bool,
    ) -> Option<Vec<LeadPass>> {
        let mut came: Vec<Option<(usize, LeadPass)>> = vec![None; self.led.len()];
        let mut queue = std::collections::VecDeque::from([node]);
        while let Some(at) = queue.pop_front() {
            for (arc, next) in self.neighbours(layout, at, giving) {
                if next == node || came[next].is_some() {
                    continue;
                }
                came[next] = Some((at, (arc, if giving { next } else { at })));
                if ends(next) {
                    let back = std::iter::successors(came[next], |(from, _)| came[*from]);
                    return Some(back.map(|(_, step)| step).collect());
                }
                queue.push_back(next);
            }
        }
        None
    }

    /// Whom a node can pass a lead to (or take one from), and that of which arc; arcs that change anyway come first.
    fn neighbours(&self, layout: &KeyspaceLayout<'_>, node: usize, giving: bool) -> Vec<LeadPass> {
        let arcs = if giving { &self.led[node] } else { &layout.on[node] };
        let mut steps = Vec::new();
        for changed in [true, false] {
            for &arc in arcs {
                let planned = &layout.arcs[arc];
                let leader = planned.now.first().copied().unwrap_or(node);
                if planned.fixed || (planned.now != planned.was) != changed || (leader == node) != giving {
                    continue;
                }
                let others = planned.now.iter().filter(|other| **other != node);
                match giving {
                    true => {
                        steps.extend(others.filter(|it| layout.nodes[**it].takes).map(|other| (arc, *other)))
                    }
                    false => steps.push((arc, leader)),
                }
            }
        }
        steps
    }

    /// Passes leads on along a path; without one, nothing can be done for the node.
    fn follow(&mut self, layout: &mut KeyspaceLayout<'_>, node: usize, path: Option<Vec<LeadPass>>) {
        self.stuck[node] = path.is_none();
        for (arc, leader) in path.unwrap_or_default() {
            let list = &mut layout.arcs[arc].now;
            let Some(slot) = list.iter().position(|node| *node == leader) else { continue };
            list.swap(0, slot);
            let before = list.get(slot).copied().unwrap_or(leader);
            self.led[before].retain(|led| *led != arc);
            self.led[leader].push(arc);
        }
    }
}
