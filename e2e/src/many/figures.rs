//! What a process has used, and what it has asked the API server for.

use anyhow::Context as _;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

/// Ticks of processor time in a second: the same wherever Linux runs.
const TICKS: f64 = 100.0;

/// What a process has used so far.
pub struct Figures {
    processor_seconds: f64,
    resident_kib: u64,
    most_resident_kib: u64,
}

impl Figures {
    /// Of a process that runs.
    ///
    /// # Errors
    /// Where it does not.
    pub fn of(process: u32) -> anyhow::Result<Figures> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("the operator ended")?;
        // The name is in brackets, and may hold anything.
        let after = stat.rsplit_once(')').context("its state cannot be read")?.1;
        let ticks: f64 =
            after.split_whitespace().skip(11).take(2).filter_map(|it| it.parse::<f64>().ok()).sum();
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
            line.and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        Ok(Figures {
            processor_seconds: ticks / TICKS,
            resident_kib: kib("VmRSS:"),
            most_resident_kib: kib("VmHWM:"),
        })
    }

    /// Prints them, or what was added since.
    pub fn print(&self, when: &str, since: Option<&Figures>) {
        let before = since.map_or(0.0, |since| since.processor_seconds);
        println!(
            "{when}: {:.2} s of processor time, {:.1} MiB resident, {:.1} MiB at most",
            self.processor_seconds - before,
            self.resident_kib as f64 / 1_024.0,
            self.most_resident_kib as f64 / 1_024.0
        );
    }
}

/// Requests by what they ask for.
pub type Requests = BTreeMap<String, u64>;

/// The API server's log of requests.
pub struct Audit {
    path: PathBuf,
}

impl Audit {
    /// A log, which may not be there before there is a request.
    pub fn open(path: &Path) -> Audit {
        Audit { path: path.to_owned() }
    }

    /// What was asked for from a place in the log on, and where it ends now.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(&self, from: u64) -> anyhow::Result<(Requests, u64)> {
        let mut file = File::open(&self.path).with_context(|| format!("{}", self.path.display()))?;
        let mut at = file.seek(SeekFrom::Start(from))?;
        let mut requests = Requests::new();
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        // What is being written has no end yet, and is read next time.
        while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
            at += line.len() as u64;
            let event: serde_json::Value = serde_json::from_str(&line).context("a line of the log")?;
            let text = |at: &str| event.pointer(at).and_then(|it| it.as_str()).unwrap_or_default().to_owned();
            line.clear();
            // A watch is told of when it begins and when it ends.
            if text("/verb") == "watch" && text("/stage") == "ResponseComplete" {
                continue;
            }
            let (resource, part) = (text("/objectRef/resource"), text("/objectRef/subresource"));
            let what = match (resource.as_str(), part.as_str()) {
                ("", _) => text("/requestURI"),
                (resource, "") => resource.to_owned(),
                (resource, part) => format!("{resource}/{part}"),
            };
            *requests.entry(format!("{} {what}", text("/verb"))).or_default() += 1;
        }
        Ok((requests, at))
    }
}

/// Prints them.
pub fn print(when: &str, requests: &Requests, clusters: usize) {
    let all: u64 = requests.values().sum();
    println!(
        "{when}: {all} requests to the API server, {:.1} a cluster",
        all as f64 / clusters.max(1) as f64
    );
    for (what, count) in requests {
        println!("  {count:>6} {what}");
    }
}
