//! A keyspace: single keys, and the options of its calls.

use crate::{
    Client, Consistency, Error, Lookup, Result, Session, Value, Written,
    call::{KeyCall, Op},
    settings::check_timeout,
};
use bytes::Bytes;
use god_proto::{
    MAX_KEY, MAX_VALUE,
    time::ttl_ms,
    v1::{Reason, answer, get_reply, write_reply},
    version::Version,
};
use std::{sync::Arc, time::Duration};
use tracing::Instrument;

/// A keyspace to read and write, and how. Cheap to clone; a clone may have other options.
#[derive(Clone, Debug)]
pub struct Keyspace {
    pub(crate) client: Client,
    pub(crate) name: Arc<str>,
    pub(crate) reads: Consistency,
    pub(crate) writes: Consistency,
    pub(crate) timeout: Duration,
    pub(crate) session: Option<Session>,
}

impl Keyspace {
    pub(crate) fn new(client: Client, name: Arc<str>, session: Option<Session>) -> Keyspace {
        let timeout = client.inner.settings.timeout;
        Keyspace {
            client,
            name,
            reads: Consistency::default(),
            writes: Consistency::default(),
            timeout,
            session,
        }
    }

    /// How many replicas must answer a read.
    #[must_use]
    pub fn with_reads(mut self, consistency: Consistency) -> Keyspace {
        self.reads = consistency;
        self
    }

    /// How many replicas must acknowledge a write.
    #[must_use]
    pub fn with_writes(mut self, consistency: Consistency) -> Keyspace {
        self.writes = consistency;
        self
    }

    /// How long a call may take in all: [`MAX_TIMEOUT`](crate::MAX_TIMEOUT), 30 s, at most. With a longer one they
    /// fail ([`Error::Invalid`]).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Keyspace {
        self.timeout = timeout;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes a key: 1 byte to 4 KiB, a value of up to 8 MiB. It expires as the keyspace says.
    ///
    /// # Errors
    /// [`Error::Unknown`] where it may have been written all the same; with every other error it was not.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Written> {
        self.write("put", key.into(), Op::Put { value: value.into(), ttl_ms: 0 }).await
    }

    /// Writes a key that expires after so long, counted from the write: whole milliseconds, from 1 to
    /// [`MAX_TTL`](crate::MAX_TTL).
    ///
    /// # Errors
    /// [`Error::Invalid`] for another time to live; else as for [`Keyspace::put`].
    pub async fn put_with_ttl(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        ttl: Duration,
    ) -> Result<Written> {
        let ttl_ms =
            ttl_ms(ttl).map_err(|why| Error::Invalid(format!("the time to live is {ttl:?}: {why}")))?;
        self.write("put", key.into(), Op::Put { value: value.into(), ttl_ms }).await
    }

    /// Deletes a key, whether it is there or not. The deletion is remembered, so that an older write which is still on
    /// its way does not bring it back.
    ///
    /// # Errors
    /// As for [`Keyspace::put`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Written> {
        self.write("delete", key.into(), Op::Delete).await
    }

    /// Reads a key.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Value>> {
        Ok(match self.look_up(key).await? {
            Lookup::Found(value) => Some(value),
            Lookup::Missing { .. } => None,
        })
    }

    /// The same, and says of a key that is not there which deletion made it so: for who must tell which of two answers
    /// is the newer one.
    pub async fn look_up(&self, key: impl Into<Bytes>) -> Result<Lookup> {
        let key = key.into();
        let (at_least, reads) = match &self.session {
            None => (None, self.reads),
            Some(session) => session.asks(self, &key),
        };
        let call = KeyCall {
            keyspace: &self.name,
            key: key.clone(),
            op: Op::Get { at_least: at_least.map(Into::into) },
            consistency: reads.wire(),
            timeout: self.timeout,
        };
        let answer = self.traced("get", call).await?;
        let answer::Answer::Get(reply) = answer else {
            return Err(misspoke("a read was answered as a write"));
        };
        let found = match reply.outcome {
            Some(get_reply::Outcome::Found(found)) => Lookup::Found(Value::from(found)),
            Some(get_reply::Outcome::Missing(missing)) => {
                Lookup::Missing { deleted: missing.version.map(Version::from) }
            }
            Some(get_reply::Outcome::Failed(failed)) => return Err(failed.into()),
            None => return Err(misspoke("the answer to a read is empty")),
        };
        match (&self.session, found.version()) {
            (Some(session), Some(version)) => session.read(self, key, version, reads),
            // Nothing is as new as what was asked for, as that was a deletion which is purged.
            (Some(session), None) if at_least.is_some() => session.purged(self, key),
            _ => {}
        }
        Ok(found)
    }

    async fn write(&self, what: &'static str, key: Bytes, op: Op) -> Result<Written> {
        let call = KeyCall {
            keyspace: &self.name,
            key: key.clone(),
            op,
            consistency: self.writes.wire(),
            timeout: self.timeout,
        };
        let answer = self.traced(what, call).await?;
        let answer::Answer::Write(reply) = answer else {
            return Err(unclear("a write was answered as a read"));
        };
        match reply.outcome {
            Some(write_reply::Outcome::Committed(committed)) => {
                let written = Written::from(committed);
                if let Some(session) = &self.session {
                    session.wrote(self, key, written);
                }
                Ok(written)
            }
            Some(write_reply::Outcome::Unknown(unknown)) => Err(Error::Unknown {
                version: unknown.version.map(Version::from),
                acks: unknown.acks,
                message: format!("on {} replicas for sure: {}", unknown.acks, unknown.message),
            }),
            Some(write_reply::Outcome::Rejected(rejected)) => Err(rejected.into()),
            None => Err(unclear("the answer to a write is empty")),
        }
    }

    /// The call, in a span where somebody looks.
    async fn traced(&self, what: &'static str, call: KeyCall<'_>) -> Result<answer::Answer> {
        check(&call)?;
        let inner = &self.client.inner;
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return inner.call(&call).await;
        }
        let span = tracing::debug_span!("god", call = what, keyspace = &*self.name);
        async {
            let outcome = inner.call(&call).await;
            match &outcome {
                Ok(_) => tracing::debug!("answered"),
                Err(error) => tracing::debug!(%error, "failed"),
            }
            outcome
        }
        .instrument(span)
        .await
    }
}

/// What no node would take.
fn check(call: &KeyCall<'_>) -> Result<()> {
    let wrong = |text: String| Err(Error::Invalid(text));
    match call.key.len() {
        0 => return wrong("the key is empty; a key has at least one byte".to_owned()),
        len if len > MAX_KEY => return wrong(format!("the key has {len} bytes; the most is {MAX_KEY}")),
        _ => {}
    }
    if let Op::Put { value, .. } = &call.op
        && value.len() > MAX_VALUE
    {
        return wrong(format!("the value has {} bytes; the most is {MAX_VALUE}", value.len()));
    }
    if call
        .consistency
        .is_some_and(|level| level.level == Consistency::Count(0).wire().and_then(|zero| zero.level))
    {
        return wrong("the consistency asks for 0 replicas; at least one must answer".to_owned());
    }
    check_timeout("with_timeout", call.timeout)
}

/// An answer of another version, to a read.
pub(crate) fn misspoke(what: &str) -> Error {
    Error::Refused {
        reason: Reason::Unspecified,
        message: format!("{what}; are the node's version and this one's the same?"),
        retry_after: None,
    }
}

fn unclear(what: &str) -> Error {
    let message = format!("{what}; are the node's version and this one's the same?");
    Error::Unknown { version: None, acks: 0, message }
}
