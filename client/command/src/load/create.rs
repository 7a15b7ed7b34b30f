//! Making the keyspace that a file is loaded into, cut where the file's keys are.

use super::{
    CreateAs,
    feed::{Fed, Source},
};
use crate::{
    context::Context,
    failure::Failure,
    keyspace::{parse_name, quorums},
    records::Sample,
};
use bytes::Bytes;
use god_proto::{
    DEFAULT_KEYSPACE,
    v1::{CreateKeyspaceRequest, Mode, Partitioner, Reason},
};

/// The most cuts that are asked for.
const MAX_PARTS: usize = 1_024;

/// Makes the keyspace if it is not there, with as many copies as `default` has.
pub async fn create(context: &Context, source: &Source, order: CreateAs) -> Result<(), Failure> {
    let keyspaces = context.client().list_keyspaces().await?;
    if keyspaces.iter().any(|keyspace| keyspace.name == context.name()) {
        return Ok(());
    }
    parse_name(context.name()).map_err(Failure::Usage)?;
    let (replicas, write_quorum, read_quorum) =
        if let Some(like) = keyspaces.iter().find(|keyspace| keyspace.name == DEFAULT_KEYSPACE) {
            (like.replicas, like.write_quorum, like.read_quorum)
        } else {
            let (write, read) = quorums(3, None, None)?;
            (3, write, read)
        };
    let splits = match order {
        CreateAs::Ordered if !source.is_stdin() => splits(context, source).await?,
        CreateAs::Ordered | CreateAs::Hashed => Vec::new(),
    };
    let partitioner = match order {
        CreateAs::Ordered => Partitioner::Ordered,
        CreateAs::Hashed => Partitioner::Hashed,
    };
    let request = CreateKeyspaceRequest {
        name: context.name().to_owned(),
        partitioner: partitioner.into(),
        replicas,
        write_quorum,
        read_quorum,
        mode: Mode::Lww.into(),
        default_ttl_ms: 0,
        splits,
        under_replicated: false,
    };
    match context.client().create_keyspace(request).await {
        Ok(_) => Ok(()),
        // Somebody else made it meanwhile.
        Err(error) if error.reason() == Some(Reason::Exists) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Reads the file once for its keys: as many parts as the nodes lead arcs.
async fn splits(context: &Context, source: &Source) -> Result<Vec<Bytes>, Failure> {
    let ring = context.client().ring().await?;
    let weights: f64 = ring.nodes.iter().map(|node| node.weight).sum();
    let parts = (weights * f64::from(ring.virtual_nodes)).round() as usize;
    let mut sample = Sample::default();
    let mut fed = source.feed()?;
    while let Some(fed) = fed.recv().await {
        match fed {
            Fed::Record { record, .. } => sample.add(record.key),
            // Told when it is loaded.
            Fed::Bad { .. } => {}
            Fed::Failed(error) => return Err(source.failed(&error)),
        }
    }
    Ok(sample.split_points(parts.clamp(1, MAX_PARTS)))
}
