//! Answers to clients.

use super::{Member, Node, planned::planned_shares};
use crate::{
    budget::Paid,
    consensus::RegisterError,
    doors::{Readiness, Service},
    quorum::AnswerSink,
    ring::{ChangeError, Founding, Hearing, create_keyspace, delete_keyspace, found, free_names},
    upkeep::Driven,
};
use futures::future::BoxFuture;
use god_proto::{
    ids::{KeyspaceId, NodeId},
    keyspace::default_quorums,
    ring::Ring,
    v1::{self, Answer, Call, Reason, Rejected},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// The node, as clients reach it.
pub struct ClientService(pub Arc<Node>);

/// What clients are told when the ring did not change.
pub(super) fn refusal(error: &RegisterError) -> Rejected {
    let reason = match error {
        RegisterError::Refused(error) => error.reason(),
        RegisterError::NoRing => Reason::NotInitialised,
        RegisterError::Founded(_) => Reason::Exists,
        RegisterError::NoQuorum { .. } | RegisterError::Unknown => Reason::Unavailable,
        RegisterError::Busy => Reason::Busy,
        RegisterError::Storage(_) => Reason::Storage,
    };
    Rejected::of(reason, error.to_string())
}

/// What clients are told when an operation is not done as asked.
fn not_done(error: &Driven) -> Rejected {
    match error {
        Driven::Ring(error) => refusal(error),
        Driven::Refused(message) => Rejected::of(Reason::Invalid, message.clone()),
    }
}

impl ClientService {
    async fn planned(&self, wish: v1::Wish) -> Result<v1::PlanOperationReply, Rejected> {
        let upkeep = &self.member()?.upkeep;
        let (ring, plan, sizes) = upkeep.plan_operation(&wish).await.map_err(|error| not_done(&error))?;
        let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<u32>>();
        Ok(v1::PlanOperationReply {
            splits: plan
                .splits
                .iter()
                .map(|split| v1::PlannedSplit {
                    arc: split.arc.0,
                    at: split.at.clone().into_bytes(),
                    new_arc: split.new.0,
                    reason: split.reason.clone(),
                })
                .collect(),
            moves: plan
                .moves
                .iter()
                .map(|step| v1::PlannedMove {
                    arc: step.arc.0,
                    from: numbers(&step.from),
                    to: numbers(&step.to),
                    bytes: step.bytes,
                    reason: step.reason.clone(),
                })
                .collect(),
            bytes: plan.bytes,
            ideal_bytes: plan.ideal_bytes,
            shares: planned_shares(&ring, &plan, &sizes),
            unevenness: plan.unevenness,
            notes: plan.notes,
            expected_ms: plan.bytes * 1_000 / upkeep.transfer_rate().max(1),
            failed: None,
        })
    }

    fn member(&self) -> Result<&Member, Rejected> {
        self.0.serves()?;
        self.0.member().ok_or_else(|| self.0.outsider())
    }
}

impl Service for ClientService {
    fn batch_to<'a>(&'a self, calls: Vec<Call>, told: &'a mut dyn AnswerSink) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            match self.member() {
                Ok(member) => {
                    self.0.rate.add(calls.len());
                    member.coordinator.batch_to(calls, told).await;
                }
                Err(why) => {
                    let refused = |call: &Call| Answer::refused(call.is_read(), why.clone());
                    told.take(calls.iter().map(refused).enumerate().collect(), Paid::default());
                }
            }
        })
    }

    fn scan(&self, request: v1::ScanRequest) -> BoxFuture<'_, v1::ScanReply> {
        Box::pin(async move {
            match self.member() {
                Ok(member) => {
                    self.0.rate.add(1);
                    member.coordinator.scan(request).await
                }
                Err(why) => v1::ScanReply { failed: Some(why), ..v1::ScanReply::default() },
            }
        })
    }

    fn count(&self, request: v1::CountRequest) -> BoxFuture<'_, v1::CountReply> {
        Box::pin(async move {
            match self.member() {
                Ok(member) => member.coordinator.count(request).await,
                Err(why) => v1::CountReply { failed: Some(why), ..v1::CountReply::default() },
            }
        })
    }

    fn rank(&self, request: v1::RankRequest) -> BoxFuture<'_, v1::RankReply> {
        Box::pin(async move {
            match self.member() {
                Ok(member) => member.coordinator.rank(request).await,
                Err(why) => v1::RankReply { failed: Some(why), ..v1::RankReply::default() },
            }
        })
    }

    fn select(&self, request: v1::SelectRequest) -> BoxFuture<'_, v1::SelectReply> {
        Box::pin(async move {
            match self.member() {
                Ok(member) => member.coordinator.select(request).await,
                Err(why) => v1::SelectReply { failed: Some(why), ..v1::SelectReply::default() },
            }
        })
    }

    fn init(&self, request: v1::InitRequest) -> BoxFuture<'_, v1::InitReply> {
        Box::pin(async move {
            match self.0.init(request).await {
                Ok(cluster) => v1::InitReply { cluster: cluster.into(), failed: None },
                Err(why) => v1::InitReply { failed: Some(why), ..v1::InitReply::default() },
            }
        })
    }

    fn ring(&self, _: v1::RingRequest) -> BoxFuture<'_, v1::RingReply> {
        Box::pin(async move {
            match self.0.known_ring() {
                Ok(ring) => v1::RingReply { ring: Some(ring.document().clone()), failed: None },
                Err(why) => v1::RingReply { ring: None, failed: Some(why) },
            }
        })
    }

    fn status(&self, _: v1::StatusRequest) -> BoxFuture<'_, v1::StatusReply> {
        Box::pin(self.0.cluster_status())
    }

    fn create_keyspace(&self, request: v1::CreateKeyspaceRequest) -> BoxFuture<'_, v1::CreateKeyspaceReply> {
        Box::pin(async move {
            match self.0.create(request).await {
                Ok(keyspace) => v1::CreateKeyspaceReply { keyspace: Some(keyspace), failed: None },
                Err(why) => v1::CreateKeyspaceReply { keyspace: None, failed: Some(why) },
            }
        })
    }

    fn delete_keyspace(&self, request: v1::DeleteKeyspaceRequest) -> BoxFuture<'_, v1::DeleteKeyspaceReply> {
        Box::pin(async move { v1::DeleteKeyspaceReply { failed: self.0.delete(request).await.err() } })
    }

    fn list_keyspaces(&self, _: v1::ListKeyspacesRequest) -> BoxFuture<'_, v1::ListKeyspacesReply> {
        Box::pin(async move {
            match self.0.known_ring() {
                Ok(ring) => v1::ListKeyspacesReply { keyspaces: ring.keyspaces().to_vec(), failed: None },
                Err(why) => v1::ListKeyspacesReply { keyspaces: vec![], failed: Some(why) },
            }
        })
    }

    fn plan_operation(&self, request: v1::PlanOperationRequest) -> BoxFuture<'_, v1::PlanOperationReply> {
        Box::pin(async move {
            match self.planned(request.wish.unwrap_or_default()).await {
                Ok(reply) => reply,
                Err(why) => v1::PlanOperationReply { failed: Some(why), ..v1::PlanOperationReply::default() },
            }
        })
    }

    fn begin_operation(&self, request: v1::BeginOperationRequest) -> BoxFuture<'_, v1::BeginOperationReply> {
        Box::pin(async move {
            let id = match request.id.as_str() {
                "" => format!("operation-{}", self.0.seams.entropy.uuid().simple()),
                id => id.to_owned(),
            };
            let begun = match self.member() {
                Ok(member) => {
                    let begun = member.upkeep.begin_operation(&id, &request.wish.unwrap_or_default()).await;
                    begun.map_err(|error| not_done(&error))
                }
                Err(why) => Err(why),
            };
            v1::BeginOperationReply { id, failed: begun.err() }
        })
    }

    fn cancel_operation(
        &self,
        request: v1::CancelOperationRequest,
    ) -> BoxFuture<'_, v1::CancelOperationReply> {
        Box::pin(async move {
            let failed = match self.member() {
                Ok(member) => {
                    member.upkeep.cancel_operation(&request.id).await.err().map(|error| not_done(&error))
                }
                Err(why) => Some(why),
            };
            v1::CancelOperationReply { failed }
        })
    }

    fn list_operations(&self, _: v1::ListOperationsRequest) -> BoxFuture<'_, v1::ListOperationsReply> {
        Box::pin(async move {
            let listed = match self.member() {
                Ok(member) => member.upkeep.list_operations().await.map_err(|error| not_done(&error)),
                Err(why) => Err(why),
            };
            listed.unwrap_or_else(|why| v1::ListOperationsReply {
                failed: Some(why),
                ..v1::ListOperationsReply::default()
            })
        })
    }

    fn recover(&self, request: v1::RecoverRequest) -> BoxFuture<'_, v1::RecoverReply> {
        Box::pin(async move {
            let done = self.0.recover(request).await;
            done.unwrap_or_else(|why| v1::RecoverReply { failed: Some(why), ..v1::RecoverReply::default() })
        })
    }

    fn epoch(&self) -> u64 {
        self.0.ring.epoch().0
    }

    fn readiness(&self) -> Readiness {
        let reasons = self.0.obstacles();
        Readiness { ready: reasons.is_empty(), reasons }
    }
}

