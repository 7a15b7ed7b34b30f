//! Compiles the protocol files without a system `protoc`.

use prost::Message as _;
use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let files = ["god/v1/ring.proto", "god/v1/store.proto", "god/v1/cluster.proto", "god/peer/v1/peer.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").build_server(false).compile_fds(descriptors.clone())?;
    // Servers of the same messages, with a codec of their own.
    let servers = out.join("servers");
    fs::create_dir_all(&servers)?;
    tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::codec::ServerCodec")
        .extern_path(".god.v1", "crate::v1")
        .extern_path(".god.peer.v1", "crate::peer")
        .out_dir(servers)
        .compile_fds(descriptors)?;
    Ok(())
}
