//! `god init`: founds a cluster.

use crate::{context::Context, failure::Failure, output};
use clap::Args;
use god_proto::v1::InitRequest;
use serde_json::json;

/// Founds a cluster on one node, once
///
/// The other nodes join it: start them with --seed and this node's peer address.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  god init --server db-0:7000
  god init --replicas 5 --write-quorum 3 --read-quorum 3

What is not said is taken from the node's own settings; quorums follow from --replicas where that is said. The keyspace `default` is made with the cluster.")]
pub struct InitArgs {
    /// Copies of each key of the keyspace `default`
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    replicas: Option<u32>,
    /// Copies that must acknowledge a write
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    write_quorum: Option<u32>,
    /// Copies that must answer a read
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    read_quorum: Option<u32>,
    /// Arcs a node of weight 1 leads in each keyspace
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    virtual_nodes: Option<u32>,
    /// Take writes while there are fewer nodes than copies, but enough to acknowledge them
    #[arg(long)]
    under_replicated: bool,
}

pub async fn run(context: &Context, args: &InitArgs) -> Result<(), Failure> {
    let request = InitRequest {
        replicas: args.replicas.unwrap_or_default(),
        write_quorum: args.write_quorum.unwrap_or_default(),
        read_quorum: args.read_quorum.unwrap_or_default(),
        virtual_nodes: args.virtual_nodes.unwrap_or_default(),
        under_replicated: args.under_replicated,
    };
    let cluster = context.client().init(request).await?.to_string();
    output::report(context.output(), &json!({ "cluster": cluster }), || {
        format!(
            "founded cluster {cluster}\nstart other nodes with --seed and this node's peer address; then: god status"
        )
    });
    Ok(())
}
