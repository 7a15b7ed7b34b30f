//! Refuses invalid settings by name, with what is valid.

use super::{
    Door, Founding, Gossip, Settings, SettingsError, Upkeep,
    given::{DurabilityChoice, Given, JoinChoice, LogFormat},
    merge::Merged,
    units::{ByteSize, Span},
};
use god_core::connections::Times;
use god_manual::yaml::{number, quoted};
use god_proto::{
    MAX_TIMEOUT,
    address::check_address,
    keyspace::default_quorums,
    ring::{MAX_REPLICAS, MAX_VIRTUAL_NODES, MAX_WEIGHT, is_weight},
};
use god_store::engine::Durability;
use std::{
    fmt::Write as _,
    net::{SocketAddr, SocketAddrV4},
    time::Duration,
};

/// Threads for requests.
const MAX_WORKERS: u32 = 1_024;
const MAX_CONNECTIONS: u32 = 1_000_000;
const MIN_MEMORY: u64 = 16 << 20;
/// A largest message, decoded, and its answer.
const MIN_REQUEST_MEMORY: u64 = 32 << 20;
const MINUTE: Duration = Duration::from_mins(1);
/// Whether others are there must be known within seconds.
const MAX_PING_INTERVAL: Duration = Duration::from_secs(2);

/// What stands for a quorum that was left out.
const LEFT_OUT: u32 = 0;

type Checked<T> = Result<T, SettingsError>;

fn refuse<T>(problem: String) -> Checked<T> {
    Err(SettingsError::Impossible(problem))
}

/// A setting that has a default is there after the merge.
fn take<T: Clone>(name: &str, value: Option<&T>) -> Checked<T> {
    value.cloned().map_or_else(|| refuse(format!("{name} is not set")), Ok)
}

pub(super) fn check(merged: &Merged, host_name: &str) -> Checked<Settings> {
    let given = &merged.given;
    let data = take("data", given.data.as_ref())?;
    if data.as_os_str().is_empty() {
        return refuse("data is empty; name the directory to keep data in".to_owned());
    }
    let grpc = door("grpc", given.grpc_address, given.advertise_grpc.as_deref(), host_name)?;
    let peer = door("peer", given.peer_address, given.advertise_peer.as_deref(), host_name)?;
    let http = door("http", given.http_address, given.advertise_http.as_deref(), host_name)?;
    for (one, other, name) in [
        (&grpc, &peer, "grpc-address and peer-address"),
        (&grpc, &http, "grpc-address and http-address"),
        (&peer, &http, "peer-address and http-address"),
    ] {
        if one.listen == other.listen {
            return refuse(format!("{name} are both {}; each door needs a port of its own", one.listen));
        }
    }
    let seeds = seeds(given)?;
    let weight = take("weight", given.weight.as_ref())?;
    if !is_weight(weight) {
        return refuse(format!("weight {weight} is not above 0 and up to {MAX_WEIGHT}"));
    }
    let memory = at_least("memory", given.memory, ByteSize(MIN_MEMORY))?;
    let disk_reserve = take("disk-reserve", given.disk_reserve.as_ref())?.0;
    let sync_interval = between("sync-interval", given.sync_interval, Duration::from_millis(1), MINUTE)?;
    let durability = match take("durability", given.durability.as_ref())? {
        DurabilityChoice::None => Durability::None,
        DurabilityChoice::Interval => Durability::Interval(sync_interval),
        DurabilityChoice::Always => Durability::Always,
    };
    let founding = founding(given)?;
    let settings = Settings {
        data,
        grpc,
        peer,
        http,
        connections: count("connections", given.connections, MAX_CONNECTIONS)? as usize,
        times: times(given)?,
        seeds,
        cluster: given.cluster,
        zone: zone(given)?,
        weight,
        memory,
        durability,
        disk_reserve,
        gossip: gossip(given)?,
        founding,
        request_timeout: between(
            "request-timeout",
            given.request_timeout,
            Duration::from_millis(10),
            MAX_TIMEOUT,
        )?,
        hedge_delay: between("hedge-delay", given.hedge_delay, Duration::from_millis(1), MINUTE)?,
        request_memory: at_least("request-memory", given.request_memory, ByteSize(MIN_REQUEST_MEMORY))?,
        hint_limit: at_least("hint-limit", given.hint_limit, ByteSize(1 << 20))?,
        upkeep: upkeep(given)?,
        takes_part: take("join", given.join.as_ref())? == JoinChoice::Auto,
        worker_threads: count("worker-threads", given.worker_threads.or(Some(1)), MAX_WORKERS)? as usize,
        log: take("log", given.log.as_ref())?,
        log_format: given.log_format.unwrap_or(LogFormat::Text),
        effective: String::new(),
    };
    let effective = effective(merged, &settings)?;
    Ok(Settings { effective, ..settings })
}