/// Zero means: what the node was told.
fn or(asked: u32, default: u32) -> u32 {
    if asked == 0 { default } else { asked }
}

/// Whether the ring has the keyspace that is wished for.
fn is_as_wished(ring: &Ring, wish: &v1::Keyspace) -> bool {
    ring.keyspace(&wish.name).is_some_and(|found| {
        let (least_write_quorum, former) = (found.least_write_quorum, found.former.clone());
        let as_found =
            v1::Keyspace { id: found.id, live: found.live, least_write_quorum, former, ..wish.clone() };
        let (write_quorum, read_quorum) = default_quorums(wish.replicas, wish.write_quorum, wish.read_quorum);
        *found == v1::Keyspace { write_quorum, read_quorum, ..as_found }
    })
}

impl Node {
    /// Whether it is the node of its directory; clients of another one are told that it serves nobody.
    pub(super) fn serves(&self) -> Result<(), Rejected> {
        self.another().map_or(Ok(()), |why| Err(Rejected::of(Reason::Unavailable, why)))
    }

    /// The ring of its cluster, where it serves it.
    pub(super) fn known_ring(&self) -> Result<Arc<Ring>, Rejected> {
        self.serves()?;
        self.ring.get().ok_or_else(|| self.outsider())
    }

    /// Founds a cluster on this node.
    async fn init(self: &Arc<Self>, request: v1::InitRequest) -> Result<Vec<u8>, Rejected> {
        self.serves()?;
        let exists =
            |cluster| Rejected::of(Reason::Exists, format!("this node is in cluster {cluster} already"));
        let _turn = self.entering.lock().await;
        if let Some(cluster) = self.identity.load().cluster.or(self.ring.get().map(|ring| ring.cluster())) {
            return Err(exists(cluster));
        }
        let replicas = or(request.replicas, self.settings.founding.replicas);
        // Where one of the three is given, a quorum that was left out follows from those, and not from settings that
        // were made for others.
        let told = &self.settings.founding;
        let (write, read) = match (request.replicas, request.write_quorum, request.read_quorum) {
            (0, 0, 0) => (told.write_quorum, told.read_quorum),
            (_, write, read) => (write, read),
        };
        let (write_quorum, read_quorum) = default_quorums(replicas, write, read);
        let founding = Founding {
            replicas,
            write_quorum,
            read_quorum,
            virtual_nodes: or(request.virtual_nodes, self.settings.founding.virtual_nodes),
            under_replicated: request.under_replicated,
        };
        let cluster = self.settings.cluster.unwrap_or_else(|| self.seams.entropy.uuid());
        let ring = found(cluster, &self.settings.own, founding).map_err(|error| refusal(&error.into()))?;
        self.register.found(ring).await.map_err(|error| refusal(&error))?;
        let node = Arc::clone(self);
        let became = self.seams.offload.run(move || node.become_member(cluster, NodeId(1))).await;
        became.map_err(|error| Rejected::of(Reason::Storage, error.to_string()))?;
        Ok(cluster.as_bytes().to_vec())
    }

