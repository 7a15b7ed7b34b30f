//! Lays flags over variables over the file over defaults, and remembers where each setting is from.

use super::{
    SettingsError,
    given::{Cli, DurabilityChoice, Given, JoinChoice, LogFormat},
    units::{ByteSize, Span, Switch},
};
use clap::{ArgMatches, FromArgMatches as _, parser::ValueSource};
use god_proto::address::{GRPC_PORT, HTTP_PORT, PEER_PORT};
use serde_yaml::{Mapping, Value};
use std::{fs, path::Path, time::Duration};

/// Settings and where they are from.
pub(super) struct Merged {
    /// Only what may be left out is still absent.
    pub given: Given,
    /// Name and origin of each setting, in the order they are declared in.
    pub origins: Vec<(String, Origin)>,
}

/// Where a setting is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Flag,
    Variable,
    File,
    Default,
}

impl Origin {
    pub fn describe(self, name: &str) -> String {
        match self {
            Origin::Flag if name == "seeds" => "from --seed".to_owned(),
            Origin::Flag => format!("from --{name}"),
            Origin::Variable => format!("from GOD_{}", name.replace('-', "_").to_uppercase()),
            Origin::File => "from the file".to_owned(),
            Origin::Default => "default".to_owned(),
        }
    }
}

/// Lays all sources over each other.
pub(super) fn merge(matches: &ArgMatches) -> Result<Merged, SettingsError> {
    let cli = Cli::from_arg_matches(matches).map_err(|error| SettingsError::Flag(error.to_string()))?;
    let file = match &cli.config {
        Some(path) => read_file(path)?,
        None => Given::default(),
    };
    let (typed, file, default) = (mapping(&cli.given)?, mapping(&file)?, mapping(&defaults())?);
    let mut all = Mapping::new();
    let mut origins = Vec::new();
    // Each has every field, in the order of the declaration.
    for (key, typed) in typed {
        let Some(name) = key.as_str().map(str::to_owned) else { continue };
        let present = |from: &Mapping| from.get(&key).filter(|value| !value.is_null()).cloned();
        let (value, origin) = if typed.is_null() {
            match present(&file) {
                Some(value) => (value, Origin::File),
                None => (present(&default).unwrap_or(Value::Null), Origin::Default),
            }
        } else {
            let id = name.replace('-', "_");
            let by_variable = matches.value_source(&id) == Some(ValueSource::EnvVariable);
            (typed, if by_variable { Origin::Variable } else { Origin::Flag })
        };
        all.insert(key, value);
        origins.push((name, origin));
    }
    let given = serde_yaml::from_value(Value::Mapping(all));
    Ok(Merged { given: given.map_err(|error| SettingsError::Flag(error.to_string()))?, origins })
}

fn read_file(path: &Path) -> Result<Given, SettingsError> {
    let wrong = |problem: String| SettingsError::File { path: path.to_owned(), problem };
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    // A file of comments only.
    let value: Value = serde_yaml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if value.is_null() {
        return Ok(Given::default());
    }
    serde_yaml::from_str(&text).map_err(|error| wrong(error.to_string()))
}

fn mapping(given: &Given) -> Result<Mapping, SettingsError> {
    match serde_yaml::to_value(given) {
        Ok(Value::Mapping(all)) => Ok(all),
        Ok(_) => Ok(Mapping::new()),
        Err(error) => Err(SettingsError::Flag(error.to_string())),
    }
}

/// What holds where nothing is said. Quorums and advertised addresses follow from other settings.
fn defaults() -> Given {
    let on_all = |port| Some(std::net::SocketAddr::from(([0, 0, 0, 0], port)));
    let ms = |ms| Some(Span(Duration::from_millis(ms)));
    Given {
        data: Some("/var/lib/god".into()),
        grpc_address: on_all(GRPC_PORT),
        peer_address: on_all(PEER_PORT),
        http_address: on_all(HTTP_PORT),
        advertise_grpc: None,
        advertise_peer: None,
        advertise_http: None,
        connections: Some(4_096),
        handshake_timeout: ms(5_000),
        idle_timeout: ms(900_000),
        unread_timeout: ms(30_000),
        seeds: Some(Vec::new()),
        cluster: None,
        zone: Some(String::new()),
        weight: Some(1.0),
        join: Some(JoinChoice::Auto),
        memory: Some(ByteSize(256 << 20)),
        durability: Some(DurabilityChoice::Interval),
        sync_interval: ms(100),
        disk_reserve: Some(ByteSize(64 << 20)),
        gossip: Some(Switch(true)),
        gossip_interval: ms(200),
        gossip_fanout: Some(3),
        ping_interval: ms(500),
        virtual_nodes: Some(10),
        replicas: Some(3),
        write_quorum: None,
        read_quorum: None,
        request_timeout: ms(5_000),
        hedge_delay: ms(20),
        request_memory: Some(ByteSize(256 << 20)),
        hint_limit: Some(ByteSize(64 << 20)),
        transfer_rate: Some(ByteSize(64 << 20)),
        compare_interval: ms(30_000),
        tombstone_age: ms(3_600_000),
        migrate: Some(Switch(true)),
        worker_threads: std::thread::available_parallelism().ok().map(|cores| cores.get() as u32),
        log: Some("info".to_owned()),
        log_format: Some(LogFormat::Text),
    }
}
