//! Who is at the other end of a stream, and whether to talk to it.

use super::starts::{Answering, Meeting, Starts, Way, heard, told};
use crate::ring::CurrentRing;
use god_proto::{PEER_PROTOCOL, ids::NodeId, peer::Hello};
use god_rules::starts::Start;
use std::sync::{Arc, OnceLock};
use uuid::Uuid;

/// What one that introduced itself may ask (MEMBERS-ONLY).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PeerRole {
    /// The ring says that it is this node. It may ask anything.
    Member(NodeId),
    /// It is no node of the ring that this node knows, or there is none yet. It may ask for the ring, and to be taken
    /// in.
    Stranger,
    /// It is another process of a node than the one that is taken for it, and may ask no more than a stranger. Why.
    Other(String),
}

/// This node, as it introduces itself. Its cluster and number follow from the ring, once there is one.
pub struct Identity {
    uuid: Uuid,
    ring: CurrentRing,
    // A number is given once and for ever, so it need be looked up only once.
    number: OnceLock<NodeId>,
    starts: Arc<Starts>,
}

impl Identity {
    /// The node with this UUID, of the cluster that `ring` says, and this start of it.
    pub fn new(uuid: Uuid, ring: CurrentRing, starts: Arc<Starts>) -> Arc<Identity> {
        Arc::new(Identity { uuid, ring, number: OnceLock::new(), starts })
    }

    /// This node's start, and what it knows of others'.
    pub fn starts(&self) -> &Arc<Starts> {
        &self.starts
    }

    /// Its number; none before it joined. Cost: an atomic load, once it is known.
    pub fn number(&self) -> Option<NodeId> {
        if let Some(number) = self.number.get() {
            return Some(*number);
        }
        let number = NodeId(self.ring.get()?.node_by_uuid(self.uuid)?.number);
        Some(*self.number.get_or_init(|| number))
    }

    /// The ring that it goes by.
    pub fn ring(&self) -> &CurrentRing {
        &self.ring
    }

    /// What it says first on each stream.
    pub fn hello(&self) -> Hello {
        let cluster = self.ring.get().map_or_else(Vec::new, |ring| ring.cluster().as_bytes().to_vec());
        Hello {
            protocol: PEER_PROTOCOL,
            cluster: cluster.into(),
            uuid: self.uuid.as_bytes().to_vec().into(),
            number: self.number().map_or(0, |number| number.0),
            start: told(&self.starts.own()),
        }
    }

    /// Whether to talk to one that introduces itself like this; else a sentence that says why not.
    pub fn accepts(&self, theirs: &Hello) -> Result<(), String> {
        let mine = self.hello();
        if theirs.protocol != mine.protocol {
            return Err(format!(
                "node {} speaks peer protocol {}, node {} speaks {}: run versions that go together",
                show(&theirs.uuid),
                theirs.protocol,
                self.uuid,
                mine.protocol
            ));
        }
        if !theirs.cluster.is_empty() && !mine.cluster.is_empty() && theirs.cluster != mine.cluster {
            return Err(format!(
                "node {} is of cluster {}, node {} is of cluster {}: check the addresses they were given",
                show(&theirs.uuid),
                show(&theirs.cluster),
                self.uuid,
                show(&mine.cluster)
            ));
        }
        Ok(())
    }

    /// What one that introduces itself like this may ask; an error says why not to talk to it at all. A number counts
    /// only with the UUID that the ring has for it.
    pub(super) fn role(&self, theirs: &Hello) -> Result<PeerRole, String> {
        self.accepts(theirs)?;
        let Some(ring) = self.ring.get() else { return Ok(PeerRole::Stranger) };
        // The place of what is to come: who proves by a certificate who it is needs no word of its own here.
        let (false, Some(number)) = (theirs.cluster.is_empty(), number_of(theirs)) else {
            return Ok(PeerRole::Stranger);
        };
        match ring.node(number) {
            None => Ok(PeerRole::Stranger),
            Some(member) if member.uuid == theirs.uuid => Ok(match self.meet(number, theirs, Way::Caller) {
                Ok(_) => PeerRole::Member(number),
                Err(why) => PeerRole::Other(why),
            }),
            Some(member) => Err(format!(
                "node {} says that it is node {number}, which is {}",
                show(&theirs.uuid),
                show(&member.uuid)
            )),
        }
    }

    /// Whether one that introduces itself like this is the node of that number. Without this, a node that took over
    /// another one's address would be taken for it. It counts as answering until the guard goes.
    pub(super) fn is_node(&self, number: NodeId, theirs: &Hello) -> Result<Answering, String> {
        let ring = self.ring.get();
        let Some(member) = ring.as_ref().and_then(|ring| ring.node(number)) else {
            return Err(format!("node {number} is in no ring that this node knows"));
        };
        if theirs.uuid != member.uuid {
            return Err(format!(
                "node {} listens where node {number} ({}) should",
                show(&theirs.uuid),
                show(&member.uuid)
            ));
        }
        let start = self.meet(number, theirs, Way::Answerer)?;
        Ok(self.starts.answers(number, &start))
    }

    /// The start of one that has the UUID of that node, if it is the node (ONE-START); else why not.
    fn meet(&self, number: NodeId, theirs: &Hello, way: Way) -> Result<Start, String> {
        let start = heard(theirs.start.as_ref());
        if theirs.uuid == self.uuid.as_bytes()[..] {
            return self.starts.is_own(&start).map(|()| start);
        }
        match self.starts.meet(number, &start, way) {
            Meeting::Taken => Ok(start),
            Meeting::Waits(why) | Meeting::Unclear(why) | Meeting::Refused(why) => Err(why),
        }
    }
}

/// The number in a hello, where there is one.
fn number_of(hello: &Hello) -> Option<NodeId> {
    (hello.number != 0).then_some(NodeId(hello.number))
}

fn show(id: &[u8]) -> String {
    Uuid::from_slice(id)
        .map_or_else(|_| format!("with a malformed id of {} bytes", id.len()), |id| id.to_string())
}
