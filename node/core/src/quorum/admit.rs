//! Decides what a client's call asks for, or why it is refused. Pure.

use god_proto::{
    MAX_BATCH, MAX_PAGE, MAX_VALUE,
    ids::KeyspaceId,
    position::{Position, PositionError},
    record::{Kind, Record},
    ring::{Ring, partitioner},
    time::check_ttl_ms,
    v1::{
        Answer, Call, Consistency, Keyspace, Level, PutRequest, Reason, Rejected, Unknown, call, consistency,
        write_reply,
    },
    version::Version,
};
use god_rules::quorum::{Need, Use};
use tokio::time::Instant;

/// A call that may go ahead, on its way to the replicas of its position.
#[derive(Debug)]
pub(super) struct PendingCall {
    /// Where its answer belongs, in the batch.
    pub slot: usize,
    pub position: Position,
    /// Replicas that must answer.
    pub need: Need,
    pub deadline: Instant,
    /// Calls for the same position go one after the other, as the batch has them.
    pub stage: u32,
    /// Its keyspace, where that is not live by the ring that it was admitted under: it is made live before a write goes
    /// ahead (EMPTY-MOVES-FREE), and that it is not is made sure of before a read does (EMPTY-CONFIRMED).
    pub asleep: Option<KeyspaceId>,
    pub what: What,
}

/// What it asks for.
#[derive(Debug)]
pub(super) enum What {
    /// To set this, of version zero until it is stamped. `open`: a replica may hold it already.
    Write { record: Record, open: bool },
    /// To read, something at least as new as this.
    Read { at_least: Version },
}

impl PendingCall {
    /// Whether it writes.
    pub(super) fn is_write(&self) -> bool {
        matches!(self.what, What::Write { .. })
    }

    /// Bytes that it takes in a message, about.
    pub(super) fn bytes(&self) -> usize {
        let value = match &self.what {
            What::Write { record, .. } => record.value.len(),
            What::Read { .. } => 0,
        };
        self.position.as_bytes().len() + value
    }

    /// Its refusal, as an answer. Of a write that was tried before nobody knows what came of that.
    pub(super) fn refused(self, why: Rejected) -> (usize, Answer) {
        let answer = match self.what {
            What::Write { record, open: true } => {
                let message = format!("it may surface later; {}", why.message);
                let version = Some(record.version.into());
                write_reply::Outcome::Unknown(Unknown { version, acks: 0, message }).into()
            }
            What::Write { open: false, .. } => Answer::refused(false, why),
            What::Read { .. } => Answer::refused(true, why),
        };
        (self.slot, answer)
    }
}

/// What the call of a slot asks for, or why it is refused. `now_ms`: the hybrid clock, if it may be gone by.
/// `deadline`: when a call ends that may take so many milliseconds, 0 where it does not say.
pub(super) fn admit(
    ring: &Ring,
    slot: usize,
    call: Call,
    now_ms: Option<u64>,
    deadline: impl Fn(u32) -> Instant,
) -> Result<PendingCall, Rejected> {
    let (keyspace, key, consistency, timeout_ms) = match &call.call {
        Some(call::Call::Put(put)) => (&put.keyspace, &put.key, &put.consistency, put.timeout_ms),
        Some(call::Call::Delete(del)) => (&del.keyspace, &del.key, &del.consistency, del.timeout_ms),
        Some(call::Call::Get(get)) => (&get.keyspace, &get.key, &get.consistency, get.timeout_ms),
        None => {
            let message =
                "the call is empty, or of a kind that this version does not know: put, delete or get";
            return Err(Rejected::of(Reason::Invalid, message));
        }
    };
    let keyspace = find(ring, keyspace)?;
    let used = if call.is_read() { Use::Read } else { Use::Write };
    let need = need(keyspace, consistency.as_ref(), used)?;
    let id = KeyspaceId(keyspace.id);
    let position = Position::of_key(id, partitioner(keyspace), key);
    let position = position.map_err(|error| invalid(&error))?;
    let deadline = deadline(timeout_ms);
    let asleep = (!keyspace.live).then_some(id);
    let what = match call.call {
        Some(call::Call::Put(put)) => What::Write { record: value(keyspace, put, now_ms)?, open: false },
        Some(call::Call::Get(get)) => {
            What::Read { at_least: get.at_least.map_or(Version::ZERO, Version::from) }
        }
        Some(call::Call::Delete(_)) | None => {
            What::Write { record: Record::tombstone(Version::ZERO), open: false }
        }
    };
    Ok(PendingCall { slot, position, need, deadline, stage: 0, asleep, what })
}

