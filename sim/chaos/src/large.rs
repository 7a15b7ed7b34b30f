//! Who asks for far more at once than a node may hold: [`AT_ONCE`] values of 1 MiB, through one pipeline.

use crate::{
    hostile,
    load::{FIRST_OF_LARGE, LARGE, LARGE_COUNT, Load, place, token},
    plan::Node,
};
use anyhow::{Context as _, ensure};
use god_client::{
    Client,
    proto::{
        Answer, Call, GetRequest, NumberedCall, PipelineRequest, Version, answer, call, get_reply,
        store_client::StoreClient,
    },
};
use god_history::{Ask, Event, Told};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use std::{
    ops::AddAssign,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout_at};

/// Values that are asked for at once.
pub const AT_ONCE: u64 = 96;
/// What each call is told it may take.
const LIMIT: Duration = Duration::from_secs(3);
/// How long after that the connection is given up: nobody answers by it any more.
const SLACK: Duration = Duration::from_secs(2);
/// Between two times that it is done, in milliseconds, at least and at most.
const PAUSE_MS: std::ops::Range<u64> = 1_000..4_000;
/// The largest message of a node (docs/PROTOCOL.md), in bytes.
const MAX_ANSWER: usize = 12 << 20;

/// What came of calls that were made at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Came {
    /// Calls.
    pub asked: u64,
    /// Values that came.
    pub found: u64,
    /// Refusals that came: there was no memory for them, or too few replicas.
    pub refused: u64,
}

impl AddAssign for Came {
    fn add_assign(&mut self, more: Came) {
        self.asked += more.asked;
        self.found += more.found;
        self.refused += more.refused;
    }
}

/// The key of a call by its number.
fn key_of(id: u64) -> u32 {
    FIRST_OF_LARGE + (id % u64::from(LARGE_COUNT)) as u32
}

/// What a pipeline carries: calls from number 0, all in one frame, or each in one of its own.
fn frames(together: bool) -> Vec<PipelineRequest> {
    let numbered = |id| {
        let (key, timeout_ms) = (place(key_of(id)).1.into(), LIMIT.as_millis() as u32);
        let get = GetRequest { keyspace: LARGE.to_owned(), key, timeout_ms, ..GetRequest::default() };
        NumberedCall { id, call: Some(Call { call: Some(call::Call::Get(get)) }) }
    };
    let calls = (0..AT_ONCE).map(numbered);
    match together {
        true => vec![PipelineRequest { calls: calls.collect() }],
        false => calls.map(|call| PipelineRequest { calls: vec![call] }).collect(),
    }
}

/// What an answer tells of a key. `None`: it is no answer to a read.
fn told(key: u32, answer: Option<Answer>) -> Option<Told> {
    let Some(answer::Answer::Get(reply)) = answer?.answer else { return None };
    let version = |version: Option<Version>| version.map(Into::into);
    Some(match reply.outcome? {
        get_reply::Outcome::Found(found) => {
            Told::Found(token(key, &found.value), version(found.version).unwrap_or(god_client::Version::ZERO))
        }
        get_reply::Outcome::Missing(missing) => Told::Missing(version(missing.version)),
        get_reply::Outcome::Failed(_) => Told::Rejected,
    })
}

impl Load {
    /// Writes the large values, while nothing is wrong. They are not written again: a disk that is full to its last
    /// byte while a large write is under way ends that node's storage, until it is started again.
    ///
    /// # Errors
    /// Where one is not acknowledged.
    pub async fn write_large(&self, cluster: &Client) -> anyhow::Result<()> {
        for key in FIRST_OF_LARGE..FIRST_OF_LARGE + LARGE_COUNT {
            self.perform(0, cluster, key, Ask::Put(self.next_token()), LIMIT).await;
        }
        let history = self.history.lock();
        let is_there = |event: &Event| matches!(event.told, Told::Committed(_));
        ensure!(history.iter().all(is_there), "a large value was not written: {history:?}");
        Ok(())
    }

