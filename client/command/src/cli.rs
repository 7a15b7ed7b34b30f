//! What can be typed: the commands.

use crate::{
    bench, completion, count, del, dev, doctor, export, failure::EXIT_CODES, get, init, keyspace, load,
    options::Global, put, rank, recover, ring, scan, select, status,
};
use clap::{Parser, Subcommand};

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
    fn servers_come_as_a_list_or_one_by_one() {
        let cli = Cli::try_parse_from(["god", "status", "--server", "a:1,b:2", "--server", "c:3"]).unwrap();
        assert_eq!(cli.global.servers(), ["a:1", "b:2", "c:3"]);
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
