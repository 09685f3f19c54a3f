//! A bank as a process, without the `dtmd` binary: `dtmd-demo-bank bank --data FILE --name a`.
//!
//! It takes the same words as `dtmd bank`, so it stands in for it in this crate's own tests.

/// Runs the bank until it is ended.
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = std::env::args().skip(1).skip_while(|word| word == "bank").collect();
    dtmd_demo::bank::run_process(args).await
}
