//! `god count`: how many keys are in a range.

use crate::{context::Context, failure::Failure, output, range::RangeArgs};
use clap::Args;
use serde_json::json;

/// Counts the keys of a range, exactly
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god count
  god count --prefix user/
  god count --from 2024 --before 2025

The cost does not grow with the number of keys.")]
pub struct CountArgs {
    #[command(flatten)]
    range: RangeArgs,
}

pub async fn run(context: &Context, args: &CountArgs) -> Result<(), Failure> {
    let count = context.count(args.range.range(context.encodings().0)?).await?;
    output::document(context.output(), &json!({ "count": count }), || count.to_string())
}
