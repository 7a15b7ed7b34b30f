//! `god rank`: how many keys are before a key.

use crate::{context::Context, failure::Failure, input, output};
use clap::Args;
use god_client::Rank;
use serde_json::json;
use std::ffi::OsString;

/// Prints how many keys are before a key
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god rank m
  god select \"$(god rank m)\"                     the key itself, or the next one

A key that is not there has a rank all the same: where it would be. With -o json, `exists` tells.")]
pub struct RankArgs {
    /// The key; - reads it from stdin
    key: OsString,
}

pub async fn run(context: &Context, args: &RankArgs) -> Result<(), Failure> {
    let key = input::key(&args.key, context.encodings().0)?;
    let Rank { rank, exists } = context.rank(key).await?;
    output::document(context.output(), &json!({ "rank": rank, "exists": exists }), || rank.to_string())
}