    /// Until the load is over: asks some node for [`AT_ONCE`] large values at once.
    pub async fn ask_for_much(self: Arc<Load>, client: u32, nodes: usize, seed: u64) {
        let mut chance = SmallRng::seed_from_u64(seed ^ u64::from(client) << 40);
        let mut next = Instant::now();
        while !self.is_over() {
            if Instant::now() < next {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            let open = self.gate.read().await;
            let node = chance.random_range(0..nodes);
            // Where the node goes away meanwhile, what came before counts.
            let (came, _) = self.ask_at_once(client, node, chance.random_bool(0.5)).await;
            *self.large.lock() += came;
            drop(open);
            next = Instant::now() + Duration::from_millis(chance.random_range(PAUSE_MS));
        }
    }

    /// Asks each node while nothing is wrong: it must answer each call in time, if only to refuse it, and give a value.
    ///
    /// # Errors
    /// Says which does not.
    pub async fn ask_each_at_once(&self, nodes: usize) -> anyhow::Result<()> {
        for node in 0..nodes {
            for together in [true, false] {
                let (came, ended) = self.ask_at_once(0, node, together).await;
                let of = || format!("node {} was asked for large values at once: {came:?}", node + 1);
                ended.with_context(of)?;
                ensure!(came.found > 0 && came.found + came.refused == came.asked, "{}", of());
                self.diary.note(format_args!(
                    "node {}: of {AT_ONCE} large values asked for at once {}, {} came and {} were refused",
                    node + 1,
                    if together { "in a frame" } else { "in a frame each" },
                    came.found,
                    came.refused
                ));
            }
        }
        Ok(())
    }

    /// Asks a node for [`AT_ONCE`] large values, over a connection of its own. Gives what came, and whether that is
    /// all that it says.
    async fn ask_at_once(&self, client: u32, node: Node, together: bool) -> (Came, anyhow::Result<()>) {
        let mut came = Came { asked: AT_ONCE, ..Came::default() };
        let ended = self.hear(client, node, together, &mut came).await;
        (came, ended)
    }

    async fn hear(&self, client: u32, node: Node, together: bool, came: &mut Came) -> anyhow::Result<()> {
        let until = tokio::time::Instant::now() + LIMIT + SLACK;
        let channel = hostile::endpoint(node)?.connect_lazy();
        let mut door = StoreClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        let called = self.diary.now_us();
        let answers = timeout_at(until, door.pipeline(tokio_stream::iter(frames(together)))).await??;
        let mut answers = answers.into_inner();
        while let Some(reply) = timeout_at(until, answers.message()).await?? {
            for answer in reply.answers {
                let key = key_of(answer.id);
                let told = told(key, answer.answer).context("it answers what was not asked")?;
                came.found += u64::from(matches!(told, Told::Found(..)));
                came.refused += u64::from(told == Told::Rejected);
                // A refusal tells nothing of the key.
                if told != Told::Rejected {
                    let answered = self.diary.now_us();
                    self.history.lock().push(Event { client, key, ask: Ask::Get, called, answered, told });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{LARGE_BYTES, value};
    use god_client::proto::{Found, GetReply, Missing, Rejected};
    use god_history::check_register;

    fn answer(outcome: get_reply::Outcome) -> Option<Answer> {
        Some(Answer { answer: Some(answer::Answer::Get(GetReply { outcome: Some(outcome) })) })
    }

    fn found(value: Vec<u8>, version: Version) -> Option<Answer> {
        answer(get_reply::Outcome::Found(Found {
            value: value.into(),
            version: Some(version),
            expires_at_ms: 0,
        }))
    }

    #[test]
    fn what_is_asked_at_once_is_asked_once_each() {
        for together in [true, false] {
            let calls: Vec<u64> =
                frames(together).into_iter().flat_map(|it| it.calls).map(|it| it.id).collect();
            assert_eq!(calls, (0..AT_ONCE).collect::<Vec<_>>());
        }
        assert_eq!(frames(true).len(), 1);
        let keys: std::collections::BTreeSet<u32> = (0..AT_ONCE).map(key_of).collect();
        assert_eq!(keys.len(), LARGE_COUNT as usize);
    }

    #[test]
    fn a_large_value_that_is_wrong_in_one_byte_or_lost_is_found() {
        let (key, version) = (FIRST_OF_LARGE, Version { time: 7 << 16, node: 1 });
        let put = Event {
            client: 1,
            key,
            ask: Ask::Put(5),
            called: 0,
            answered: 10,
            told: Told::Committed(version.into()),
        };
        let says = |answer| {
            let told = told(key, answer).expect("an answer");
            let read = Event { client: 2, key, ask: Ask::Get, called: 20, answered: 30, told };
            check_register(&[put, read]).map_err(|violation| violation.problem)
        };
        let right = value(key, 5);
        assert_eq!(says(found(right.clone(), version)), Ok(()));
        let refused = Rejected { message: "busy".to_owned(), ..Rejected::default() };
        assert_eq!(says(answer(get_reply::Outcome::Failed(refused))), Ok(()));
        let mut wrong = right.clone();
        wrong[LARGE_BYTES / 2] ^= 1;
        assert!(says(found(wrong, version)).unwrap_err().contains("nobody wrote"));
        assert!(says(found(right[1..].to_vec(), version)).unwrap_err().contains("nobody wrote"));
        let missing = answer(get_reply::Outcome::Missing(Missing { version: None }));
        assert!(says(missing).unwrap_err().contains("lost"));
        assert_eq!(told(key, None), None);
    }
}
