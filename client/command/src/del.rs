//! `god del`: deletes keys.

use crate::{
    context::Context,
    failure::Failure,
    input,
    output::WorkOutput,
    put::{written_json, written_text},
    text::shown,
};
use clap::Args;
use std::ffi::OsString;

/// Deletes keys
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god del colour
  god del session/7 session/8

A key that is not there is deleted as well: the deletion is remembered, so that an older write which is still on its
way does not bring it back.

Exit codes: 0 deleted, 3 refused (nothing was written), 4 unknown (it may surface later), 5 unreachable.")]
pub struct DelArgs {
    /// The keys; - reads one from stdin
    #[arg(required = true)]
    key: Vec<OsString>,
}

pub async fn run(context: &Context, args: &DelArgs) -> Result<(), Failure> {
    let mut report = WorkOutput::default();
    for typed in &args.key {
        let key = input::key(typed, context.encodings().0)?;
        let written = context.delete(key.clone()).await?;
        report.document(context.output(), &written_json(&written), || {
            let which = if args.key.len() > 1 { format!("{}: ", shown(&key)) } else { String::new() };
            which + &written_text("deleted", &written)
        });
    }
    Ok(())
}
