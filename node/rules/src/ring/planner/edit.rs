//! What is changed in a layout: copies pass and are given up, arcs are cut. Sums and indexes follow.

use super::{
    ArcSize,
    cut::width,
    layout::{Cause, KeyspaceLayout, PlannedArc},
};
use god_proto::position::PositionRange;

impl KeyspaceLayout<'_> {
    /// Gives a node a copy, in the place of another one's or after all others. Cost: O(arcs of the other one).
    pub fn pass(&mut self, arc: usize, from: Option<usize>, to: usize, cause: Cause) {
        let mut now = self.lift(arc);
        match now.iter_mut().find(|node| Some(**node) == from) {
            Some(slot) => *slot = to,
            None => now.push(to),
        }
        if let Some(from) = from {
            self.leave(arc, from);
        }
        self.load(to, self.arcs[arc].weight);
        self.on[to].push(arc);
        if !self.arcs[arc].was.contains(&to) {
            self.space.take(to, self.arcs[arc].size.bytes);
        }
        self.put_on(arc, now, cause);
    }

    /// Takes a copy away. Cost: O(arcs of the node).
    pub fn give_up(&mut self, arc: usize, node: usize, cause: Cause) {
        let mut now = self.lift(arc);
        now.retain(|other| *other != node);
        self.leave(arc, node);
        self.put_on(arc, now, cause);
    }

    fn lift(&mut self, arc: usize) -> Vec<usize> {
        let now = std::mem::take(&mut self.arcs[arc].now);
        self.forget_set(&now);
        now
    }

    fn leave(&mut self, arc: usize, node: usize) {
        self.load(node, -self.arcs[arc].weight);
        if let Some(at) = self.on[node].iter().position(|other| *other == arc) {
            self.on[node].swap_remove(at);
        }
        if !self.arcs[arc].was.contains(&node) {
            self.space.give_back(node, self.arcs[arc].size.bytes);
        }
    }

    fn put_on(&mut self, arc: usize, now: Vec<usize>, cause: Cause) {
        *self.sets.entry(self.fingerprint(&now)).or_default() += 1;
        let planned = &mut self.arcs[arc];
        planned.news = now.iter().filter(|node| !planned.was.contains(node)).count();
        planned.now = now;
        planned.cause.get_or_insert(cause);
    }

    /// Cuts an arc that is too heavy to make nodes even.
    pub fn cut_for_evenness(&mut self, arc: usize) -> bool {
        let part = 100.0 * self.arcs[arc].weight / self.total;
        self.cut(arc, format!("it has {part:.1} % of the keyspace, too much to be dealt out whole"))
    }

    /// Cuts an arc in two, which both are where it was. Gives false if it cannot be cut.
    pub fn cut(&mut self, arc: usize, reason: String) -> bool {
        let whole = self.arcs[arc].clone();
        let Some((at, [low, high])) = whole.cut.place(&whole.range, self.hashed) else { return false };
        if whole.fixed || !self.cuts.available() {
            return false;
        }
        let id = self.cuts.make(whole.id, at.clone(), reason);
        let part = |id, start, end, cut, half: fn(u64) -> u64| {
            let size = ArcSize {
                bytes: half(whole.size.bytes),
                entries: half(whole.size.entries),
                load: whole.size.load / 2.0,
                middle: None,
            };
            PlannedArc {
                id,
                range: PositionRange { start, end },
                extent: whole.extent / 2.0,
                size,
                cut,
                ..whole.clone()
            }
        };
        let mut low = part(whole.id, whole.range.start.clone(), at.clone(), low, |all| all - all / 2);
        let mut high = part(id, at, whole.range.end.clone(), high, |all| all / 2);
        self.weigh(&mut low);
        self.weigh(&mut high);
        let change = low.weight - whole.weight;
        self.total += change;
        for node in &whole.now {
            self.held[*node] += change;
        }
        self.arcs[arc] = low;
        self.hold(high);
        self.put_in_order();
        true
    }

    /// Says what an arc weighs.
    pub fn weigh(&self, arc: &mut PlannedArc) {
        if let Some(keyspace) = self.hashed {
            arc.extent = width(&arc.range, keyspace) as f64 / 2f64.powi(64);
        }
        let asked = arc.size.load.max(0.0) * self.per_request;
        arc.weight = (arc.size.bytes as f64).max(self.base * arc.extent) + asked;
    }

    /// Adds an arc.
    pub fn hold(&mut self, arc: PlannedArc) {
        self.total += arc.weight;
        for node in &arc.now {
            self.held[*node] += arc.weight;
            self.on[*node].push(self.arcs.len());
        }
        for node in &arc.was {
            self.was_on[*node].push(self.arcs.len());
        }
        *self.sets.entry(self.fingerprint(&arc.now)).or_default() += 1;
        self.arcs.push(arc);
    }

    /// Makes the layout what the next plan will find, once what is planned by now is carried out.
    pub fn begin_anew(&mut self) {
        for arc in &mut self.arcs {
            arc.was.clone_from(&arc.now);
            arc.news = 0;
        }
        self.rebuild();
    }

    /// Makes one plan of those before and after [`Self::begin_anew`]; says whether the later one moves anything.
    pub fn take_together(&mut self) -> bool {
        let mut moved = false;
        for arc in &mut self.arcs {
            moved |= arc.news > 0;
            let between = std::mem::replace(&mut arc.was, arc.origin.clone());
            // Room was taken for copies that are passed on now, and for some that were there at first.
            let passed_on = between.iter().filter(|node| !arc.now.contains(node) && !arc.was.contains(node));
            let were_there = arc.now.iter().filter(|node| !between.contains(node) && arc.was.contains(node));
            passed_on.chain(were_there).for_each(|node| self.space.give_back(*node, arc.size.bytes));
            arc.news = arc.now.iter().filter(|node| !arc.was.contains(node)).count();
        }
        self.rebuild();
        moved
    }

    /// All sums and indexes anew, with arcs in the order of their positions.
    fn rebuild(&mut self) {
        let mut arcs = std::mem::take(&mut self.arcs);
        arcs.sort_by(|a, b| a.range.start.cmp(&b.range.start));
        self.total = 0.0;
        self.held.fill(0.0);
        self.on.iter_mut().chain(&mut self.was_on).for_each(Vec::clear);
        self.sets.clear();
        arcs.into_iter().for_each(|arc| self.hold(arc));
        self.put_in_order();
    }

    fn load(&mut self, node: usize, change: f64) {
        self.order.remove(&self.rank(node));
        self.held[node] += change;
        if self.nodes[node].takes {
            self.order.insert(self.rank(node));
        }
    }

    /// Sorts the nodes anew, once what all weigh has changed.
    pub fn put_in_order(&mut self) {
        self.order = self.takers().map(|node| self.rank(node)).collect();
    }

    fn rank(&self, node: usize) -> (u64, usize) {
        (self.ratio(node).max(0.0).to_bits(), node)
    }

    fn forget_set(&mut self, nodes: &[usize]) {
        let set = self.fingerprint(nodes);
        match self.sets.get_mut(&set) {
            Some(arcs) if *arcs > 1 => *arcs -= 1,
            _ => {
                self.sets.remove(&set);
            }
        }
    }
}
