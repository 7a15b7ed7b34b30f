//! A world in which plans are tried: an API server, its controllers, nodes with disks, and a ring.
//!
//! - `ring`: how the ring behaves, and what it is asked for.
//! - `act`: how steps are carried out, under their conditions.
//! - `rest`: fair runs, and what the world should be like afterwards.

mod act;
mod rest;
mod ring;

use crate::controller::{
    plan::{Plan, Step},
    world::{
        Desired, KeyspaceWish, Observed, Place, Pod, PoolWish, Recorded, RingView, Said, Set, Volume,
        ring::{Copies, MemberHealth, Report, Ring, RingArc},
    },
};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

pub type Planner = fn(&Observed, &Desired) -> Plan;

/// What a volume truly holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Disk {
    pub node: Uuid,
    pub joined: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub now: i64,
    pub recorded: Recorded,
    pub recorded_version: u32,
    pub sets: BTreeMap<String, Set>,
    pub pods: Vec<Pod>,
    pub volumes: Vec<Volume>,
    /// By UID of the volume.
    pub disks: BTreeMap<String, Disk>,
    /// What pods hold whose claims were removed while they ran.
    pub mounted: BTreeMap<Place, Disk>,
    pub ring: Option<Ring>,
    /// Arcs as they were before an operation moved them.
    undo: BTreeMap<String, Vec<RingArc>>,
    next: u64,
}

/// What happens without the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    CreatePod(Place),
    StartPod(Place),
    EndPod(Place),
    Admit(Place),
    /// A volume that is being deleted goes, once no pod uses it.
    DropVolume(String),
    RingStep,
    GoLive,
    Tick,
    /// Faults.
    CrashPod(Place),
    LoseVolume(Place),
    /// A claim is removed by force under a pod that runs, or loses its labels.
    RemoveClaim(Place),
}

/// A step as it was planned, and the version of the status that it was based on.
pub type Planned = (Step, u32);

pub fn place(pool: &str, ordinal: u32) -> Place {
    Place { pool: pool.to_owned(), ordinal }
}

pub fn desired(nodes: u32) -> Desired {
    let copies = Copies { replicas: 2, write_quorum: 1, read_quorum: 1 };
    Desired {
        cluster: Uuid::from_u128(0xc1),
        named: None,
        pools: vec![PoolWish {
            name: "a".to_owned(),
            nodes,
            weight: 1_000,
            zone: String::new(),
            volume_bytes: 100,
        }],
        keyspaces: vec![KeyspaceWish { name: "default".to_owned(), ordered: false, copies, ttl_ms: 0 }],
        virtual_nodes: 1,
        paused: false,
        hibernate: false,
        allow_downtime: false,
        replace_automatically: true,
        replace_max: 2,
        replace_window: 86_400,
        quarantine: 3_600,
        replace: BTreeSet::new(),
        release: BTreeSet::new(),
        version: None,
        name: "god".to_owned(),
    }
}

impl World {
    pub fn empty() -> World {
        World {
            now: 1_000_000,
            recorded: Recorded::default(),
            recorded_version: 0,
            sets: BTreeMap::new(),
            pods: Vec::new(),
            volumes: Vec::new(),
            disks: BTreeMap::new(),
            mounted: BTreeMap::new(),
            ring: None,
            undo: BTreeMap::new(),
            next: 1,
        }
    }

    fn fresh(&mut self, what: &str) -> String {
        self.next += 1;
        format!("{what}{}", self.next)
    }

    fn disk_at(&self, place: &Place) -> Option<&Disk> {
        let volume = || self.volumes.iter().find(|volume| volume.place == *place);
        self.mounted.get(place).or_else(|| self.disks.get(&volume()?.uid))
    }

    /// Whether a node's process runs.
    fn runs(&self, node: Uuid) -> bool {
        self.pods
            .iter()
            .any(|pod| !pod.pending && self.disk_at(&pod.place).is_some_and(|disk| disk.node == node))
    }

    fn is_member(&self, node: Uuid) -> bool {
        self.ring.as_ref().is_some_and(|ring| ring.members.contains_key(&node))
    }