/// The record that a put asks for.
fn value(keyspace: &Keyspace, put: PutRequest, now_ms: Option<u64>) -> Result<Record, Rejected> {
    if put.value.len() > MAX_VALUE {
        let message = format!("the value has {} bytes; the most is {MAX_VALUE}", put.value.len());
        return Err(Rejected::of(Reason::Invalid, message));
    }
    let ttl_ms = if put.ttl_ms == 0 { keyspace.default_ttl_ms } else { put.ttl_ms };
    if let Err(why) = check_ttl_ms(ttl_ms) {
        return Err(Rejected::of(Reason::Invalid, format!("the time to live is {ttl_ms} ms: {why}")));
    }
    let expires_at_ms = match (ttl_ms, now_ms) {
        (0, _) => None,
        (_, Some(now_ms)) => Some(now_ms.saturating_add(ttl_ms)),
        // It would be over at once, or live for too long, if the clock turned out to be wrong.
        (_, None) => {
            let message =
                "this node's clock was not compared with the others' yet: no time to live can begin";
            return Err(Rejected::later(Reason::Clock, message, 500));
        }
    };
    Ok(Record { version: Version::ZERO, kind: Kind::Value, expires_at_ms, value: put.value })
}

/// A batch of more calls than one may have.
pub(super) fn too_many(calls: usize) -> Rejected {
    Rejected::of(Reason::Invalid, format!("the batch has {calls} calls; the most is {MAX_BATCH}"))
}

/// A page of more keys than one may have.
pub(super) fn too_long_a_page(limit: u32) -> Rejected {
    Rejected::of(Reason::Invalid, format!("the limit is {limit}; the most keys on a page are {MAX_PAGE}"))
}

/// A continuation that no page before it gave.
pub(super) fn bad_continuation(why: &str) -> Rejected {
    Rejected::of(Reason::Invalid, format!("the continuation {why}; take it from the page before"))
}

pub(super) fn invalid(error: &PositionError) -> Rejected {
    Rejected::of(Reason::Invalid, error.to_string())
}

pub(super) fn find<'a>(ring: &'a Ring, name: &str) -> Result<&'a Keyspace, Rejected> {
    ring.keyspace(name).ok_or_else(|| {
        Rejected::of(
            Reason::NoSuchKeyspace,
            format!("there is no keyspace {name:?} (see `god keyspace list`)"),
        )
    })
}

/// How many replicas must answer.
pub(super) fn need(keyspace: &Keyspace, asked: Option<&Consistency>, of: Use) -> Result<Need, Rejected> {
    let n = keyspace.replicas;
    let what = match of {
        Use::Write => "write-quorum",
        Use::Read => "read-quorum",
    };
    match asked.and_then(|asked| asked.level) {
        None => Ok(Need::Default(of)),
        Some(consistency::Level::Count(0)) => {
            Err(Rejected::of(Reason::Invalid, format!("{what} is 0; at least one replica must answer")))
        }
        Some(consistency::Level::Count(count)) if count > n => {
            Err(Rejected::of(Reason::Invalid, format!("{what} {count} exceeds replicas {n}")))
        }
        Some(consistency::Level::Count(count)) => Ok(Need::Count(count)),
        Some(consistency::Level::Named(level)) => match Level::try_from(level) {
            Ok(Level::Default) => Ok(Need::Default(of)),
            Ok(Level::One) => Ok(Need::Count(1)),
            Ok(Level::Quorum) => Ok(Need::Majority),
            Ok(Level::All) => Ok(Need::All),
            Err(_) => Err(Rejected::of(
                Reason::Invalid,
                format!("consistency level {level} is not known to this version"),
            )),
        },
    }
}
