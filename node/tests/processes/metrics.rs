//! What a scrape shows: by the rules that Prometheus's own linter has, and complete.

use crate::{client::committed, cluster::Cluster, doors::http};
use std::collections::{BTreeMap, BTreeSet};

/// A family: its type, and what each of its samples is called.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    samples: BTreeMap<String, f64>,
}

/// What is wrong with a text, as `promtool check metrics` and the format would have it; and the families.
fn lint(text: &str) -> (Vec<String>, BTreeMap<String, Family>) {
    let mut faults = Vec::new();
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            let family = families.entry(name.to_owned()).or_default();
            if !family.help.is_empty() || !family.samples.is_empty() {
                faults.push(format!("{name}: a second HELP, or one behind its samples"));
            }
            help.clone_into(&mut family.help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let family = families.entry(name.to_owned()).or_default();
            if !family.kind.is_empty() || !family.samples.is_empty() {
                faults.push(format!("{name}: a second TYPE, or one behind its samples"));
            }
            kind.clone_into(&mut family.kind);
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
                let base = name.strip_suffix(end)?;
                families.get(base).is_some_and(|it| it.kind == "histogram").then_some(base)
            });
            let family = families.entry(base.unwrap_or(name).to_owned()).or_default();
            let value: f64 = value.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
            if family.samples.insert(sample.to_owned(), value).is_some() {
                faults.push(format!("{sample} is there twice"));
            }
        }
    }
    for (name, family) in &families {
        let mut fault = |problem: &str| faults.push(format!("{name}: {problem}"));
        if family.help.is_empty() {
            fault("no help text");
        }
        match family.kind.as_str() {
            "counter" if !name.ends_with("_total") => fault("a counter ends with _total"),
            "gauge" | "histogram" if name.ends_with("_total") => fault("only a counter ends with _total"),
            "counter" | "gauge" | "histogram" => {}
            other => fault(&format!("type {other:?}")),
        }
        if family.kind != "histogram" && ["_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end)) {
            fault("ends as a histogram's samples do");
        }
        if name.chars().any(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')) {
            fault("not in snake_case");
        }
        let units = [
            "ms",
            "us",
            "milliseconds",
            "minutes",
            "hours",
            "kib",
            "mib",
            "kilobytes",
            "percent",
            "secs",
            "sec",
        ];
        if name.split('_').any(|part| units.contains(&part)) {
            fault("a unit that is no base unit");
        }
        if name.split('_').any(|part| ["counter", "gauge", "histogram"].contains(&part)) {
            fault("its type in its name");
        }
        // OpenMetrics counts both as one family.
        if let Some(base) = name.strip_suffix("_total").filter(|base| families.contains_key(*base)) {
            fault(&format!("shares a family with {base}"));
        }
        if family.samples.is_empty() {
            fault("no sample");
        }
    }
    (faults, families)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_family_of_a_scrape_says_what_it_is_and_the_process_is_among_them() {
    let cluster = Cluster::start(3, &[]).await;
    let mut client = cluster.nodes[0].client();
    for at in 0..10 {
        committed(client.put(format!("k{at}"), "v").await);
    }
    let answer = http(&cluster.nodes[0].http, "/metrics").await;
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    let (faults, families) = lint(answer.split_once("\r\n\r\n").unwrap().1);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let of_process: BTreeSet<&str> =
        families.keys().map(String::as_str).filter(|name| name.starts_with("process_")).collect();
    let all = [
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
    ];
    assert_eq!(of_process, BTreeSet::from(all));
    let value = |name: &str| families[name].samples.values().copied().sum::<f64>();
    assert!(all.iter().all(|name| value(name) > 0.0), "{answer}");
    assert!(value("process_open_fds") < value("process_max_fds"));
    assert!(value("process_resident_memory_bytes") <= value("process_virtual_memory_bytes"));
    let build = families["god_build_info"].samples.keys().next().unwrap();
    assert_eq!(build, &format!("god_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")));
    assert!(families.len() > 40, "{:?}", families.keys());
}

#[test]
fn the_linter_finds_what_it_looks_for() {
    for (text, fault) in [
        ("# TYPE a gauge\na 1\n", "a: no help"),
        ("# HELP a x\na 1\n", "type \"\""),
        ("# HELP a x\n# TYPE a counter\na 1\n", "ends with _total"),
        ("# HELP a_total x\n# TYPE a_total gauge\na_total 1\n", "only a counter"),
        ("# HELP a_ms x\n# TYPE a_ms gauge\na_ms 1\n", "base unit"),
        ("# HELP a_count x\n# TYPE a_count gauge\na_count 1\n", "as a histogram's"),
        ("# HELP a x\n# TYPE a gauge\na 1\na 2\n", "twice"),
        ("# HELP a x\n# HELP a y\n# TYPE a gauge\na 1\n", "second HELP"),
        ("a 1\n# HELP a x\n# TYPE a gauge\n", "behind its samples"),
        (
            "# HELP a x\n# TYPE a gauge\na 1\n# HELP a_total x\n# TYPE a_total counter\na_total 1\n",
            "shares a family",
        ),
    ] {
        let (faults, _) = lint(text);
        assert!(faults.iter().any(|it| it.contains(fault)), "{text}: {faults:?}");
    }
}
