//! A load with a checker: what was acknowledged is read back, what was deleted stays deleted.
//!
//! Each key has one writer, which knows what it may be read as. A write whose outcome is unknown may surface at any
//! later time, so that its key is written no more: it is read as before, or as that write would have it.

use anyhow::Context as _;
use futures::StreamExt as _;
use god_client::{Client, Error, Keyspace, Range};
use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// Writers, each with keys of its own.
const WRITERS: u32 = 8;
/// Keys of a writer; a key whose outcome is unknown is given up for a new one.
const KEYS: u32 = 400;
/// Keys that all writers together may give up, before somebody should look.
const MAX_GIVEN_UP: usize = 20_000;
/// Bytes of a value.
const VALUE: usize = 400;
/// How all keys of the load begin.
const OWN: &str = "e2e/";
/// Between two calls of a writer.
const PAUSE: Duration = Duration::from_millis(10);
/// A load ends by itself after so long.
const LONGEST: Duration = Duration::from_secs(1_800);

/// Values that can be there beforehand, so that data take a while to move.
const FILLING: u32 = 1_500;
/// Bytes of each.
const FILLING_VALUE: usize = 2_048;
/// How their keys begin.
pub const FILLED: &str = "before/";

/// Writes data that stay as they are.
///
/// # Errors
/// Where one is not acknowledged.
pub async fn fill(client: &Client) -> anyhow::Result<()> {
    let default = client.keyspace("default");
    let put = |number| default.put(format!("{FILLED}{number}"), vec![b'v'; FILLING_VALUE]);
    let mut puts = futures::stream::iter(0..FILLING).map(put).buffer_unordered(32);
    while let Some(put) = puts.next().await {
        put.context("cannot fill the cluster")?;
    }
    Ok(())
}

/// What a key may be read as; `None`: it is not there.
type May = Vec<Option<u64>>;

#[derive(Default)]
struct Ledger {
    keys: BTreeMap<String, May>,
    written: u64,
    deleted: u64,
    read: u64,
    unknown: u64,
    refused: u64,
    given_up: usize,
    longest: Duration,
    last_refusal: String,
    wrong: Vec<String>,
}

/// A load that runs.
pub struct Load {
    ledger: Arc<Mutex<Ledger>>,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
    keyspace: Keyspace,
}

impl Load {
    /// Starts writing to the keyspace `default`.
    pub fn start(client: &Client) -> Load {
        let keyspace = client.keyspace("default");
        let ledger = Arc::<Mutex<Ledger>>::default();
        let stop = Arc::<AtomicBool>::default();
        let write =
            |writer| tokio::spawn(work(writer, keyspace.clone(), Arc::clone(&ledger), Arc::clone(&stop)));
        let writers = (0..WRITERS).map(write).collect();
        Load { ledger, stop, writers, keyspace }
    }

    /// Stops, and reads everything back.
    ///
    /// # Errors
    /// Names keys that were read as what they cannot be.
    pub async fn stop_and_check(self) -> anyhow::Result<()> {
        self.stop_and_check_among(OWN).await
    }

    /// The same, where there are keys of somebody else's too, which begin so.
    ///
    /// # Errors
    /// As above.
    pub async fn stop_and_check_among(mut self, others: &str) -> anyhow::Result<()> {
        self.stop_writers().await?;
        let keys = self.ledger.lock().keys.clone();
        for (key, may) in &keys {
            let found = read(&self.keyspace, key).await.with_context(|| format!("cannot read {key} back"))?;
            if !may.contains(&found) {
                self.ledger.lock().wrong.push(format!("{key} is {found:?}, and may be {may:?}"));
            }
        }
        self.scan(&keys, others).await?;
        self.judge(keys.len())
    }

    /// Stops where the cluster is gone, and nothing can be read back: what was read until then must have been right.
    ///
    /// # Errors
    /// Names keys that were read as what they cannot be.
    pub async fn stop_without_cluster(mut self) -> anyhow::Result<()> {
        self.stop_writers().await?;
        self.judge(0)
    }

    async fn stop_writers(&mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for writer in std::mem::take(&mut self.writers) {
            writer.await.context("a writer ended early")?;
        }
        Ok(())
    }