fn door(name: &str, listen: Option<SocketAddr>, advertise: Option<&str>, host_name: &str) -> Checked<Door> {
    let listen = take(&format!("{name}-address"), listen.as_ref())?;
    if listen.port() == 0 {
        return refuse(format!(
            "{name}-address {listen} has port 0; others must know the port, so choose one"
        ));
    }
    let advertise = match advertise {
        Some(address) => {
            host_port(&format!("advertise-{name}"), address)?;
            address.to_owned()
        }
        None if listen.ip().is_unspecified() => format!("{host_name}:{}", listen.port()),
        None => listen.to_string(),
    };
    if let Ok(address) = advertise.parse::<SocketAddr>()
        && address.ip().is_unspecified()
    {
        return refuse(format!(
            "advertise-{name} {advertise} leads nowhere; name an address that others can reach"
        ));
    }
    Ok(Door { listen, advertise })
}

fn times(given: &Given) -> Checked<Times> {
    let least = Duration::from_millis(100);
    Ok(Times {
        handshake: between("handshake-timeout", given.handshake_timeout, least, 10 * MINUTE)?,
        idle: between("idle-timeout", given.idle_timeout, 10 * least, 60 * 24 * MINUTE)?,
        unread: between("unread-timeout", given.unread_timeout, least, 60 * MINUTE)?,
    })
}

/// Where the cluster may be found. Spaces and a comma at the end mean nothing, as in a variable that is put together.
fn seeds(given: &Given) -> Checked<Vec<String>> {
    let all = take("seeds", given.seeds.as_ref())?;
    let named = all.iter().map(|seed| seed.trim()).filter(|seed| !seed.is_empty());
    let named: Vec<String> = named.map(str::to_owned).collect();
    if named.is_empty() && !all.is_empty() {
        return refuse(
            "seeds name no node; write HOST:PORT, such as god-0.god:7100, or leave them out".to_owned(),
        );
    }
    for seed in &named {
        host_port("seed", seed)?;
    }
    Ok(named)
}

fn host_port(name: &str, text: &str) -> Checked<()> {
    match check_address(text) {
        Ok(()) => Ok(()),
        Err(_) => refuse(format!("{name} {text:?} is not HOST:PORT, such as god-0.god:7100")),
    }
}

fn zone(given: &Given) -> Checked<String> {
    let zone = take("zone", given.zone.as_ref())?;
    if zone.len() > 64 || zone.chars().any(char::is_control) {
        return refuse(format!("zone {zone:?} is not up to 64 printable characters"));
    }
    Ok(zone)
}

fn gossip(given: &Given) -> Checked<Gossip> {
    let least = Duration::from_millis(10);
    Ok(Gossip {
        on: take("gossip", given.gossip.as_ref())?.0,
        interval: between("gossip-interval", given.gossip_interval, least, MINUTE)?,
        fan_out: count("gossip-fanout", given.gossip_fanout, 100)? as usize,
        ping_interval: between("ping-interval", given.ping_interval, least, MAX_PING_INTERVAL)?,
    })
}

/// Quorums that are left out follow from the copies, as everywhere.
fn founding(given: &Given) -> Checked<Founding> {
    let replicas = count("replicas", given.replicas, MAX_REPLICAS)?;
    let quorum = |name: &str, value: Option<u32>| match value {
        None => Ok(LEFT_OUT),
        Some(0) => refuse(format!("{name} is 0; at least one replica must answer")),
        Some(value) if value > replicas => refuse(format!("{name} {value} exceeds replicas {replicas}")),
        Some(value) => Ok(value),
    };
    let write = quorum("write-quorum", given.write_quorum)?;
    let read = quorum("read-quorum", given.read_quorum)?;
    let (write_quorum, read_quorum) = default_quorums(replicas, write, read);
    let virtual_nodes = count("virtual-nodes", given.virtual_nodes, MAX_VIRTUAL_NODES)?;
    Ok(Founding { replicas, write_quorum, read_quorum, virtual_nodes })
}

