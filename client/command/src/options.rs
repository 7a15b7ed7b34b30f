//! Options that every command knows, and how what is typed is read. Below the commands, which take from here.

use crate::text::Encoding;
use clap::{Args, ValueEnum};
use god_client::Consistency;
use god_proto::{MAX_TIMEOUT, address::check_address, time::parse_time};
use std::time::Duration;

/// Options that every command knows.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Nodes to ask, any of them; the client finds the others by itself
    #[arg(
        long,
        env = "GOD_SERVER",
        value_name = "HOST:PORT,…",
        default_value = "127.0.0.1:7000",
        value_parser = parse_servers,
        global = true
    )]
    pub server: Vec<Servers>,

    /// The keyspace to read and write
    #[arg(short, long, env = "GOD_KEYSPACE", value_name = "NAME", default_value = "default", global = true)]
    pub keyspace: String,

    /// How answers are printed
    #[arg(short, long, env = "GOD_OUTPUT", value_enum, default_value_t, global = true)]
    pub output: Output,

    /// How long a call may take, e.g. 500ms or 20s; 30s at most (default: 15s, of bench 5s)
    #[arg(long, value_name = "TIME", value_parser = parse_timeout, global = true)]
    pub timeout: Option<Duration>,

    /// How many replicas must answer: one, quorum, all or a number (default: the keyspace's own)
    #[arg(long, value_name = "LEVEL", value_parser = parse_consistency, global = true)]
    pub consistency: Option<Consistency>,

    /// How keys are written on the command line, in files and in answers
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, global = true)]
    pub key_format: Encoding,

    /// How values are written on the command line, in files and in answers
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, global = true)]
    pub value_format: Encoding,
}

/// Nodes that were named together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers(pub Vec<String>);

impl Global {
    /// All nodes that were named.
    pub fn servers(&self) -> Vec<String> {
        self.server.iter().flat_map(|servers| servers.0.iter().cloned()).collect()
    }
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    // For people.
    #[default]
    Table,
    // For programs: one document, or one a line where there are many.
    Json,
    // For programs and people.
    Yaml,
}

/// A time in which something may be done.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    match parse_time(text) {
        Ok(duration) if duration.is_zero() => Err("it must be longer than 0".to_owned()),
        Ok(duration) => Ok(duration),
        Err(why) => Err(why.to_string()),
    }
}

/// How long a call may take: no longer than nodes let any.
fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        timeout if timeout > MAX_TIMEOUT => {
            Err(format!("no node gives a call more than {}", humantime::format_duration(MAX_TIMEOUT)))
        }
        timeout => Ok(timeout),
    }
}

/// `host:port`, and more of them after commas; spaces and a comma at the end mean nothing.
pub fn parse_servers(text: &str) -> Result<Servers, String> {
    let servers = text.split(',').map(str::trim).filter(|server| !server.is_empty());
    let servers = servers.map(parse_server).collect::<Result<Vec<_>, _>>()?;
    if servers.is_empty() { Err(format!("it names no server; {SERVER}")) } else { Ok(Servers(servers)) }
}

const SERVER: &str = "write HOST:PORT, such as 127.0.0.1:7000 or [::1]:7000";

fn parse_server(text: &str) -> Result<String, String> {
    check_address(text).map_err(|why| format!("{why}; {SERVER}"))?;
    Ok(text.to_owned())
}

/// How many replicas must answer, as it is typed.
pub fn parse_consistency(text: &str) -> Result<Consistency, String> {
    match text {
        "one" => Ok(Consistency::One),
        "quorum" => Ok(Consistency::Quorum),
        "all" => Ok(Consistency::All),
        number => match number.parse::<u32>() {
            Ok(count @ 1..) => Ok(Consistency::Count(count)),
            _ => Err("write one, quorum, all, or how many replicas must answer, from 1 up".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_names_no_server_is_told_how_to() {
        assert_eq!(parse_server("[::1]:7000").as_deref(), Ok("[::1]:7000"));
        for wrong in ["db", "db:0", "user@host:7000"] {
            let refused = parse_server(wrong).unwrap_err();
            assert!(refused.contains("write HOST:PORT"), "{wrong}: {refused}");
        }
    }

    #[test]
    fn a_list_of_servers_bears_spaces_and_a_comma_at_its_end() {
        assert_eq!(parse_servers(" a:1, b:2 ,,c:3, ").unwrap().0, ["a:1", "b:2", "c:3"]);
        for wrong in ["", " ", ",", "a:1,b"] {
            assert!(parse_servers(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_time_has_a_unit_and_is_not_zero() {
        assert_eq!(parse_duration("1500ms").unwrap(), Duration::from_millis(1500));
        for wrong in ["0s", "5", "1M", "1100years"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_call_is_given_longer_than_nodes_give_it() {
        assert_eq!(parse_timeout("30s"), Ok(MAX_TIMEOUT));
        for wrong in ["30001ms", "10m", "0s"] {
            assert!(parse_timeout(wrong).is_err(), "{wrong}");
        }
        assert!(parse_timeout("10m").unwrap_err().contains("30s"));
    }

    #[test]
    fn a_consistency_is_a_name_or_a_number_of_replicas() {
        assert_eq!(parse_consistency("2"), Ok(Consistency::Count(2)));
        assert_eq!(parse_consistency("all"), Ok(Consistency::All));
        assert!(parse_consistency("0").is_err());
        assert!(parse_consistency("most").is_err());
    }
}
