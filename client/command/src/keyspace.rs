//! `god keyspace`: making, listing and deleting keyspaces.

use crate::{
    context::Context,
    failure::Failure,
    figures::counted,
    input,
    output::{self, render},
    ring::{cells, keyspace_json},
};
use clap::{Args, Subcommand};
use god_client::{Error, Range};
use god_proto::{
    keyspace::{check_name, default_quorums},
    time::ttl_ms,
    v1::{CreateKeyspaceRequest, Keyspace, Mode, Partitioner, Reason, Rejected},
};
use serde_json::json;
use std::{ffi::OsString, time::Duration};

/// What stands for a quorum that was left out.
const LEFT_OUT: u32 = 0;

/// Makes, lists and deletes keyspaces
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god keyspace list
  god keyspace create sessions --ttl 1h
  god keyspace create names --ordered --split g --split p
  god keyspace delete sessions            say what would be deleted
  god keyspace delete sessions --yes      delete it")]
pub struct KeyspaceArgs {
    #[command(subcommand)]
    command: KeyspaceCommand,
}

#[derive(Subcommand, Debug)]
enum KeyspaceCommand {
    /// Makes a keyspace
    Create(CreateArgs),
    /// Lists all keyspaces
    List,
    /// Deletes a keyspace with all that it holds; without --yes it only says what that is
    Delete(DeleteArgs),
}

#[derive(Args, Debug)]
struct CreateArgs {
    /// 1 to 64 letters, digits, '-', '_' or '.', the first one a letter, a digit or '_'
    #[arg(value_parser = parse_name)]
    name: String,
    /// Keep keys in the order of their bytes, instead of spreading them by their hash
    #[arg(long)]
    ordered: bool,
    /// Copies of each key, up to 16
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=16))]
    replicas: u32,
    /// Copies that must acknowledge a write (default: more than half)
    #[arg(long, value_name = "N")]
    write_quorum: Option<u32>,
    /// Copies that must answer a read (default: more than half, and as many as see every acknowledged write)
    #[arg(long, value_name = "N")]
    read_quorum: Option<u32>,
    /// Forget entries after this long, where a write says nothing else
    #[arg(long, value_name = "TIME", value_parser = god_proto::time::parse_ttl)]
    ttl: Option<Duration>,
    /// Cut an ordered keyspace at this key; more than once for more cuts (default: evenly by first byte)
    #[arg(long = "split", value_name = "KEY", requires = "ordered")]
    splits: Vec<OsString>,
    /// Take writes while there are fewer nodes than copies, but enough to acknowledge them
    #[arg(long)]
    under_replicated: bool,
}

#[derive(Args, Debug)]
struct DeleteArgs {
    /// The keyspace
    name: String,
    /// Do it. Nothing brings it back
    #[arg(long)]
    yes: bool,
}

pub async fn run(context: &Context, args: KeyspaceArgs) -> Result<(), Failure> {
    match args.command {
        KeyspaceCommand::List => list(context).await,
        KeyspaceCommand::Create(args) => create(context, &args).await,
        KeyspaceCommand::Delete(args) => delete(context, &args).await,
    }
}

async fn create(context: &Context, args: &CreateArgs) -> Result<(), Failure> {
    let key_format = context.encodings().0;
    let splits =
        args.splits.iter().map(|split| input::key(split, key_format)).collect::<Result<Vec<_>, _>>()?;
    let (write_quorum, read_quorum) = quorums(args.replicas, args.write_quorum, args.read_quorum)?;
    let request = CreateKeyspaceRequest {
        name: args.name.clone(),
        partitioner: if args.ordered { Partitioner::Ordered } else { Partitioner::Hashed }.into(),
        replicas: args.replicas,
        write_quorum,
        read_quorum,
        mode: Mode::Lww.into(),
        default_ttl_ms: args.ttl.map_or(Ok(0), ttl_ms).map_err(|why| Failure::Usage(why.to_string()))?,
        splits,
        under_replicated: args.under_replicated,
    };
    let keyspace = context.client().create_keyspace(request).await?;
    output::report(context.output(), &keyspace_json(&keyspace), || {
        format!("made keyspace\n{}", table(std::slice::from_ref(&keyspace)))
    });
    Ok(())
}

