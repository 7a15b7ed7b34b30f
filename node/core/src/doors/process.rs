//! What monitors ask of every process, and which build this is. As text: seconds of a processor are a counter with a
//! fraction, and the recorder's are whole. https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics

use rustix::process::{Resource, getrlimit};
use std::{fmt::Write as _, fs};

/// What the system says of this process.
#[derive(Clone, Copy, Debug, PartialEq)]
struct ProcessStats {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    started_at: f64,
    open_files: u64,
    most_files: Option<u64>,
}

/// This process's families; those of the process only where the system has `/proc`.
pub(super) fn render() -> String {
    let mut out = String::new();
    let version = env!("CARGO_PKG_VERSION");
    let build = format!("{{version=\"{version}\"}}");
    family(&mut out, "god_build_info", "gauge", "Which build of god-node this is; always 1", &build, 1.0);
    if let Some(seen) = look() {
        show(&seen, &mut out);
    }
    out
}

fn look() -> Option<ProcessStats> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let figures = Figures::of(&read("/proc/self/stat")?)?;
    let booted = booted_at(&read("/proc/stat")?)?;
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    // One of them is this look's own.
    let open_files = (fs::read_dir("/proc/self/fd").ok()?.count() as u64).saturating_sub(1);
    Some(ProcessStats {
        cpu_seconds: figures.cpu_ticks as f64 / ticks,
        resident_bytes: figures.resident_pages * rustix::param::page_size() as u64,
        virtual_bytes: figures.virtual_bytes,
        started_at: booted as f64 + figures.started_ticks as f64 / ticks,
        open_files,
        most_files: getrlimit(Resource::Nofile).current,
    })
}

/// What `/proc/self/stat` says, in its own units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Figures {
    cpu_ticks: u64,
    started_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Figures {
    /// Fields are counted from behind the process's name, which may hold anything.
    fn of(stat: &str) -> Option<Figures> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        // As proc(5) numbers them; the first behind the name is the third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Figures {
            cpu_ticks: field(14)? + field(15)?,
            started_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// When the machine was started, in seconds since 1970.
fn booted_at(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

fn show(seen: &ProcessStats, out: &mut String) {
    let ProcessStats { cpu_seconds, resident_bytes, virtual_bytes, started_at, open_files, most_files } =
        *seen;
    let mut of = |name: &str, kind: &str, help: &str, value: f64| family(out, name, kind, help, "", value);
    of(
        "process_cpu_seconds_total",
        "counter",
        "Time that processors worked for it, in user and system",
        cpu_seconds,
    );
    of("process_open_fds", "gauge", "Open file descriptors", open_files as f64);
    of(
        "process_max_fds",
        "gauge",
        "The most open file descriptors",
        most_files.map_or(f64::INFINITY, |most| most as f64),
    );
    of("process_resident_memory_bytes", "gauge", "Memory that is resident", resident_bytes as f64);
    of("process_virtual_memory_bytes", "gauge", "Memory that is addressed", virtual_bytes as f64);
    of("process_start_time_seconds", "gauge", "When it was started, in seconds since 1970", started_at);
}

fn family(out: &mut String, name: &str, kind: &str, help: &str, labels: &str, value: f64) {
    let value = if value.is_infinite() { "+Inf".to_owned() } else { value.to_string() };
    // Writing to a string does not fail.
    let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{labels} {value}\n\n");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn figures_are_read_past_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 9 0 5000 1048576 256 18446744073709551615 1";
        let figures =
            Figures { cpu_ticks: 42, started_ticks: 5_000, virtual_bytes: 1 << 20, resident_pages: 256 };
        assert_eq!(Figures::of(stat), Some(figures));
        assert_eq!(Figures::of("7 (a) S 1"), None);
        assert_eq!(Figures::of(""), None);
        assert_eq!(booted_at("cpu 1 2\nbtime 1700000000\nprocesses 3\n"), Some(1_700_000_000));
        assert_eq!(booted_at("cpu 1 2\n"), None);
    }

    #[test]
    fn all_families_of_a_process_are_shown_with_what_they_are() {
        let seen = ProcessStats {
            cpu_seconds: 0.25,
            resident_bytes: 1 << 20,
            virtual_bytes: 1 << 30,
            started_at: 1_700_000_050.5,
            open_files: 12,
            most_files: None,
        };
        let mut text = String::new();
        show(&seen, &mut text);
        for line in [
            "# TYPE process_cpu_seconds_total counter",
            "process_cpu_seconds_total 0.25",
            "process_open_fds 12",
            "process_max_fds +Inf",
            "process_resident_memory_bytes 1048576",
            "process_virtual_memory_bytes 1073741824",
            "process_start_time_seconds 1700000050.5",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
        assert_eq!(text.matches("# HELP").count(), 6);
    }

    #[test]
    fn this_process_is_seen_as_it_is() {
        let seen = look().unwrap();
        assert!(seen.resident_bytes > 0 && seen.virtual_bytes >= seen.resident_bytes, "{seen:?}");
        assert!(
            seen.open_files >= 3 && seen.most_files.is_none_or(|most| most >= seen.open_files),
            "{seen:?}"
        );
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(seen.started_at > 1e9 && seen.started_at < now + 2.0, "{seen:?}");
        assert!(render().contains("god_build_info{version=\""));
    }
}