    async fn create(&self, request: v1::CreateKeyspaceRequest) -> Result<v1::Keyspace, Rejected> {
        let ring = self.known_ring()?;
        let default = ring.keyspace(god_proto::DEFAULT_KEYSPACE);
        let replicas =
            or(request.replicas, default.map_or(self.settings.founding.replicas, |it| it.replicas));
        let wish = v1::Keyspace {
            name: request.name.clone(),
            partitioner: request.partitioner,
            replicas,
            write_quorum: request.write_quorum,
            read_quorum: request.read_quorum,
            mode: request.mode,
            default_ttl_ms: request.default_ttl_ms,
            under_replicated: request.under_replicated,
            ..v1::Keyspace::default()
        };
        let splits: Vec<Vec<u8>> = request.splits.iter().map(|split| split.to_vec()).collect();
        let is_again = AtomicBool::new(false);
        let edit = |ring: &Ring| match create_keyspace(ring, &wish, &splits) {
            // An attempt before this one may have been decided without this node seeing so.
            Err(ChangeError::Exists(_)) if is_again.load(Relaxed) && is_as_wished(ring, &wish) => Ok(None),
            made => {
                // What was refused was proposed to nobody.
                is_again.fetch_or(made.is_ok(), Relaxed);
                made.map(Some)
            }
        };
        let ring = self.change_names(Some(&request.name), edit).await?;
        ring.keyspace(&request.name).cloned().ok_or_else(|| {
            refusal(
                &ChangeError::Invalid(format!("keyspace {} was made and is gone again", request.name)).into(),
            )
        })
    }

