//! A tour of the client, to copy from. Against the cluster of `make run`, or any other one:
//!
//! ```text
//! cargo run --release -p god-client --example tour -- 127.0.0.1:7000
//! ```

use futures::TryStreamExt;
use god_client::{Client, Consistency, Error, Range};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Error> {
    // One server is enough: the client finds the others. Clones of it share its connections.
    let server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let client = Client::builder().servers([server]).timeout(Duration::from_secs(2)).connect().await?;
    let keyspace = client.keyspace("default");

    // A write says on how many replicas it is, or that nothing was written, or that this is not known.
    match keyspace.put("tour/colour", "blue").await {
        Ok(written) => println!("written on {} replicas, version {}", written.acks, written.version),
        Err(Error::Unknown { message, .. }) => println!("perhaps written, or later: {message}"),
        Err(error) => return Err(error),
    }
    let found = keyspace.get("tour/colour").await?;
    println!("colour: {:?}", found.map(|found| found.value));
    keyspace.put_with_ttl("tour/brief", "gone in a minute", Duration::from_mins(1)).await?;

    // Calls made at the same time travel together.
    let keys = (0..1_000).map(|number| format!("tour/{number:04}"));
    let writes = keys.map(|key| keyspace.put(key, "some value"));
    futures::future::try_join_all(writes).await?;

    // In order: a `hashed` keyspace, as `default` is, has the order of the keys' hashes.
    println!("{} keys", keyspace.count(Range::all()).await?);
    let mut scan = keyspace.scan(..).limit(3);
    while let Some(entry) = scan.try_next().await? {
        println!("  {:?} = {:?}", entry.key, entry.value);
    }
    let middle = keyspace.select(keyspace.count(..).await? / 2).await?;
    println!("in the middle: {:?}", middle.map(|entry| entry.key));

    // Fast reads that may miss what others have just written, and in a session never what it wrote itself.
    let session = client.session();
    let mine = session.keyspace("default").with_reads(Consistency::One);
    mine.put("tour/mine", "new").await?;
    println!("mine: {:?}", mine.get("tour/mine").await?.map(|found| found.value));

    keyspace.delete("tour/colour").await?;
    println!("deleted: {}", keyspace.get("tour/colour").await?.is_none());
    Ok(())
}
