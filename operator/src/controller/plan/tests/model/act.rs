//! How steps are carried out, under their conditions.

use super::{Planned, Planner, World, place};
use crate::controller::{
    plan::{Next, Plan, Step, VolumeRef},
    world::{Desired, RingView, Set, Volume},
};

impl World {
    /// What the operator would do now.
    pub fn planned(&self, ring: &RingView, desired: &Desired, planner: Planner) -> (Plan, Option<Planned>) {
        let plan = planner(&self.observe_with(ring), desired);
        let step = match &plan.next {
            Next::Do(step) => Some((step.clone(), self.recorded_version)),
            _ => None,
        };
        (plan, step)
    }

    fn volume(&mut self, wanted: &VolumeRef) -> Option<&mut Volume> {
        self.volumes.iter_mut().find(|volume| {
            volume.uid == wanted.uid && volume.version == wanted.version && !volume.terminating
        })
    }

    /// Carries a step out, as far as its conditions still hold. An error is a broken invariant.
    pub fn act(&mut self, (step, recorded_version): &Planned) -> Result<(), String> {
        match step {
            Step::RecordCluster(_) | Step::RecordFounder { .. } | Step::RecordReplaced { .. } => {
                if *recorded_version != self.recorded_version {
                    return Ok(());
                }
                self.recorded_version += 1;
                match step {
                    Step::RecordCluster(cluster) => self.recorded.cluster = Some(*cluster),
                    Step::RecordFounder { node, volume } => {
                        self.recorded.founder = Some((*node, volume.clone()));
                    }
                    Step::RecordReplaced { node, at } => self.recorded.replaced.push((*node, *at)),
                    _ => {}
                }
            }
            Step::Mark { volume, node, cluster } => {
                if let Some(volume) = self.volume(volume) {
                    (volume.node, volume.cluster) = (Some(*node), *cluster);
                    bump(&mut volume.version);
                }
            }
            Step::CreateSet { pool, replicas } => {
                let uid = self.fresh("set");
                self.sets.entry(pool.clone()).or_insert(Set {
                    uid,
                    version: "1".to_owned(),
                    replicas: *replicas,
                    revision: Some("r1".to_owned()),
                    volume_bytes: 100,
                    terminating: false,
                });
            }
            Step::Scale { pool, version, to, .. } => self.scale(pool, version, *to)?,
            Step::OrphanSet { pool, uid } | Step::DeleteSet { pool, uid, .. } => {
                if self.sets.get(pool).is_some_and(|set| set.uid == *uid) {
                    self.sets.remove(pool);
                }
            }
            Step::Init { node } => self.init(*node)?,
            Step::Begin { id, wish } => self.begin(id, wish)?,
            Step::Cancel { id } => self.cancel(id),
            Step::CreateKeyspace(_) => {}
            Step::Restart { uid, .. } => {
                for pod in self.pods.iter_mut().filter(|pod| pod.uid == *uid) {
                    pod.terminating = true;
                }
            }
            Step::Expand { volume, bytes } => {
                if let Some(volume) = self.volume(volume) {
                    volume.bytes = *bytes;
                    bump(&mut volume.version);
                }
            }
            Step::Quarantine { volume, until } => {
                if let Some(volume) = self.volume(volume) {
                    volume.quarantined_until = Some(*until);
                    bump(&mut volume.version);
                }
            }
            Step::Unquarantine { volume } => {
                if let Some(volume) = self.volume(volume) {
                    volume.quarantined_until = None;
                    bump(&mut volume.version);
                }
            }
            Step::DeleteVolume { volume, .. } => {
                if self.volume(volume).is_none() {
                    return Ok(());
                }
                self.check_deletion(&volume.uid)?;
                let is_used = self.pods.iter().any(|pod| pod.place == volume.place);
                if is_used {
                    if let Some(volume) = self.volume(volume) {
                        volume.terminating = true;
                        bump(&mut volume.version);
                    }
                } else {
                    self.forget(&volume.uid);
                }
            }
        }
        Ok(())
    }

    fn scale(&mut self, pool: &str, version: &str, to: u32) -> Result<(), String> {
        let Some(set) = self.sets.get(pool).filter(|set| set.version == version) else { return Ok(()) };
        let is_off = to == 0;
        for ordinal in to..set.replicas {
            // Where there were no data yet, a node that was admitted since the last look may have been dealt arcs:
            // it is not marked as a member. It comes back with its volume.
            let place = place(pool, ordinal);
            let is_marked = self.volumes.iter().any(|it| it.place == place && it.cluster.is_some());
            if !is_marked && !self.mounted.contains_key(&place) {
                continue;
            }
            let disk = self.disk_at(&place);
            if let Some(disk) = disk.filter(|disk| !is_off && self.holds(disk.node)) {
                return Err(format!("pod {pool}-{ordinal} goes, and its node {} holds arcs", disk.node));
            }
        }
        if let Some(set) = self.sets.get_mut(pool) {
            set.replicas = to;
            bump(&mut set.version);
        }
        Ok(())
    }
}

fn bump(version: &mut String) {
    let next: u32 = version.parse().unwrap_or(0) + 1;
    *version = next.to_string();
}
