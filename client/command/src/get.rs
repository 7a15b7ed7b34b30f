//! `god get`: reads a key, and prints the bare value.

use crate::{
    context::Context,
    failure::Failure,
    input,
    options::Output,
    output,
    records::entry_json,
    scan::millis,
    text::{Encoding, shown},
};
use clap::Args;
use std::{
    ffi::OsString,
    io::{self, IsTerminal as _, Write as _},
};

/// Reads a key: prints the bare value
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god get colour
  god get picture > picture.png                  the bytes, nothing added
  god get --value-format hex picture | head -c 16
  god get -o json colour                         with its version
  god get colour || echo none                    exit code 1: not found

Exit codes: 0 found, 1 not found, 3 refused, 5 unreachable.")]
pub struct GetArgs {
    /// The key; - reads it from stdin
    key: OsString,
}

pub async fn run(context: &Context, args: &GetArgs) -> Result<(), Failure> {
    let (key_format, value_format) = context.encodings();
    let key = input::key(&args.key, key_format)?;
    let Some(found) = context.get(key.clone()).await? else {
        return Err(Failure::NotFound(format!("not found: {} in keyspace {}", shown(&key), context.name())));
    };
    if context.output() != Output::Table {
        let mut json = entry_json((key_format, value_format), &key, Some(&found.value));
        json.insert("version".to_owned(), found.version.to_string().into());
        if let Some(at) = found.expires_at {
            json.insert("expires_at_ms".to_owned(), millis(at).into());
        }
        return output::document(context.output(), &json.into(), String::new);
    }
    let mut out = io::stdout().lock();
    let mut print = || {
        match value_format {
            Encoding::Text => out.write_all(&found.value)?,
            Encoding::Hex | Encoding::Base64 => {
                out.write_all(value_format.encode_field(&found.value).as_bytes())?;
            }
        }
        if out.is_terminal() {
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    print().map_err(|error| Failure::of_output(&error))
}
