#![allow(clippy::unwrap_used)]

use super::*;
use clap::CommandFactory as _;
use god_proto::{keyspace::default_quorums, ring::MAX_REPLICAS};
use std::{fs, path::Path};

/// What comes of a command line, with no variables but those of the machine that runs the test.
fn with(args: &[&str]) -> Result<Settings, SettingsError> {
    let matches = Cli::command().try_get_matches_from([&["god-node"], args].concat());
    load(&matches.map_err(|error| SettingsError::Flag(error.to_string()))?, "box")
}

fn with_file(text: &str, args: &[&str]) -> Result<Settings, SettingsError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("god.yaml");
    fs::write(&path, text).unwrap();
    with(&[&["--config", path.to_str().unwrap()], args].concat())
}

fn refusal(args: &[&str]) -> String {
    with(args).unwrap_err().to_string()
}

#[test]
fn the_command_line_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn without_any_setting_a_node_has_the_ones_of_the_help() {
    let settings = with(&[]).unwrap();
    assert_eq!(settings.data, Path::new("/var/lib/god"));
    assert_eq!(settings.grpc.listen.to_string(), "0.0.0.0:7000");
    assert_eq!(settings.peer.advertise, "box:7100");
    assert_eq!(settings.durability, Durability::Interval(Duration::from_millis(100)));
    let founding = Founding { replicas: 3, write_quorum: 2, read_quorum: 2, virtual_nodes: 10 };
    assert_eq!(settings.founding, founding);
    assert!(settings.gossip.on && settings.seeds.is_empty());
}

#[test]
fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
    let file = "memory: 1GiB\ngossip-interval: 50ms\nseeds: [a:1, b:2]\ngossip: off\n";
    let settings = with_file(file, &["--memory", "32MiB", "--seed", "c:3"]).unwrap();
    assert_eq!(settings.memory, 32 << 20);
    assert_eq!(settings.gossip.interval, Duration::from_millis(50));
    assert_eq!(settings.seeds, ["c:3"]);
    assert!(!settings.gossip.on);
    assert_eq!(settings.gossip.fan_out, 3);
}

#[test]
fn the_effective_configuration_says_where_each_setting_is_from() {
    let settings = with_file("memory: 1GiB\n", &["--zone", "a"]).unwrap();
    let line = |name: &str| {
        let text = settings.effective();
        text.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap().to_owned()
    };
    assert!(line("memory").starts_with("memory: 1GiB ") && line("memory").ends_with("# from the file"));
    assert!(line("zone").ends_with("# from --zone"));
    assert!(line("weight").ends_with("# default"));
    assert!(line("write-quorum").starts_with("write-quorum: 2 "));
}

#[test]
fn the_effective_configuration_is_a_file_that_gives_the_same_settings() {
    let args =
        ["--seed", "a:1,b:2", "--durability", "none", "--replicas", "5", "--zone", "on", "--gossip", "off"];
    let settings = with(&args).unwrap();
    let again = with_file(settings.effective(), &[]).unwrap();
    assert_eq!(
        Settings { effective: String::new(), ..again },
        Settings { effective: String::new(), ..settings }
    );
}

/// What PyYAML and others of YAML 1.1 take a plain scalar for, other than text. From https://yaml.org/type/.
fn is_no_text_in_yaml_1_1(plain: &str) -> bool {
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit() || matches!(c, '_' | ':' | '.' | ','));
    let lower = plain.to_lowercase();
    let bare = lower.trim_start_matches(['-', '+']);
    let words =
        ["", "~", "null", "y", "n", "yes", "no", "true", "false", "on", "off", "=", "<<", ".inf", ".nan"];
    words.contains(&bare)
        || (bare.starts_with(|c: char| c.is_ascii_digit()) && digits(bare) && bare.matches('.').count() < 3)
        || ["0x", "0b", "0o"].iter().any(|base| bare.strip_prefix(base).is_some_and(|rest| !rest.is_empty()))
        || bare
            .split_once('e')
            .is_some_and(|(a, b)| !a.is_empty() && digits(a) && digits(b.trim_start_matches(['-', '+'])))
        || (lower.split('-').count() == 3 && lower.split('-').all(|part| !part.is_empty() && digits(part)))
}