    fn judge(&self, read_back: usize) -> anyhow::Result<()> {
        let ledger = self.ledger.lock();
        println!(
            "  load: {} writes and {} deletions acknowledged, {} reads, {} outcomes unknown, {} refusals, longest call {:.1} s; {} keys read back",
            ledger.written,
            ledger.deleted,
            ledger.read,
            ledger.unknown,
            ledger.refused,
            ledger.longest.as_secs_f64(),
            read_back,
        );
        if !ledger.last_refusal.is_empty() {
            println!("  load: the last refusal: {}", ledger.last_refusal);
        }
        anyhow::ensure!(ledger.written > 100, "only {} writes were acknowledged", ledger.written);
        anyhow::ensure!(
            ledger.wrong.is_empty(),
            "{} reads were wrong, such as: {}",
            ledger.wrong.len(),
            ledger.wrong.iter().take(5).cloned().collect::<Vec<_>>().join("; ")
        );
        Ok(())
    }

    /// A scan finds the keys that must be there, and none that cannot be.
    async fn scan(&self, keys: &BTreeMap<String, May>, others: &str) -> anyhow::Result<()> {
        let mut scan = self.keyspace.scan(Range::all());
        let mut found = BTreeMap::new();
        while let Some(page) = scan.next_page().await.context("cannot scan")? {
            for entry in page {
                let key = String::from_utf8_lossy(&entry.key).into_owned();
                if key.starts_with(others) && !key.starts_with(OWN) {
                    continue;
                }
                anyhow::ensure!(
                    found.insert(key.clone(), number(&entry.value)).is_none(),
                    "{key} is scanned twice"
                );
            }
        }
        let mut ledger = self.ledger.lock();
        for (key, value) in &found {
            if !keys.get(key).is_some_and(|may| may.contains(value)) {
                ledger.wrong.push(format!("the scan has {key} as {value:?}"));
            }
        }
        for (key, may) in keys {
            if !may.contains(&None) && !found.contains_key(key) {
                ledger.wrong.push(format!("the scan lacks {key}"));
            }
        }
        Ok(())
    }
}

fn value(number: u64) -> Vec<u8> {
    format!("{number:0>VALUE$}").into_bytes()
}

fn number(value: &[u8]) -> Option<u64> {
    Some(std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX))
}

/// A read is tried again for a while: that a node is away is no wrong answer.
async fn read(keyspace: &Keyspace, key: &str) -> anyhow::Result<Option<u64>> {
    let mut tries = 0;
    loop {
        match keyspace.get(key.to_owned()).await {
            Ok(found) => return Ok(found.and_then(|found| number(&found.value))),
            Err(error) if tries >= 10 => return Err(error.into()),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn work(writer: u32, keyspace: Keyspace, ledger: Arc<Mutex<Ledger>>, stop: Arc<AtomicBool>) {
    let began = Instant::now();
    let mut names: Vec<String> = (0..KEYS).map(|key| format!("{OWN}{writer}/{key}")).collect();
    let mut turn = 0_u64;
    while !stop.load(Ordering::Relaxed) && began.elapsed() < LONGEST {
        tokio::time::sleep(PAUSE).await;
        turn += 1;
        let slot = rand::random_range(0..names.len());
        let key = names[slot].clone();
        let may = ledger.lock().keys.get(&key).cloned().unwrap_or_else(|| vec![None]);
        let since = Instant::now();
        let (wish, done) = match turn % 8 {
            0..3 => {
                if let Ok(found) = keyspace.get(key.clone()).await {
                    let found = found.and_then(|found| number(&found.value));
                    let mut ledger = ledger.lock();
                    ledger.read += 1;
                    if !may.contains(&found) {
                        ledger.wrong.push(format!("{key} was read as {found:?}, and may be {may:?}"));
                    }
                }
                continue;
            }
            3 => (None, keyspace.delete(key.clone()).await),
            _ => (Some(turn), keyspace.put(key.clone(), value(turn)).await),
        };
        let mut ledger = ledger.lock();
        ledger.longest = ledger.longest.max(since.elapsed());
        match done {
            Ok(_) => {
                match wish {
                    Some(_) => ledger.written += 1,
                    None => ledger.deleted += 1,
                }
                ledger.keys.insert(key, vec![wish]);
            }
            Err(Error::Unknown { .. }) => {
                ledger.unknown += 1;
                ledger.given_up += 1;
                let mut may = may;
                may.push(wish);
                ledger.keys.insert(key, may);
                names[slot] = format!("{OWN}{writer}/again-{turn}");
                if ledger.given_up > MAX_GIVEN_UP {
                    ledger.wrong.push("too many outcomes are unknown".to_owned());
                    return;
                }
            }
            Err(error) => {
                ledger.refused += 1;
                ledger.last_refusal = error.to_string();
            }
        }
    }
}
