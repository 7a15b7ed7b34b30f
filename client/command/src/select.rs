//! `god select`: the key that has a number of keys before it.

use crate::{
    context::Context,
    failure::Failure,
    options::Output,
    output,
    records::{WriteFormat, write_entry},
    scan,
};
use clap::Args;
use std::io;

/// Prints the key that has so many keys before it
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god select 0                                   the first key
  god select $(( $(god count) / 2 ))             the median

Exit codes: 0 found, 1 there are not so many keys.")]
pub struct SelectArgs {
    /// How many keys are before it
    rank: u64,
}

pub async fn run(context: &Context, args: &SelectArgs) -> Result<(), Failure> {
    let Some(entry) = context.select(args.rank).await? else {
        return Err(Failure::NotFound(format!(
            "not found: keyspace {} has {} keys or fewer",
            context.name(),
            args.rank
        )));
    };
    if context.output() == Output::Table {
        let mut out = io::stdout().lock();
        return write_entry(&mut out, WriteFormat::Tsv, context.encodings(), &entry.key, Some(&entry.value))
            .map_err(|error| Failure::of_output(&error));
    }
    let json = scan::json(context, &entry, Some(&entry.value));
    output::document(context.output(), &json, String::new)
}
