//! What the store costs over the bare engine: the same work done by both, side by side, in alternating rounds.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use clap::Parser;
use futures::{StreamExt, TryStreamExt, stream};
use god_proto::{
    ids::{KeyspaceId, NodeId},
    position::Position,
    record::{Entry, Record},
    v1::Partitioner,
    version::Version,
};
use god_rocks::{RocksEngine, RocksSettings};
use god_store::{
    engine::{Batch, Direction, Durability, Engine, Reader, Table},
    radix::{CommitError, CommitterSettings, Limits, Store, StoreSettings},
    seam::Offload,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// Compares the store (data, radix index, group commit) with bare RocksDB: same options, same bytes, one run.
#[derive(Parser)]
#[command(name = "god-bench-store", version)]
struct Args {
    /// Keys to load.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    value: usize,
    /// Entries of a batch: of bare RocksDB, and of each write to the store.
    #[arg(long, default_value_t = 512)]
    batch: usize,
    /// Writes that the store is given at once; its writer may put them into one group.
    #[arg(long, default_value_t = 4)]
    in_flight: usize,
    /// The work is cut into so many rounds, in which the sides take turns.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Where to put the data; removed afterwards. Default: a directory within the current one.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Only what RocksDB alone takes to copy the keys in order into another database, as a new replica does.
    #[arg(long)]
    copy: bool,
}

const KEY: [u8; 16] = [42; 16];

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(
        args.keys > 0 && args.batch > 0 && args.rounds > 0 && args.in_flight > 0,
        "all numbers must be above 0"
    );
    let parent = args.dir.clone().unwrap_or_else(|| PathBuf::from("."));
    let dir = parent.join(format!("god-bench-store-{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = if args.copy { copy(&args, &dir) } else { runtime.block_on(bench(&args, &dir)) };
    let removed = std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()));
    outcome.and(removed)
}

/// The same times for each of three sides, round by round.
#[derive(Default)]
struct StoreTimings {
    blind: Vec<Duration>,
    read_first: Vec<Duration>,
    store: Vec<Duration>,
}

async fn bench(args: &Args, dir: &Path) -> Result<()> {
    print_settings(args);
    let blind = open_engine(&dir.join("blind"))?;
    let read_first = open_engine(&dir.join("read-first"))?;
    let store = Arc::new(open_store(&dir.join("store"))?);

    println!("\n{:<44}{:>12}{:>12}{:>9}", "", "raw, op/s", "store, op/s", "ratio");
    for (what, ms) in [("new keys", 1), ("overwrites", 2)] {
        let entries = entries(args, ms);
        let mut times = StoreTimings::default();
        let per_round = args.keys.div_ceil(args.rounds);
        for (round, part) in entries.chunks(per_round).enumerate() {
            for turn in 0..3 {
                match (turn + round) % 3 {
                    0 => times.blind.push(write_raw(&blind, part, args.batch, false)?),
                    1 => times.read_first.push(write_raw(&read_first, part, args.batch, true)?),
                    _ => times.store.push(write_store(&store, part, args).await?),
                }
            }
        }
        row(&format!("{what}: blind puts in batches"), args.keys, &times.blind, &times.store);
        row(&format!("{what}: read, then put, in batches"), args.keys, &times.read_first, &times.store);
    }
    let (raw, stored, count) = gets(args, &blind, &store).await?;
    row("gets, one at a time", count, &raw, &stored);

    let figures = store.figures();
    ensure!(figures.total.entries == args.keys as u64, "the store holds {} entries", figures.total.entries);
    println!(
        "\nindex in memory     {} buckets, {:.1} MB per million keys",
        figures.buckets,
        figures.memory as f64 / args.keys as f64
    );
    store.stop();
    drop(store);
    reopen("not closed", &dir.join("store"), args.keys).await?;
    reopen("closed", &dir.join("store"), args.keys).await
}

/// Entries of a batch in a copy: as many as in a page between nodes.
const COPY_BATCH: usize = 4_096;