fn upkeep(given: &Given) -> Checked<Upkeep> {
    let second = Duration::from_secs(1);
    let rate = take("transfer-rate", given.transfer_rate.as_ref())?;
    if rate.0 > 0 && rate.0 < 64 << 10 {
        return refuse(format!("transfer-rate {rate} is below the least, 64KiB; 0B is no bound"));
    }
    Ok(Upkeep {
        transfer_rate: rate.0,
        compare_interval: between("compare-interval", given.compare_interval, second / 10, 60 * MINUTE)?,
        tombstone_age: between("tombstone-age", given.tombstone_age, 2 * second, 60 * 24 * 365 * MINUTE)?,
        migrate: take("migrate", given.migrate.as_ref())?.0,
    })
}

fn count(name: &str, value: Option<u32>, most: u32) -> Checked<u32> {
    let value = take(name, value.as_ref())?;
    if (1..=most).contains(&value) { Ok(value) } else { refuse(format!("{name} {value} is not 1 to {most}")) }
}

fn between(name: &str, value: Option<Span>, least: Duration, most: Duration) -> Checked<Duration> {
    let value = take(name, value.as_ref())?.0;
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    refuse(format!("{name} {} is not between {} and {}", Span(value), Span(least), Span(most)))
}

fn at_least(name: &str, value: Option<ByteSize>, least: ByteSize) -> Checked<u64> {
    let value = take(name, value.as_ref())?;
    if value.0 >= least.0 {
        Ok(value.0)
    } else {
        refuse(format!("{name} {value} is below the least, {least}"))
    }
}

/// What would be in quotes and is text to every reader without: times, sizes, names and IPv4 addresses with a port.
fn is_as_shown(text: &str) -> bool {
    let timed = text.split(' ').all(|part| {
        let unit = part.trim_start_matches(|c: char| c.is_ascii_digit());
        unit.len() < part.len() && !unit.is_empty() && unit.chars().all(|c| c.is_ascii_alphabetic())
    });
    let named = text.split_once(':').is_some_and(|(host, port)| {
        let begins = host.starts_with(|c: char| c.is_ascii_alphabetic());
        let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        begins && host.chars().all(inside) && !port.is_empty() && port.chars().all(|c| c.is_ascii_digit())
    });
    timed || named || text.parse::<SocketAddrV4>().is_ok()
}

/// The file that would give these settings, each line with its origin.
fn effective(merged: &Merged, settings: &Settings) -> Checked<String> {
    let given = Given {
        advertise_grpc: Some(settings.grpc.advertise.clone()),
        advertise_peer: Some(settings.peer.advertise.clone()),
        advertise_http: Some(settings.http.advertise.clone()),
        write_quorum: Some(settings.founding.write_quorum),
        read_quorum: Some(settings.founding.read_quorum),
        seeds: Some(settings.seeds.clone()),
        ..merged.given.clone()
    };
    let print = |value: &serde_yaml::Value| {
        let text = match value {
            // A list on one line, so that its comment may follow it. JSON is YAML.
            serde_yaml::Value::Sequence(all) => {
                let all: Vec<_> = all.iter().filter_map(|item| item.as_str().map(quoted)).collect();
                Some(format!("[{}]", all.join(", ")))
            }
            serde_yaml::Value::String(text) if is_as_shown(text) => Some(text.clone()),
            serde_yaml::Value::String(text) => Some(quoted(text).into_owned()),
            serde_yaml::Value::Number(value) => Some(number(&value.to_string())),
            _ => serde_yaml::to_string(value).ok(),
        };
        text.map_or_else(String::new, |text| text.trim_end().to_owned())
    };
    let all = match serde_yaml::to_value(&given) {
        Ok(serde_yaml::Value::Mapping(all)) => all,
        Ok(_) => serde_yaml::Mapping::new(),
        Err(error) => return refuse(error.to_string()),
    };
    let mut out = String::new();
    for (name, origin) in &merged.origins {
        let value = all.get(name.as_str()).map(print).unwrap_or_default();
        let line = format!("{name}: {value}");
        // Writing to a string does not fail.
        let _ = writeln!(out, "{line:<44} # {}", origin.describe(name));
    }
    Ok(out)
}