async fn delete(context: &Context, args: &DeleteArgs) -> Result<(), Failure> {
    let DeleteArgs { name, yes } = args;
    let client = context.client();
    let found = client.list_keyspaces().await?.into_iter().find(|keyspace| keyspace.name == *name);
    let Some(found) = found else {
        let (reason, message) = (Reason::NoSuchKeyspace.into(), format!("there is no keyspace {name}"));
        return Err(Error::from(Rejected { reason, message, retry_after_ms: 0 }).into());
    };
    // What it holds is told where it can be: one that is out of reach can be deleted all the same.
    let held = client.keyspace(name.as_str()).count(Range::all()).await;
    let keys = held.as_ref().ok();
    let document = json!({ "done": yes, "keyspace": keyspace_json(&found), "keys": keys });
    let what = match &held {
        Ok(keys) => counted(*keys, "key"),
        Err(error) => format!("keys that could not be counted ({error})"),
    };
    if !yes {
        return output::document(context.output(), &document, || {
            format!(
                "would delete keyspace {name} with {what}\nnothing was changed; add --yes to do it\n{}",
                table(std::slice::from_ref(&found))
            )
        });
    }
    client.delete_keyspace(name, found.id).await?;
    output::report(context.output(), &document, || format!("deleted keyspace {name} with {what}"));
    Ok(())
}

/// The name of a keyspace that is to be made.
pub fn parse_name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned())
}

/// What is left out follows from the copies, as it does at the node.
pub fn quorums(replicas: u32, write: Option<u32>, read: Option<u32>) -> Result<(u32, u32), Failure> {
    let check = |name: &str, quorum: Option<u32>| match quorum {
        None => Ok(LEFT_OUT),
        Some(0) => Err(Failure::Usage(format!("{name} is 0; at least one replica must answer"))),
        Some(quorum) if quorum > replicas => {
            Err(Failure::Usage(format!("{name} {quorum} exceeds replicas {replicas}")))
        }
        Some(quorum) => Ok(quorum),
    };
    Ok(default_quorums(replicas, check("write-quorum", write)?, check("read-quorum", read)?))
}

async fn list(context: &Context) -> Result<(), Failure> {
    let keyspaces = context.client().list_keyspaces().await?;
    let json = keyspaces.iter().map(keyspace_json).collect();
    output::document(context.output(), &json, || table(&keyspaces))
}

fn table(keyspaces: &[Keyspace]) -> String {
    let mut table = output::table(
        &["name", "order", "replicas", "write", "read", "mode", "ttl"],
        &["replicas", "write", "read", "ttl"],
    );
    for keyspace in keyspaces {
        let ttl = match keyspace.default_ttl_ms {
            0 => "-".to_owned(),
            ms => humantime::format_duration(Duration::from_millis(ms)).to_string(),
        };
        table.add_row(cells(keyspace).into_iter().chain([ttl]));
    }
    render(table)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_impossible_quorum_is_refused_before_it_is_sent() {
        assert_eq!(quorums(3, None, None).unwrap(), (2, 2));
        assert_eq!(quorums(3, Some(1), Some(1)).unwrap(), (1, 1));
        assert_eq!(quorums(3, Some(4), None).unwrap_err().to_string(), "write-quorum 4 exceeds replicas 3");
        assert!(quorums(3, None, Some(0)).is_err());
    }

    #[test]
    fn quorums_that_are_left_out_are_those_that_a_node_would_take() {
        for replicas in 1..=16 {
            assert_eq!(quorums(replicas, None, None).unwrap(), default_quorums(replicas, 0, 0));
            for write in 1..=replicas {
                assert_eq!(
                    quorums(replicas, Some(write), None).unwrap(),
                    default_quorums(replicas, write, 0)
                );
            }
        }
    }
}
