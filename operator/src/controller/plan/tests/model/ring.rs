//! How the ring behaves, and what it is asked for.

use super::World;
use crate::controller::world::{
    Place,
    ring::{
        Copies, Ended, Operation, OperationPhase, Progress, Ring, RingArc, RingKeyspace, RingMember, Wish,
    },
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

impl World {
    pub(super) fn admit(&mut self, place: &Place) {
        let Some(node) = self.disk_at(place).map(|disk| disk.node) else { return };
        let Some(ring) = &mut self.ring else { return };
        let number = ring
            .members
            .values()
            .map(|member| member.number)
            .max()
            .unwrap_or(0)
            .max(ring.retired.len() as u32)
            + 1
            + ring.retired.len() as u32;
        let member = RingMember { number, weight: 1_000, ..RingMember::default() };
        ring.members.insert(node, member);
        ring.epoch += 1;
        let disks = self.disks.values_mut().chain(self.mounted.values_mut());
        disks.filter(|disk| disk.node == node).for_each(|disk| disk.joined = true);
        deal(ring);
    }

    /// The operation whose turn it is takes a step, if it can.
    pub(super) fn ring_step(&mut self) {
        let Some(after) = self.stepped() else { return };
        let before = self.ring.replace(after);
        let waiting = before.iter().filter_map(|ring| Some((ring, ring.operations.first()?)));
        for (ring, operation) in waiting.filter(|(_, operation)| operation.phase == OperationPhase::Waiting) {
            self.undo.insert(operation.id.clone(), ring.arcs.clone());
        }
    }

    /// The ring after the next step of the operation whose turn it is. `None`: there is none, or it waits for nodes
    /// that are to give copies, or to take them.
    pub(super) fn stepped(&self) -> Option<Ring> {
        let mut ring = self.ring.clone()?;
        let operation = ring.operations.first().cloned()?;
        if !ring.members.keys().any(|node| self.runs(*node)) {
            return None;
        }
        let before = ring.arcs.clone();
        let members: BTreeSet<u32> = ring.members.values().map(|member| member.number).collect();
        ring.epoch += 1;
        let end = |ring: &mut Ring, cancelled| {
            ring.operations.remove(0);
            ring.ended.push(Ended { id: operation.id.clone(), cancelled, refused: String::new(), epoch: 0 });
        };
        let retiring = retiring(&operation.wish);
        match operation.phase {
            OperationPhase::Waiting => {
                ring.operations[0].phase = OperationPhase::Moving;
                for member in ring.members.values_mut().filter(|member| Some(member.number) == retiring) {
                    member.leaving = true;
                }
                deal(&mut ring);
            }
            OperationPhase::Moving => {
                match operation.wish {
                    Wish::Join(node) => take_part(&mut ring, node),
                    Wish::Leave { node, .. } => give_all(&mut ring, node, None),
                    Wish::Replace { old, new, .. } => give_all(&mut ring, old, Some(new)),
                    _ => {}
                }
                if !self.can_be_copied(&ring, &before) {
                    return None;
                }
                match retiring {
                    Some(_) => ring.operations[0].phase = OperationPhase::Cleaning,
                    None => end(&mut ring, false),
                }
            }
            OperationPhase::Cleaning => {
                let gone = retiring.and_then(|number| ring.numbered(number)).map(|(uuid, _)| uuid);
                if let Some(uuid) = gone {
                    ring.members.remove(&uuid);
                    ring.retired.insert(uuid);
                }
                end(&mut ring, false);
            }
            OperationPhase::Cancelling => {
                // Nothing can go back to a node that was retired meanwhile.
                let is_there = |number: &u32| members.contains(number);
                for (arc, was) in ring.arcs.iter_mut().zip(self.undo.get(&operation.id).into_iter().flatten())
                {
                    if was.replicas.iter().all(is_there) {
                        arc.replicas.clone_from(&was.replicas);
                    }
                }
                if !self.can_be_copied(&ring, &before) {
                    return None;
                }
                for member in ring.members.values_mut().filter(|member| Some(member.number) == retiring) {
                    member.leaving = false;
                }
                end(&mut ring, true);
            }
        }
        Some(ring)
    }

    /// Whether all who are to take copies run, and enough of those who have them: one more than a write may have
    /// missed (BARRIER), and nobody waits for what is given up. Where there are no data nothing is copied.
    fn can_be_copied(&self, ring: &Ring, before: &[RingArc]) -> bool {
        let runs = |number: &u32| ring.numbered(*number).is_some_and(|(uuid, _)| self.runs(uuid));
        let is_lost = |number: &&u32| ring.operations.iter().any(|it| lost_by(&it.wish) == Some(**number));
        let live = |arc: &RingArc| {
            ring.keyspaces.iter().find(|keyspace| keyspace.id == arc.keyspace && keyspace.live)
        };
        before.iter().zip(&ring.arcs).filter(|(old, new)| old.replicas != new.replicas).all(|(old, new)| {
            let Some(keyspace) = live(new) else { return true };
            let (old, new) = (&old.replicas, &new.replicas);
            let resized = old.len() != new.len();
            let all_take = new.iter().filter(|it| resized || !old.contains(it)).all(runs);
            let lost = old.iter().filter(is_lost).count();
            let least = (keyspace.copies.write_quorum as usize).clamp(1, old.len().max(1));
            let needed = (old.len() + 1 - least).min(old.len() - lost);
            all_take && old.iter().filter(|it| runs(it)).count() >= needed
        })
    }

    pub(super) fn init(&mut self, node: Uuid) -> Result<(), String> {
        if !self.runs(node) {
            return Ok(());
        }
        let joined = self.disks.values().any(|disk| disk.node == node && disk.joined);
        if joined {
            return Ok(());
        }
        if self.ring.is_some() {
            return Err(format!("node {node} founds a second cluster"));
        }
        let member = RingMember { number: 1, weight: 1_000, ..RingMember::default() };
        let copies = Copies { replicas: 2, write_quorum: 1, read_quorum: 1 };
        let mut ring = Ring {
            cluster: Uuid::from_u128(0xc1),
            epoch: 1,
            members: BTreeMap::from([(node, member)]),
            retired: BTreeSet::new(),
            voters: BTreeSet::from([1]),
            keyspaces: vec![RingKeyspace {
                id: 1,
                name: "default".to_owned(),
                copies,
                live: false,
                ordered: false,
            }],
            arcs: vec![RingArc { keyspace: 1, replicas: vec![1], next: None }; 2],
            operations: vec![],
            ended: vec![],
        };
        deal(&mut ring);
        self.ring = Some(ring);
        for disk in self.disks.values_mut().filter(|disk| disk.node == node) {
            disk.joined = true;
        }
        Ok(())
    }

    pub(super) fn begin(&mut self, id: &str, wish: &Wish) -> Result<(), String> {
        let lost = lost_by(wish);
        let anybody = self.ring.iter().flat_map(|ring| ring.members.keys()).any(|node| self.runs(*node));
        let Some(ring) = self.ring.as_mut().filter(|_| anybody) else { return Ok(()) };
        let is_known =
            ring.operations.iter().any(|it| it.id == id) || ring.ended.iter().any(|it| it.id == id);
        let nodes = wish.nodes();
        let unknown = nodes.iter().any(|node| ring.numbered(*node).is_none());
        let ends = |it: &Operation| lost.is_some() && it.phase == OperationPhase::Cancelling;
        let busy = ring
            .operations
            .iter()
            .filter(|it| !ends(it))
            .any(|it| it.wish.nodes().iter().any(|node| nodes.contains(node) && lost != Some(*node)));
        let active = ring.members.values().filter(|member| !member.leaving).count();
        let too_few = matches!(wish, Wish::Leave { lost: false, .. }) && ring.has_data() && active <= 2;
        if is_known || unknown || busy || too_few {
            return Ok(());
        }
        if let Some(uuid) = lost.and_then(|number| ring.numbered(number)).map(|(uuid, _)| uuid)
            && self.disks.values().chain(self.mounted.values()).any(|disk| disk.node == uuid)
        {
            return Err(format!("the data of node {uuid} are given up, and they are there"));
        }
        ring.epoch += 1;
        if let Some(lost) = lost {
            make_way(ring, lost);
        }
        let at = if lost.is_some() { 0 } else { ring.operations.len() };
        let asked = Operation {
            id: id.to_owned(),
            wish: wish.clone(),
            phase: OperationPhase::Waiting,
            progress: Progress::default(),
            blocked: String::new(),
        };
        ring.operations.insert(at, asked);
        Ok(())
    }

    pub(super) fn cancel(&mut self, id: &str) {
        let Some(ring) = &mut self.ring else { return };
        let Some(at) = ring.operations.iter().position(|operation| operation.id == id) else { return };
        ring.epoch += 1;
        match ring.operations[at].phase {
            OperationPhase::Waiting => {
                let operation = ring.operations.remove(at);
                ring.ended.push(Ended {
                    id: operation.id,
                    cancelled: true,
                    refused: String::new(),
                    epoch: 0,
                });
            }
            _ => ring.operations[at].phase = OperationPhase::Cancelling,
        }
    }
}

/// What makes up for lost data goes first: what is under way begins anew after it, what goes back ends where it is, and
/// what was asked of the lost node itself ends.
fn make_way(ring: &mut Ring, lost: u32) {
    let is_senseless = |operation: &Operation| operation.wish.nodes().contains(&lost);
    let (ending, kept) = ring
        .operations
        .drain(..)
        .partition::<Vec<_>, _>(|it| is_senseless(it) || it.phase == OperationPhase::Cancelling);
    ring.operations = kept;
    ring.ended.extend(ending.into_iter().map(|operation| {
        let senseless = is_senseless(&operation);
        Ended {
            id: operation.id,
            cancelled: !senseless,
            refused: if senseless { "its data are gone".to_owned() } else { String::new() },
            epoch: 0,
        }
    }));
    for operation in &mut ring.operations {
        if operation.phase == OperationPhase::Moving {
            operation.phase = OperationPhase::Waiting;
        }
    }
    // Nobody leaves until its operation's turn comes again, if it does.
    let retiring = |operation: &Operation| {
        (operation.phase != OperationPhase::Waiting).then(|| retiring(&operation.wish))
    };
    let leaves: Vec<u32> = ring.operations.iter().filter_map(retiring).flatten().collect();
    for member in ring.members.values_mut() {
        member.leaving = leaves.contains(&member.number);
    }
}

/// Whose data an operation takes for gone.
fn lost_by(wish: &Wish) -> Option<u32> {
    match wish {
        Wish::Leave { node, lost: true } | Wish::Replace { old: node, lost: true, .. } => Some(*node),
        _ => None,
    }
}

/// Whom an operation takes out of the ring.
fn retiring(wish: &Wish) -> Option<u32> {
    match wish {
        Wish::Leave { node, .. } => Some(*node),
        Wish::Replace { old, .. } => Some(*old),
        _ => None,
    }
}

/// Arcs of keyspaces without data go to whoever is there.
fn deal(ring: &mut Ring) {
    if ring.has_data() {
        return;
    }
    let active: Vec<u32> = ring.members.values().filter(|it| !it.leaving).map(|it| it.number).collect();
    for (at, arc) in ring.arcs.iter_mut().enumerate() {
        arc.replicas = (0..2.min(active.len())).map(|step| active[(at + step) % active.len()]).collect();
    }
}

/// A new member takes the copies that are missing, or else one from whoever has the most.
fn take_part(ring: &mut Ring, node: u32) {
    for arc in ring.arcs.iter_mut().filter(|arc| arc.replicas.len() < 2 && !arc.replicas.contains(&node)) {
        arc.replicas.push(node);
    }
    if ring.arcs_of(node) == 0
        && let Some(arc) = ring.arcs.first_mut()
    {
        arc.replicas[0] = node;
    }
}

fn give_all(ring: &mut Ring, old: u32, new: Option<u32>) {
    let active: Vec<u32> = ring.members.values().filter(|it| !it.leaving).map(|it| it.number).collect();
    for arc in ring.arcs.iter_mut().filter(|arc| arc.replicas.contains(&old)) {
        arc.replicas.retain(|it| *it != old);
        let taker = new.or_else(|| active.iter().copied().find(|it| !arc.replicas.contains(it)));
        arc.replicas.extend(taker.filter(|it| !arc.replicas.contains(it)));
    }
}