    /// Whether a node holds an arc, or is to hold one, of any keyspace.
    pub fn holds(&self, node: Uuid) -> bool {
        let Some(ring) = &self.ring else { return false };
        let Some(member) = ring.members.get(&node) else { return false };
        ring.arcs.iter().any(|arc| {
            arc.replicas.contains(&member.number) || arc.next.iter().flatten().any(|it| *it == member.number)
        })
    }

    pub fn observe(&self) -> Observed {
        self.observe_with(&self.view())
    }

    /// The API server as it is now, with a ring that was looked at some other time.
    pub fn observe_with(&self, ring: &RingView) -> Observed {
        let mut pods = self.pods.clone();
        for pod in &mut pods {
            if pod.pending {
                continue;
            }
            if let Some(disk) = self.disk_at(&pod.place) {
                pod.said = match &self.ring {
                    Some(ring) if disk.joined => Said::Member { node: disk.node, cluster: ring.cluster },
                    _ => Said::Fresh(disk.node),
                };
                pod.ready = self.is_member(disk.node);
            }
        }
        Observed {
            now: self.now,
            recorded: self.recorded.clone(),
            sets: self.sets.clone(),
            pods,
            volumes: self.volumes.clone(),
            ring: ring.clone(),
            excused: 0,
        }
    }

    /// The ring as the nodes tell of it.
    pub fn view(&self) -> RingView {
        let silent = || RingView::Unknown("no node answers".to_owned());
        let Some(ring) = &self.ring else { return silent() };
        let mut ring = ring.clone();
        if let Some(first) = ring.operations.first_mut().filter(|_| self.stepped().is_none()) {
            "nodes that are to give or take copies do not answer".clone_into(&mut first.blocked);
        }
        let numbers = ring.members.values().map(|member| member.number);
        ring.voters = if ring.members.len() < 3 { numbers.take(1).collect() } else { numbers.collect() };
        let mut up = 0;
        for (uuid, member) in &mut ring.members {
            let runs = self.runs(*uuid);
            up += u32::from(runs);
            member.state = if runs { MemberHealth::Up } else { MemberHealth::Down };
            let report = Report { epoch: ring.epoch, disk_free: 1_000, bytes: 10, ..Report::default() };
            member.report = runs.then_some(report);
        }
        if up == 0 { silent() } else { RingView::Known(Box::new(ring)) }
    }