/// One thread reads, one writes, so that both cores of a small machine have something to do.
fn copy(args: &Args, dir: &Path) -> Result<()> {
    let from = open_engine(&dir.join("from"))?;
    write_raw(&from, &entries(args, 1), args.batch, false)?;
    for (way, ingests) in [("in batches", false), ("as sorted files", true)] {
        let to = open_engine(&dir.join(way))?;
        let (pages, taken) = std::sync::mpsc::sync_channel::<Vec<(Bytes, Bytes)>>(4);
        let start = Instant::now();
        let bytes = std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let (mut bytes, mut run) = (0, Vec::new());
                for page in taken {
                    bytes += page.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
                    if ingests {
                        run.extend(page);
                        if run.len() >= 64 * COPY_BATCH {
                            to.ingest(Table::Data, std::mem::take(&mut run))?;
                        }
                        continue;
                    }
                    let mut batch = Batch::default();
                    for (key, value) in page {
                        batch.put(Table::Data, key, value);
                    }
                    to.commit(batch)?;
                }
                if !run.is_empty() {
                    to.ingest(Table::Data, run)?;
                }
                Ok::<_, anyhow::Error>(bytes)
            });
            let mut page = Vec::with_capacity(COPY_BATCH);
            for pair in from.scan(Table::Data, &[], &[0xff; 9], Direction::Forward) {
                page.push(pair?);
                if page.len() == COPY_BATCH {
                    // It has ended where it failed, and says so itself.
                    let _ = pages.send(std::mem::replace(&mut page, Vec::with_capacity(COPY_BATCH)));
                }
            }
            let _ = pages.send(page);
            drop(pages);
            writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?
        })?;
        let took = start.elapsed().as_secs_f64();
        println!(
            "RocksDB alone copies {} keys, {:.0} MB, {way} in {took:.2} s: {:.1} MB/s",
            args.keys,
            bytes as f64 / 1e6,
            bytes as f64 / took / 1e6
        );
    }
    Ok(())
}

fn print_settings(args: &Args) {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("machine             {cores} cores,{}", model.unwrap_or(" unknown"));
    println!("engine              {:?}", RocksSettings::default());
    println!("store               {:?}", settings());
    println!("durability          none, on both sides: the operating system writes when it likes");
    println!(
        "work                {} keys in random order, values of {} bytes, batches of {}, {} in flight, {} rounds",
        args.keys, args.value, args.batch, args.in_flight, args.rounds
    );
}

fn row(what: &str, count: usize, raw: &[Duration], store: &[Duration]) {
    let rate = |times: &[Duration]| count as f64 / times.iter().sum::<Duration>().as_secs_f64();
    // Of the rounds' ratios the middle one: a round in which one side was disturbed does not decide.
    let mut ratios: Vec<f64> =
        raw.iter().zip(store).map(|(r, s)| r.as_secs_f64() / s.as_secs_f64()).collect();
    ratios.sort_by(f64::total_cmp);
    let middle = ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN);
    println!("{what:<44}{:>12.0}{:>12.0}{middle:>9.2}", rate(raw), rate(store));
}

fn open_engine(dir: &Path) -> Result<Arc<RocksEngine>> {
    std::fs::create_dir_all(dir)?;
    RocksEngine::open(dir, &RocksSettings::default())
        .with_context(|| format!("cannot open {}", dir.display()))
}

fn open_store(dir: &Path) -> Result<Store> {
    Ok(Store::open(open_engine(dir)?, KEY, settings())?)
}

fn settings() -> StoreSettings {
    StoreSettings {
        committer: CommitterSettings { durability: Durability::None, ..CommitterSettings::default() },
        offload: Offload::threads(),
        threaded: true,
        limits: Limits::default(),
    }
}