    /// A change that needs a name of a deleted keyspace, or room for one (`None`): where too few have heard of a
    /// deletion, or are not known to, it is made once they have (NAME-HEARD).
    async fn change_names(
        &self,
        name: Option<&str>,
        edit: impl Fn(&Ring) -> Result<Option<Ring>, ChangeError>,
    ) -> Result<Arc<Ring>, Rejected> {
        let change = async |hearing: Hearing| {
            let edit = |ring: &Ring| edit(&free_names(ring, &hearing)?);
            self.register.change(self.settings.change_timeout, edit).await
        };
        let mut changed = change(Hearing::default()).await;
        if let (Err(RegisterError::Refused(ChangeError::Unheard(_))), Some(member)) =
            (&changed, self.member())
        {
            let hearing = member.upkeep.names_heard(name, self.settings.change_timeout / 2).await;
            changed = change(hearing).await;
        }
        changed.map_err(|error| refusal(&error))
    }

    async fn delete(&self, request: v1::DeleteKeyspaceRequest) -> Result<(), Rejected> {
        let ring = self.known_ring()?;
        let v1::DeleteKeyspaceRequest { name, id } = request;
        // Whichever has the name now: one that gets it meanwhile is not meant.
        let id = match (id, ring.keyspace(&name)) {
            (0, Some(found)) => found.id,
            (0, None) => {
                return Err(Rejected::of(Reason::NoSuchKeyspace, format!("there is no keyspace {name}")));
            }
            (id, _) => id,
        };
        let edit = |ring: &Ring| delete_keyspace(ring, &name, KeyspaceId(id));
        self.change_names(None, edit).await.map(|_| ())
    }
}