    /// What may happen next without the operator; faults are not among it.
    pub fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for (pool, set) in &self.sets {
            let missing = (0..set.replicas).map(|ordinal| place(pool, ordinal));
            let free = |place: &Place| {
                !self.pods.iter().any(|pod| pod.place == *place)
                    && !self.volumes.iter().any(|volume| volume.place == *place && volume.terminating)
            };
            events.extend(missing.filter(free).map(Event::CreatePod));
        }
        for pod in &self.pods {
            let keeps = self.sets.get(&pod.place.pool).is_none_or(|set| pod.place.ordinal < set.replicas);
            if pod.terminating || !keeps {
                events.push(Event::EndPod(pod.place.clone()));
            } else if pod.pending && self.volumes.iter().any(|volume| volume.place == pod.place) {
                events.push(Event::StartPod(pod.place.clone()));
            } else if !pod.pending
                && let Some(ring) = &self.ring
                && let Some(disk) = self.disk_at(&pod.place)
                && !disk.joined
                && !ring.retired.contains(&disk.node)
            {
                events.push(Event::Admit(pod.place.clone()));
            }
        }
        for volume in self.volumes.iter().filter(|volume| volume.terminating) {
            if !self.pods.iter().any(|pod| pod.place == volume.place) {
                events.push(Event::DropVolume(volume.uid.clone()));
            }
        }
        if let Some(ring) = &self.ring {
            if self.stepped().is_some() {
                events.push(Event::RingStep);
            }
            if ring.keyspaces.iter().any(|keyspace| !keyspace.live) && ring.members.len() >= 2 {
                events.push(Event::GoLive);
            }
        }
        if self.volumes.iter().any(|volume| volume.quarantined_until.is_some_and(|until| until > self.now)) {
            events.push(Event::Tick);
        }
        events
    }

    /// Pods that crash, or are drained. They come back.
    pub fn faults(&self) -> Vec<Event> {
        let running = self.pods.iter().filter(|pod| !pod.pending && !pod.terminating);
        running
            .flat_map(|pod| [Event::CrashPod(pod.place.clone()), Event::EndPod(pod.place.clone())])
            .collect()
    }

    /// Lets something happen. An error is a broken invariant.
    pub fn happen(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::CreatePod(place) => {
                if !self.volumes.iter().any(|volume| volume.place == *place) {
                    let uid = self.fresh("volume");
                    let bytes = self.sets.get(&place.pool).map_or(0, |set| set.volume_bytes);
                    self.volumes.push(Volume {
                        place: place.clone(),
                        uid,
                        version: "1".to_owned(),
                        bytes,
                        node: None,
                        cluster: None,
                        quarantined_until: None,
                        terminating: false,
                    });
                }
                let uid = self.fresh("pod");
                let revision =
                    self.sets.get(&place.pool).and_then(|set| set.revision.clone()).unwrap_or_default();
                self.pods.push(Pod {
                    place: place.clone(),
                    uid,
                    revision,
                    ready: false,
                    terminating: false,
                    pending: true,
                    stuck: None,
                    said: Said::Nothing,
                });
                self.pods.sort_by(|a, b| a.place.cmp(&b.place));
            }
            Event::StartPod(place) => {
                let Some(volume) = self.volumes.iter().find(|volume| volume.place == *place) else {
                    return Ok(());
                };
                let uid = volume.uid.clone();
                if !self.disks.contains_key(&uid) {
                    self.next += 1;
                    let node = Uuid::from_u128(u128::from(self.next));
                    self.disks.insert(uid, Disk { node, joined: false });
                }
                if let Some(pod) = self.pods.iter_mut().find(|pod| pod.place == *place) {
                    pod.pending = false;
                }
            }
            Event::EndPod(place) => {
                self.mounted.remove(place);
                self.pods.retain(|pod| pod.place != *place);
            }
            Event::CrashPod(place) => {
                self.mounted.remove(place);
                if let Some(pod) = self.pods.iter_mut().find(|pod| pod.place == *place) {
                    pod.pending = true;
                }
            }
            Event::Admit(place) => self.admit(place),
            Event::DropVolume(uid) => {
                self.check_deletion(uid)?;
                self.forget(uid);
            }
            Event::LoseVolume(place) => {
                let uid = self.volumes.iter().find(|volume| volume.place == *place).map(|it| it.uid.clone());
                self.mounted.remove(place);
                self.pods.retain(|pod| pod.place != *place);
                self.forget(&uid.unwrap_or_default());
            }
            Event::RemoveClaim(place) => {
                let runs = self.pods.iter().any(|pod| pod.place == *place && !pod.pending);
                let disk = self.disk_at(place).cloned().filter(|_| runs);
                self.volumes.retain(|volume| volume.place != *place || disk.is_none());
                if let Some(disk) = disk {
                    self.disks.retain(|_, other| other.node != disk.node);
                    self.mounted.insert(place.clone(), disk);
                }
            }
            Event::RingStep => self.ring_step(),
            Event::GoLive => {
                if let Some(ring) = &mut self.ring {
                    ring.keyspaces.iter_mut().for_each(|keyspace| keyspace.live = true);
                    ring.epoch += 1;
                }
            }
            Event::Tick => self.now += 3_600,
        }
        Ok(())
    }

    fn forget(&mut self, uid: &str) {
        self.volumes.retain(|volume| volume.uid != uid);
        self.disks.remove(uid);
    }

    /// The invariant: no volume is deleted while its node's UUID holds an arc.
    fn check_deletion(&self, uid: &str) -> Result<(), String> {
        match self.disks.get(uid) {
            Some(disk) if self.holds(disk.node) => {
                Err(format!("volume {uid} is deleted, and its node {} holds arcs", disk.node))
            }
            _ => Ok(()),
        }
    }
}