#[test]
fn what_is_printed_is_text_to_readers_of_yaml_1_1_where_it_is_text() {
    for delicate in [
        "no",
        "On",
        "y",
        "12:30",
        "1_000",
        "=",
        "~",
        "0x1f",
        "0b1",
        "1e3",
        "1.5",
        "2026-11-26",
        "null",
        ".inf",
        "-",
        "a: b",
        "a #b",
        "[a]",
        "*a",
        "&a",
        "!a",
        "%a",
        "@a",
        "`a",
        "'a",
        "\"a",
        "{a}",
        "a,b",
        "<<",
        "Grüße",
        "\u{2028}",
        "\u{feff}a",
        " a",
        "a ",
    ] {
        let settings = with(&["--zone", delicate, "--log", delicate, "--data", delicate]);
        let settings = settings.unwrap();
        for line in settings.effective().lines() {
            let (name, rest) = line.split_once(": ").unwrap();
            let value = rest.rsplit_once(" # ").unwrap().0.trim_end();
            let number = [
                "weight",
                "connections",
                "replicas",
                "virtual-nodes",
                "write-quorum",
                "read-quorum",
                "gossip-fanout",
                "worker-threads",
            ];
            if !value.starts_with(['"', '[']) && !number.contains(&name) && value != "null" {
                assert!(!is_no_text_in_yaml_1_1(value), "{delicate:?}: {line}");
            }
        }
        let again = with_file(settings.effective(), &[]).unwrap();
        assert_eq!((&*again.zone, &again.log, &again.data), (delicate, &settings.log, &settings.data));
    }
    let small = with(&["--weight", "0.0000001"]).unwrap();
    assert!(small.effective().contains("weight: 1.0e-7 "), "{}", small.effective());
    assert_eq!(with_file(small.effective(), &[]).unwrap().weight.to_bits(), small.weight.to_bits());
}

#[test]
fn a_list_of_seeds_bears_spaces_and_a_comma_at_its_end() {
    assert_eq!(with(&["--seed", " a:1, b:2 ,,c:3, "]).unwrap().seeds, ["a:1", "b:2", "c:3"]);
    assert_eq!(with_file("seeds: [' a:1', '']", &[]).unwrap().seeds, ["a:1"]);
    assert!(with_file("seeds: []", &[]).unwrap().seeds.is_empty());
    // Under either name of the flag.
    assert_eq!(with_file("seed: [a:1]", &[]).unwrap().seeds, ["a:1"]);
    assert_eq!(
        with(&["--seeds", "a:1,b:2"]).unwrap().seeds,
        with(&["--seed", "a:1", "--seed", "b:2"]).unwrap().seeds
    );
    assert!(with_file("seed: [a:1]\nseeds: [b:1]", &[]).unwrap_err().to_string().contains("`seeds`"));
    for nobody in ["", " ", ","] {
        assert!(refusal(&["--seed", nobody]).contains("seeds name no node"), "{nobody:?}");
    }
}

#[test]
fn an_address_for_others_has_a_host_and_a_port_and_nothing_of_a_url() {
    for right in ["god-0.god:7100", "[::1]:7100", "my_host:1", "10.0.0.1:65535"] {
        assert!(with(&["--seed", right, "--advertise-peer", right]).is_ok(), "{right}");
    }
    for wrong in [
        "user@host:7100",
        "host?x:7100",
        "host#x:7100",
        "a b:7100",
        "host/:7100",
        "http://a:7100",
        "hö:7100",
        "[a]:7100",
        "[]:7100",
        "::1:7100",
        "a:+7100",
        "a:0",
        "a:70000",
        ":7100",
        "a:",
        "a",
    ] {
        for name in ["seed", "advertise-peer"] {
            let refused = refusal(&[&format!("--{name}"), wrong]);
            assert!(refused.contains("is not HOST:PORT"), "{wrong}: {refused}");
        }
    }
}

#[test]
fn what_the_file_must_not_say_is_refused_with_its_line() {
    let refusal = |text: &str| with_file(text, &[]).unwrap_err().to_string();
    let unknown = refusal("memory: 1GiB\nwrite-quorm: 2\n");
    assert!(unknown.contains("`write-quorm`") && unknown.contains("`write-quorum`"), "{unknown}");
    assert!(unknown.contains("line 2"), "{unknown}");
    let unit = refusal("memory: 1GiB\ngossip-interval: 5\n");
    assert!(unit.contains("gossip-interval") && unit.contains("such as 500ms"), "{unit}");
    assert!(unit.contains("line 2"), "{unit}");
    assert!(refusal("memory: [1]\n").contains("a size such as 256MiB"));
    assert!(refusal("replicas: many\n").contains("replicas"));
    assert!(refusal("a: b: c").contains("line 1"));
    assert!(with(&["--config", "/nowhere/god.yaml"]).unwrap_err().to_string().contains("/nowhere/god.yaml"));
    assert!(with_file("# nothing yet\n", &[]).is_ok());
}

