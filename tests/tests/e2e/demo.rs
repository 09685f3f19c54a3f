//! `dtmd demo --protocol grpc`: a server, banks and an application that talk gRPC, and what goes
//! wrong between them. Over HTTP the modes have tests of their own here.

use dtmd_demo::printer::Color;
use dtmd_demo::{DemoMode, DemoOptions, DemoProtocol, run_demo};
use dtmd_tests::binary;

/// The demo checks every balance, status and call itself; an error tells what was wrong.
#[tokio::test]
async fn every_scenario_over_grpc_ends_as_it_must() {
    let options = DemoOptions {
        modes: vec![DemoMode::All],
        protocol: DemoProtocol::Grpc,
        binary: Some(binary()),
        color: Color::Never,
        ..DemoOptions::default()
    };
    let summary = run_demo(options).await.unwrap();
    let of = |mode: &str, status: &str| {
        let its = summary.scenarios.iter().filter(|scenario| scenario.name.starts_with(mode));
        its.filter(|scenario| scenario.status == status).count()
    };
    for mode in ["saga", "msg", "tcc", "workflow"] {
        assert!(of(mode, "succeed") > 0 && of(mode, "failed") > 0, "{mode}: {summary:?}");
    }
    assert_eq!(of("xa", "succeed") + of("xa", "failed"), 0, "XA is HTTP only");
    let killed = summary.scenarios.iter().filter(|scenario| scenario.name.contains("killed"));
    assert_eq!(killed.count(), 4, "{summary:?}");
}
