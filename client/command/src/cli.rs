//! What can be typed: options that every command knows, and the commands.

use crate::{
    bench, completion, context::parse_consistency, count, del, dev, doctor, export, failure::EXIT_CODES, get,
    init, keyspace, load, put, rank, recover, ring, scan, select, status, text::Encoding,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use god_client::Consistency;
use god_proto::time::parse_time;
use std::{net::Ipv6Addr, time::Duration};

const EXAMPLES: &str = "\
Examples:
  god status                               how is the cluster?
  god doctor                               what is wrong with it, and what to do
  god put colour blue                      write
  god get colour                           read: prints the bare value
  god scan --prefix user/ --limit 20       keys in order, of an ordered keyspace
  god count --from a --before b            how many keys are in a range
  god load names.tsv -k names              load a file
  god dev --nodes 3 --data ./try           three nodes on this machine, to try things out

`god COMMAND --help` has examples of each command.";

/// Reads, writes and watches a GoD cluster.
#[derive(Parser, Debug)]
#[command(
    name = "god",
    version,
    about = "Reads, writes and watches a GoD cluster",
    after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"),
    max_term_width = 100,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

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

    /// How long a call may take, e.g. 500ms or 5s (default: what the node is set to)
    #[arg(long, value_name = "TIME", value_parser = parse_duration, global = true)]
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

/// One variant a command; each has a file of its own.
#[derive(Subcommand, Debug)]
pub enum Command {
    Init(init::InitArgs),
    Status(status::StatusArgs),
    Doctor(doctor::DoctorArgs),
    Ring(ring::RingArgs),
    Recover(recover::RecoverArgs),
    Keyspace(keyspace::KeyspaceArgs),
    Put(put::PutArgs),
    Get(get::GetArgs),
    Del(del::DelArgs),
    Scan(scan::ScanArgs),
    Count(count::CountArgs),
    Rank(rank::RankArgs),
    Select(select::SelectArgs),
    Load(load::LoadArgs),
    Export(export::ExportArgs),
    Bench(bench::BenchArgs),
    Completion(completion::CompletionArgs),
    #[command(hide = true)]
    Manual(completion::ManualArgs),
    Dev(dev::DevArgs),
}

/// A time in which something may be done.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    match parse_time(text) {
        Ok(duration) if duration.is_zero() => Err("it must be longer than 0".to_owned()),
        Ok(duration) => Ok(duration),
        Err(why) => Err(why.to_string()),
    }
}

/// `host:port`, and more of them after commas; spaces and a comma at the end mean nothing.
pub fn parse_servers(text: &str) -> Result<Servers, String> {
    let servers = text.split(',').map(str::trim).filter(|server| !server.is_empty());
    let servers = servers.map(parse_server).collect::<Result<Vec<_>, _>>()?;
    if servers.is_empty() { Err(format!("it names no server; {SERVER}")) } else { Ok(Servers(servers)) }
}

const SERVER: &str = "write HOST:PORT, such as 127.0.0.1:7000 or [::1]:7000";

/// `host:port`; an IPv6 address in brackets.
fn parse_server(text: &str) -> Result<String, String> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("{text:?} has no port; {SERVER}"));
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        // All that a name or an IPv4 address is made of: nothing that has a meaning in a URL.
        None => {
            !host.is_empty()
                && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        }
    };
    if !is_host {
        return Err(format!("{host:?} is no host; {SERVER}"));
    }
    // A sign is no part of a port, though a number may have one.
    match port.parse::<u16>() {
        Ok(1..) if !port.starts_with('+') => Ok(text.to_owned()),
        _ => Err(format!("{port:?} is no port; {SERVER}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does_and_shows_an_example() {
        let command = Cli::command();
        for sub in command.get_subcommands() {
            let name = sub.get_name();
            assert!(sub.get_about().is_some(), "{name} has no description");
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("god {name}")), "{name} has no example");
        }
    }

    #[test]
    fn a_server_needs_a_host_and_a_port() {
        for right in ["db-0.db:7000", "[::1]:7000", "my_host:1", "10.0.0.1:65535", "[::ffff:10.0.0.1]:7000"] {
            assert_eq!(parse_server(right).as_deref(), Ok(right));
        }
        for wrong in [
            "db",
            ":7000",
            "db:",
            "db:0",
            "db:70000",
            "db:+7000",
            "::1:7000",
            "http://db:7000",
            "user@host:7000",
            "host?x:7000",
            "host#x:7000",
            "a b:7000",
            "[]:7000",
            "[db]:7000",
            "[::1:7000",
            "host/:7000",
            "hö:7000",
        ] {
            let refused = parse_server(wrong).unwrap_err();
            assert!(refused.contains("write HOST:PORT"), "{wrong}: {refused}");
        }
    }

    #[test]
    fn servers_come_as_a_list_or_one_by_one() {
        let cli = Cli::try_parse_from(["god", "status", "--server", "a:1,b:2", "--server", "c:3"]).unwrap();
        assert_eq!(cli.global.servers(), ["a:1", "b:2", "c:3"]);
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
    fn put_and_keyspace_create_take_the_same_times_to_live() {
        for command in [&["god", "put", "k", "v"][..], &["god", "keyspace", "create", "names"]] {
            let parse = |ttl: &str| Cli::try_parse_from([command, &["--ttl", ttl]].concat());
            assert!(parse("1h").is_ok() && parse("1ms").is_ok() && parse("366000days").is_ok());
            for wrong in ["500us", "1500us", "0s", "300000years", "18446744073709552s", "1M", "1"] {
                let refused = parse(wrong).unwrap_err().to_string();
                assert!(refused.contains(wrong) && refused.contains("--ttl"), "{refused}");
            }
        }
    }
}
