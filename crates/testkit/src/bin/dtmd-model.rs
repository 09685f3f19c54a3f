//! Searches every reachable state of small transactions: `dtmd-model`, or `dtmd-model --large`.
#![allow(clippy::print_stdout, reason = "this program's output is its purpose")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dtmd_protocol::Mode;
use dtmd_testkit::Bug;
use dtmd_testkit::model::{Transaction, search};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let large = words.iter().any(|word| word == "--large");
    let after_bug = words.iter().skip_while(|word| *word != "--bug").nth(1);
    let bug = after_bug.and_then(|name| Bug::parse(name));
    let saga = |concurrent| Mode::Saga { concurrent, orders: Arc::from([]) };
    let more = usize::from(large);
    let cases = [
        ("saga", saga(false), 3, 2 + more),
        ("concurrent saga", saga(true), 2 + more, 2),
        ("tcc", Mode::Tcc, 2 + more, 2),
        ("msg", Mode::Msg { delay: Duration::ZERO }, 2 + more, 2 + more),
        ("xa", Mode::Xa, 2, 2),
    ];
    let mut failed = false;
    for (name, mode, branches, drivers) in cases {
        let begun = Instant::now();
        let states_max = if large { 40_000_000 } else { 4_000_000 };
        let found = search(&Transaction::new(mode, branches, drivers, bug), states_max);
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "{name}, {branches} branches, {drivers} servers: {} states, {} transitions in {seconds:.1} s{}",
            found.states,
            found.transitions,
            if found.complete { "" } else { " (not all)" }
        );
        if let Some((violation, story)) = found.violation {
            println!("{violation}\n  {}", story.join("\n  "));
            failed = true;
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