#[test]
fn an_impossible_setting_is_refused_by_name() {
    for (args, sentence) in [
        (&["--write-quorum", "4"][..], "write-quorum 4 exceeds replicas 3"),
        (&["--replicas", "2", "--read-quorum", "3"], "read-quorum 3 exceeds replicas 2"),
        (&["--write-quorum", "0"], "write-quorum is 0"),
        (&["--replicas", "17"], "replicas 17 is not 1 to 16"),
        (&["--virtual-nodes", "0"], "virtual-nodes 0 is not 1 to 1000"),
        (&["--weight", "0"], "weight 0 is not above 0"),
        (&["--weight", "NaN"], "weight NaN"),
        (&["--memory", "1MiB"], "memory 1MiB is below the least, 16MiB"),
        (&["--gossip-interval", "1ms"], "gossip-interval 1ms is not between 10ms and 1m"),
        (&["--ping-interval", "1m"], "ping-interval 1m is not between 10ms and 2s"),
        (&["--request-timeout", "10m"], "request-timeout 10m is not between 10ms and 30s"),
        (&["--seed", "god-0"], "seed \"god-0\" is not HOST:PORT"),
        (&["--grpc-address", "0.0.0.0:0"], "grpc-address 0.0.0.0:0 has port 0"),
        (&["--peer-address", "0.0.0.0:7000"], "grpc-address and peer-address are both 0.0.0.0:7000"),
        (&["--advertise-peer", "0.0.0.0:7100"], "advertise-peer 0.0.0.0:7100 leads nowhere"),
        (&["--data", ""], "data"),
        (&["--request-memory", "8MiB"], "request-memory 8MiB is below the least, 32MiB"),
        (&["--connections", "0"], "connections 0 is not 1 to 1000000"),
        (&["--handshake-timeout", "1ms"], "handshake-timeout 1ms is not between 100ms and 10m"),
        (&["--idle-timeout", "0s"], "idle-timeout 0s is not between 1s and 1day"),
        (&["--unread-timeout", "2h"], "unread-timeout 2h is not between 100ms and 1h"),
    ] {
        let refusal = refusal(args);
        assert!(refusal.contains(sentence), "{args:?}: {refusal}");
    }
}

/// What a setting may be, by the refusals of a very small and a very large value.
fn bounds(name: &str, kind: &str) -> Vec<String> {
    let extremes: &[&str] = match kind {
        "TIME" => &["0s", "366000days"],
        "SIZE" => &["1B", "1048576TiB"],
        "N" => &["0", "4294967295"],
        "NUMBER" => &["0", "1000000000"],
        _ => &[],
    };
    let mut found = Vec::new();
    for value in extremes {
        let Err(why) = with(&[&format!("--{name}"), value]) else { continue };
        let why = why.to_string();
        match why.split_once(" is ") {
            None => found.push("replicas".to_owned()),
            Some((_, bounds)) => {
                let is_bound = |word: &&str| word != value && word.starts_with(|c: char| c.is_ascii_digit());
                found.extend(words(bounds).into_iter().filter(is_bound).map(str::to_owned));
            }
        }
    }
    found
}

fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| c.is_whitespace() || ";:,|[]()`".contains(c)).collect()
}

/// Without commas in numbers.
fn plain(text: &str) -> String {
    let mut parts = text.split(',');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let goes_on = part.starts_with(|c: char| c.is_ascii_digit());
        plain.push_str(if goes_on { "" } else { "," });
        plain.push_str(part);
    }
    plain
}

#[test]
fn every_bound_is_in_the_help_and_in_readme() {
    let readme = plain(include_str!("../../../README.md"));
    let mut seen = 0;
    for argument in Cli::command().get_arguments() {
        let Some(name) = argument.get_long() else { continue };
        let kind = argument.get_value_names().unwrap_or_default().first().map(ToString::to_string);
        let help = plain(&argument.get_help().map(ToString::to_string).unwrap_or_default());
        let row = readme.lines().find(|row| row.starts_with("| `") && row.contains(&format!("`{name}`")));
        for bound in bounds(name, &kind.unwrap_or_default()) {
            assert!(words(&help).contains(&&*bound), "--{name}: its help does not name {bound}: {help}");
            let row = row.unwrap_or_default();
            assert!(words(row).contains(&&*bound), "{name}: README does not name {bound}: {row}");
            seen += 1;
        }
    }
    assert!(seen > 60, "only {seen} bounds are found");
}

#[test]
fn a_value_that_is_none_is_refused_with_the_ones_there_are() {
    let durability = refusal(&["--durability", "sometimes"]);
    assert!(durability.contains("none") && durability.contains("interval") && durability.contains("always"));
    assert!(refusal(&["--memory", "1GB"]).contains("such as 256MiB"));
    assert!(refusal(&["--grpc-address", "localhost"]).contains("IP:PORT"));
    assert!(refusal(&["--write-quorm", "2"]).contains("--write-quorum"));
}

#[test]
fn a_door_on_one_address_is_found_there_and_one_on_all_by_the_hosts_name() {
    let settings = with(&["--grpc-address", "127.0.0.1:9", "--advertise-http", "outside:80"]).unwrap();
    assert_eq!(settings.grpc.advertise, "127.0.0.1:9");
    assert_eq!(settings.peer.advertise, "box:7100");
    assert_eq!(settings.http.advertise, "outside:80");
}

#[test]
fn quorums_that_are_left_out_follow_from_the_copies() {
    for replicas in 1..=MAX_REPLICAS {
        for write in 0..=replicas {
            let (copies, quorum) = (replicas.to_string(), write.to_string());
            let said: &[&str] = if write == 0 { &[] } else { &["--write-quorum", &quorum] };
            let founding = with(&[&["--replicas", &copies], said].concat()).unwrap().founding;
            let both = (founding.write_quorum, founding.read_quorum);
            assert_eq!(both, default_quorums(replicas, write, 0), "{write} of {replicas}");
        }
    }
    assert_eq!(with(&["--read-quorum", "1"]).unwrap().founding.read_quorum, 1);
}