/// All keys, each once, in an order of its own for each `ms`.
fn entries(args: &Args, ms: u64) -> Vec<Entry> {
    let mut value = vec![0; args.value];
    let mut random = SmallRng::seed_from_u64(ms);
    let mut entries: Vec<Entry> = (0..args.keys)
        .map(|n| {
            random.fill(&mut value[..]);
            let record = Record::value(Version::new(ms, 0, NodeId(1)), Bytes::copy_from_slice(&value));
            Entry { position: position(n), record }
        })
        .collect();
    entries.shuffle(&mut random);
    entries
}

fn position(n: usize) -> Position {
    let key = format!("user:{n:012}");
    Position::of_key(KeyspaceId(1), Partitioner::Hashed, key.as_bytes()).unwrap_or_default()
}

fn write_raw(engine: &RocksEngine, entries: &[Entry], batch: usize, read_first: bool) -> Result<Duration> {
    let start = Instant::now();
    for part in entries.chunks(batch) {
        let mut part: Vec<&Entry> = part.iter().collect();
        if read_first {
            part.sort_by(|a, b| a.position.cmp(&b.position));
            let keys: Vec<&[u8]> = part.iter().map(|entry| entry.position.as_bytes()).collect();
            std::hint::black_box(engine.multi_get(Table::Data, &keys)?);
        }
        let mut batch = Batch::default();
        for entry in part {
            batch.put(Table::Data, entry.position.clone().into_bytes(), entry.record.encode());
        }
        engine.commit(batch)?;
    }
    Ok(start.elapsed())
}

async fn write_store(store: &Arc<Store>, entries: &[Entry], args: &Args) -> Result<Duration> {
    let jobs: Vec<Vec<Entry>> = entries.chunks(args.batch).map(<[Entry]>::to_vec).collect();
    let start = Instant::now();
    stream::iter(&jobs)
        .map(|job| {
            let store = Arc::clone(store);
            async move {
                loop {
                    match store.write(job.clone()).await {
                        Err(CommitError::Busy { retry_after }) => tokio::time::sleep(retry_after).await,
                        outcome => break outcome,
                    }
                }
            }
        })
        .buffer_unordered(args.in_flight)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(start.elapsed())
}

async fn gets(
    args: &Args,
    raw: &RocksEngine,
    store: &Store,
) -> Result<(Vec<Duration>, Vec<Duration>, usize)> {
    let (mut raw_times, mut store_times) = (Vec::new(), Vec::new());
    let mut random = SmallRng::seed_from_u64(3);
    let per_round = args.keys.min(500_000).div_ceil(args.rounds);
    for round in 0..args.rounds {
        let positions: Vec<Position> =
            (0..per_round).map(|_| position(random.random_range(0..args.keys))).collect();
        for turn in 0..2 {
            let start = Instant::now();
            let mut found = 0;
            if (turn + round) % 2 == 0 {
                for position in &positions {
                    found += usize::from(raw.get(Table::Data, position.as_bytes())?.is_some());
                }
                raw_times.push(start.elapsed());
            } else {
                for position in &positions {
                    found += usize::from(store.get(position).await?.is_some());
                }
                store_times.push(start.elapsed());
            }
            ensure!(found == positions.len(), "{} keys are missing", positions.len() - found);
        }
    }
    Ok((raw_times, store_times, per_round * args.rounds))
}

/// Opens what an earlier one left, as a crash would or closed, and closes it.
async fn reopen(when: &str, dir: &Path, keys: usize) -> Result<()> {
    let start = Instant::now();
    let engine: Arc<dyn Engine> = open_engine(dir)?;
    let engine_took = start.elapsed();
    let start = Instant::now();
    let store = Store::open(engine, KEY, settings())?;
    println!(
        "reopen, {when:<12}{:.3} s for {keys} keys: engine {:.3} s, index {:.3} s",
        (engine_took + start.elapsed()).as_secs_f64(),
        engine_took.as_secs_f64(),
        start.elapsed().as_secs_f64()
    );
    store.view().verify()?;
    store.close().await?;
    Ok(())
}
