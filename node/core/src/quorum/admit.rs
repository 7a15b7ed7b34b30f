//! Decides what a client's call asks for, or why it is refused. Pure.

use super::refusal::refuse;
use god_proto::{
    MAX_VALUE,
    ids::KeyspaceId,
    position::{Position, PositionError},
    record::{Kind, Record},
    ring::{Ring, partitioner},
    time::check_ttl_ms,
    v1::{Call, Consistency, Keyspace, Level, Reason, Rejected, call, consistency},
    version::Version,
};
use god_rules::quorum::{Need, Use};

/// A call that may go ahead.
#[derive(Debug)]
pub(super) struct Admitted {
    pub keyspace: KeyspaceId,
    /// Whether the keyspace may take writes yet.
    pub live: bool,
    pub position: Position,
    /// Replicas that must answer.
    pub need: Need,
    pub timeout_ms: u32,
    pub what: What,
}

/// What it asks for.
#[derive(Debug)]
pub(super) enum What {
    /// To set this; not stamped yet.
    Write(Record),
    /// To read, something at least as new as this.
    Read(Version),
}

/// Whether a call is a read, for the shape of its answer.
pub(super) fn is_read(call: &Call) -> bool {
    matches!(call.call, Some(call::Call::Get(_)))
}

pub(super) fn admit(ring: &Ring, call: Call, now_ms: u64) -> Result<Admitted, Rejected> {
    match call.call {
        Some(call::Call::Put(put)) => {
            let keyspace = find(ring, &put.keyspace)?;
            if put.value.len() > MAX_VALUE {
                let message = format!("the value has {} bytes; the most is {MAX_VALUE}", put.value.len());
                return Err(refuse(Reason::Invalid, message));
            }
            let ttl_ms = if put.ttl_ms == 0 { keyspace.default_ttl_ms } else { put.ttl_ms };
            if let Err(why) = check_ttl_ms(ttl_ms) {
                return Err(refuse(Reason::Invalid, format!("the time to live is {ttl_ms} ms: {why}")));
            }
            let expires_at_ms = (ttl_ms != 0).then(|| now_ms.saturating_add(ttl_ms));
            let record =
                Record { version: Version::ZERO, kind: Kind::Value, expires_at_ms, value: put.value };
            let need = need(keyspace, put.consistency.as_ref(), Use::Write)?;
            admitted(keyspace, &put.key, need, put.timeout_ms, What::Write(record))
        }
        Some(call::Call::Delete(delete)) => {
            let keyspace = find(ring, &delete.keyspace)?;
            let need = need(keyspace, delete.consistency.as_ref(), Use::Write)?;
            let what = What::Write(Record::tombstone(Version::ZERO));
            admitted(keyspace, &delete.key, need, delete.timeout_ms, what)
        }
        Some(call::Call::Get(get)) => {
            let keyspace = find(ring, &get.keyspace)?;
            let need = need(keyspace, get.consistency.as_ref(), Use::Read)?;
            let at_least = get.at_least.map_or(Version::ZERO, Version::from);
            admitted(keyspace, &get.key, need, get.timeout_ms, What::Read(at_least))
        }
        None => Err(refuse(Reason::Invalid, "the call is empty")),
    }
}

fn admitted(
    keyspace: &Keyspace,
    key: &[u8],
    need: Need,
    timeout_ms: u32,
    what: What,
) -> Result<Admitted, Rejected> {
    let id = KeyspaceId(keyspace.id);
    let position = Position::of_key(id, partitioner(keyspace), key).map_err(|error| invalid(&error))?;
    Ok(Admitted { keyspace: id, live: keyspace.live, position, need, timeout_ms, what })
}

pub(super) fn invalid(error: &PositionError) -> Rejected {
    refuse(Reason::Invalid, error.to_string())
}

pub(super) fn find<'a>(ring: &'a Ring, name: &str) -> Result<&'a Keyspace, Rejected> {
    ring.keyspace(name).ok_or_else(|| {
        refuse(Reason::NoSuchKeyspace, format!("there is no keyspace {name:?} (see `god keyspace list`)"))
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
            Err(refuse(Reason::Invalid, format!("{what} is 0; at least one replica must answer")))
        }
        Some(consistency::Level::Count(count)) if count > n => {
            Err(refuse(Reason::Invalid, format!("{what} {count} exceeds replicas {n}")))
        }
        Some(consistency::Level::Count(count)) => Ok(Need::Count(count)),
        Some(consistency::Level::Named(level)) => match Level::try_from(level) {
            Ok(Level::Default) => Ok(Need::Default(of)),
            Ok(Level::One) => Ok(Need::Count(1)),
            Ok(Level::Quorum) => Ok(Need::Majority),
            Ok(Level::All) => Ok(Need::All),
            Err(_) => Err(refuse(
                Reason::Invalid,
                format!("consistency level {level} is not known to this version"),
            )),
        },
    }
}
