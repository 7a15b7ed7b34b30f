//! Clients that write, delete and read as fast as they are answered, and remember everything.

use crate::client::Client;
use bytes::Bytes;
use god_history::{Ask, Event, Token, Told};
use god_proto::{
    v1::{Level, get_reply, write_reply},
    version::Version,
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{task::JoinHandle, time::sleep};

/// Keys below are registers: few, written, deleted and read over and over. From here on each key is put once, and
/// some are deleted once: together they are a set.
const SET: u32 = 1_000;
const REGISTERS: u64 = 12;

pub fn register_key(key: u32) -> String {
    format!("register/{key:04}")
}

pub fn set_key(key: u32) -> String {
    format!("set/{key:08}")
}

fn name(key: u32) -> String {
    if key < SET { register_key(key) } else { set_key(key) }
}

/// What all clients share.
struct Shared {
    began: Instant,
    stop: AtomicBool,
    tokens: AtomicU64,
    acknowledged: AtomicU64,
    answered: AtomicU64,
    history: Mutex<Vec<Event>>,
    /// What an operation took at most, in microseconds.
    longest: AtomicU64,
}

/// A running load.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

/// What it left.
pub struct Evidence {
    pub history: Vec<Event>,
    pub longest_us: u64,
}

impl Load {
    /// Starts so many clients; each sends every request to a server of its own choice.
    pub fn start(clients: u32, servers: &[Client]) -> Load {
        Load::paced(clients, servers, Duration::ZERO)
    }

    /// As [`Load::start`]; each client rests so long between two requests, so that what is stored hardly grows.
    pub fn paced(clients: u32, servers: &[Client], rest: Duration) -> Load {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            tokens: AtomicU64::new(1),
            acknowledged: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            history: Mutex::default(),
            longest: AtomicU64::new(0),
        });
        let start = |client| {
            // Connections of its own: one that hangs must not hold the others up.
            let servers = servers.iter().map(|server| Client::of(server.server())).collect();
            tokio::spawn(run(client, servers, Arc::clone(&shared), rest))
        };
        let clients = (1..=clients).map(start).collect();
        Load { shared, clients }
    }

    /// Writes that were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Relaxed)
    }

    /// Reads that were answered so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Relaxed)
    }

    /// Stops, once every request is answered.
    pub async fn stop(self) -> Evidence {
        self.shared.stop.store(true, Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        let history = std::mem::take(&mut *self.shared.history.lock().unwrap());
        Evidence { history, longest_us: self.shared.longest.load(Relaxed) }
    }
}

/// A generator of its own (Marsaglia, *Xorshift RNGs*, 2003): what a client does must follow from its number.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

async fn run(client: u32, mut servers: Vec<Client>, shared: Arc<Shared>, rest: Duration) {
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15 ^ u64::from(client) << 32);
    let mut own_set: Vec<u32> = Vec::new();
    let mut next_set = SET + client * 1_000_000;
    while !shared.stop.load(Relaxed) {
        let token: Token = shared.tokens.fetch_add(1, Relaxed);
        let (key, ask) = match chance.below(10) {
            0..3 => (chance.below(REGISTERS) as u32, Ask::Put(token)),
            3 => (chance.below(REGISTERS) as u32, Ask::Delete(token)),
            4..7 => (chance.below(REGISTERS) as u32, Ask::Get),
            7 if own_set.len() > 20 => {
                let at = chance.below(own_set.len() as u64) as usize;
                (own_set.swap_remove(at), Ask::Delete(token))
            }
            _ => {
                next_set += 1;
                own_set.push(next_set);
                (next_set, Ask::Put(token))
            }
        };
        let at = chance.below(servers.len() as u64) as usize;
        let event = perform(client, &mut servers[at], key, ask, &shared.began).await;
        shared.longest.fetch_max(event.answered - event.called, Relaxed);
        match event.told {
            Told::Committed(_) => shared.acknowledged.fetch_add(1, Relaxed),
            Told::Found(..) | Told::Missing(_) => shared.answered.fetch_add(1, Relaxed),
            Told::Rejected | Told::Unknown => {
                // A node that is not there says so at once; asking it again in a tight loop would prove nothing.
                tokio::task::yield_now().await;
                0
            }
        };
        shared.history.lock().unwrap().push(event);
        if !rest.is_zero() {
            sleep(rest).await;
        }
    }
}

/// One operation, as an event.
async fn perform(client: u32, server: &mut Client, key: u32, ask: Ask, began: &Instant) -> Event {
    let now = || began.elapsed().as_micros() as u64;
    let called = now();
    let told = match ask {
        Ask::Put(token) => written(server.put(name(key), token.to_string()).await),
        Ask::Lend(..) => unreachable!("nothing expires in this load"),
        Ask::Delete(_) => written(server.delete(name(key)).await),
        Ask::Get => read(server.get(name(key), Level::Quorum).await),
    };
    Event { client, key, ask, called, answered: now(), told }
}

fn version(version: Option<god_proto::v1::Version>) -> Version {
    version.expect("a version").into()
}

fn written(reply: Result<god_proto::v1::WriteReply, String>) -> Told {
    match reply.map(|reply| reply.outcome) {
        Ok(Some(write_reply::Outcome::Committed(committed))) => Told::Committed(version(committed.version)),
        Ok(Some(write_reply::Outcome::Rejected(_))) => Told::Rejected,
        // No answer is no answer, whatever the reason.
        _ => Told::Unknown,
    }
}

fn read(reply: Result<god_proto::v1::GetReply, String>) -> Told {
    match reply.map(|reply| reply.outcome) {
        Ok(Some(get_reply::Outcome::Found(found))) => {
            let token = std::str::from_utf8(&found.value).unwrap().parse().unwrap();
            Told::Found(token, version(found.version))
        }
        Ok(Some(get_reply::Outcome::Missing(missing))) => Told::Missing(missing.version.map(Version::from)),
        _ => Told::Rejected,
    }
}

/// Reads every key that was ever touched, at a level, as events at the end of the history. Every read must succeed.
pub async fn read_all(server: &mut Client, history: &mut Vec<Event>, at: Level) {
    let keys: std::collections::BTreeSet<u32> = history.iter().map(|event| event.key).collect();
    let last = history.iter().map(|event| event.answered).max().unwrap_or(0);
    for (index, key) in (1..).zip(keys) {
        let told = read(server.get(name(key), at).await);
        assert!(told != Told::Rejected, "{} could not be read at {at:?}", name(key));
        let (called, answered) = (last + 2 * index, last + 2 * index + 1);
        history.push(Event { client: 0, key, ask: Ask::Get, called, answered, told });
    }
}

/// The events about the set's keys.
pub fn of_set(history: &[Event]) -> Vec<Event> {
    history.iter().filter(|event| event.key >= SET).copied().collect()
}

/// The numbers of the set's keys.
pub fn set_members(keys: &[Bytes]) -> Vec<u32> {
    let number =
        |key: &Bytes| std::str::from_utf8(key).unwrap().strip_prefix("set/").unwrap().parse().unwrap();
    keys.iter().map(number).collect()
}
