//! Fair runs, and what the world should be like afterwards.

use super::{Event, Planned, Planner, World, desired, place};
use crate::controller::{
    plan::{Plan, Step, plan},
    world::Desired,
};
use uuid::Uuid;

impl World {
    /// A fair run: the operator acts on what it sees, everything else goes on. Gives the last plan.
    pub fn settle(&mut self, desired: &Desired, planner: Planner) -> Result<Plan, String> {
        for _ in 0..2_000 {
            let (plan, step) = self.planned(&self.view(), desired, planner);
            let events: Vec<Event> =
                self.events().into_iter().filter(|event| *event != Event::GoLive).collect();
            if let Some(step) = &step {
                self.act(step)?;
            }
            match events.first() {
                Some(event) => self.happen(event)?,
                None if step.is_none() => return Ok(plan),
                None => {}
            }
        }
        Err(format!("it does not come to rest: {:?}", planner(&self.observe(), desired)))
    }

    /// What is not as it should be, once all is at rest.
    pub fn unlike(&self, desired: &Desired) -> Option<String> {
        let wanted = desired.nodes() as usize;
        let ring = self.ring.as_ref()?;
        let figures = (ring.members.len(), self.pods.len(), self.volumes.len());
        let even = figures == (wanted, wanted, wanted);
        let served = ring.arcs.iter().all(|arc| {
            let there = |number: &u32| ring.numbered(*number).is_some_and(|(uuid, _)| self.runs(uuid));
            arc.replicas.len() == 2.min(wanted) && arc.replicas.iter().all(there)
        });
        (!even || !served)
            .then(|| format!("members, pods, volumes are {figures:?} of {wanted}, arcs {:?}", ring.arcs))
    }

    /// Whether every member's volume is there: one without arcs may lack its own while all arcs are served.
    pub fn has_all_volumes(&self) -> bool {
        let there = |node: &Uuid| self.disks.values().any(|disk| disk.node == *node);
        self.ring.as_ref().is_none_or(|ring| ring.members.keys().all(there))
    }

    /// Who is missing of those asked for, though volumes may still be in quarantine.
    pub fn missing(&self, desired: &Desired) -> Option<String> {
        let places =
            desired.pools.iter().flat_map(|pool| (0..pool.nodes).map(|ordinal| place(&pool.name, ordinal)));
        places.into_iter().find_map(|place| {
            let node = self.disk_at(&place).map(|disk| disk.node);
            let is_there = node.is_some_and(|node| self.runs(node) && self.is_member(node));
            (!is_there).then(|| format!("no member runs in {place:?}"))
        })
    }

    /// A cluster of so many nodes, without data, at rest.
    pub fn without_data(nodes: u32) -> World {
        let mut world = World::empty();
        world.settle(&desired(nodes), plan).expect("a cluster should come to be");
        world
    }

    /// A cluster of so many nodes, with data, at rest.
    pub fn running(nodes: u32) -> World {
        let mut world = World::without_data(nodes);
        world.happen(&Event::GoLive).expect("data may come");
        world.settle(&desired(nodes), plan).expect("a cluster should come to rest");
        world
    }

    pub fn node_at(&self, ordinal: u32) -> Uuid {
        self.disk_at(&place("a", ordinal)).expect("a node should have been there").node
    }

    /// What tells two states of a walk apart: names and versions of objects do only where the step depends on them.
    pub fn canonical(&self, planned: Option<&Planned>) -> (World, Option<Planned>) {
        const CURRENT: &str = "current";
        let mut world = self.clone();
        let mut planned = planned.cloned();
        let same = |named: &mut String, current: &str| {
            let is_current = named == current;
            if is_current {
                CURRENT.clone_into(named);
            }
            is_current
        };
        match &mut planned {
            Some((Step::Scale { pool, version, .. }, _)) => {
                let current = self.sets.get(pool).map(|set| set.version.clone()).unwrap_or_default();
                same(version, &current);
            }
            Some((Step::Restart { uid, .. }, _)) if self.pods.iter().any(|pod| pod.uid == *uid) => {
                CURRENT.clone_into(uid);
            }
            Some((
                Step::Mark { volume, .. }
                | Step::Quarantine { volume, .. }
                | Step::Unquarantine { volume }
                | Step::DeleteVolume { volume, .. },
                _,
            )) => {
                let current =
                    self.volumes.iter().find(|it| it.uid == volume.uid).map(|it| it.version.clone());
                same(&mut volume.version, &current.unwrap_or_default());
            }
            _ => {}
        }
        if let Some((_, version)) = &mut planned {
            *version = u32::from(*version == self.recorded_version);
        }
        world.next = 0;
        world.recorded_version = 0;
        world.undo.clear();
        world.pods.iter_mut().for_each(|pod| pod.uid.clear());
        world.volumes.iter_mut().for_each(|volume| volume.version.clear());
        world.sets.values_mut().for_each(|set| set.version.clear());
        if let Some(ring) = &mut world.ring {
            ring.epoch = 0;
        }
        (world, planned)
    }
}
