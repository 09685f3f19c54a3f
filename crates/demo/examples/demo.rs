//! Runs the demo against any `dtmd` binary:
//! `cargo run -p dtmd-demo --example demo -- target/debug/dtmd saga kill`.

use anyhow::Context as _;
use dtmd_demo::{DemoOptions, run_demo};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let binary = args.next().context("the first argument is the dtmd binary")?;
    let modes = args.map(|word| word.parse()).collect::<Result<_, String>>();
    let modes = modes.map_err(anyhow::Error::msg)?;
    let options = DemoOptions { modes, binary: Some(binary.into()), ..DemoOptions::default() };
    run_demo(options).await.map(drop)
}
