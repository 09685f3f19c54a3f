//! Compiles the `.proto` files, without a system protoc.

use std::error::Error;
use std::path::Path;

use prost::Message as _;

const ROOT: &str = "../../proto";
const FILES: [&str; 3] = ["dtmgimp.proto", "workflow.proto", "dtmd/v1/admin.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={ROOT}/{file}");
    }
    let descriptors = protox::compile(FILES, [ROOT])?;
    let out = std::env::var("OUT_DIR")?;
    // The server hands the same descriptors out by reflection.
    std::fs::write(Path::new(&out).join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}
