//! Plays simulated worlds: `dtmd-sim --seeds 1000`, or one with `--seed 7 --trace`.
#![allow(clippy::print_stdout, reason = "this program's output is its purpose")]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;

use dtmd_testkit::Bug;
use dtmd_testkit::sim::{Played, Report, SimOptions, Small, play, shrink};

// A world is made of small, short-lived allocations, of which this allocator makes little.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Worlds played at most while a failing one is made small.
const SHRINK_MAX: u32 = 3_000;

struct Args {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    whole: bool,
    threads: u64,
    options: SimOptions,
}

fn main() -> ExitCode {
    match parse() {
        Err(what) => {
            println!(
                "{what}\nusage: dtmd-sim [--seeds N] [--from S] [--threads N] [--transactions N] [--bug NAME]"
            );
            println!(
                "       dtmd-sim --seed S [--trace] [--only TX,TX,…] [--faults ID,ID,…] [--whole] [--bug NAME]"
            );
            ExitCode::FAILURE
        }
        Ok(args) => match args.seed {
            Some(seed) => one(seed, &args),
            None => many(&args),
        },
    }
}

fn parse() -> Result<Args, String> {
    let mut args = Args {
        seeds: 1000,
        from: 1,
        seed: None,
        whole: false,
        threads: 2,
        options: SimOptions::default(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--trace" {
            args.options.trace = true;
            continue;
        }
        if word == "--whole" {
            args.whole = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        let bad = |what: &str| format!("{word}: {value:?} is not {what}");
        let number = || value.parse::<u64>().map_err(|_| bad("a number"));
        match word.as_str() {
            "--seeds" => args.seeds = number()?,
            "--from" => args.from = number()?,
            "--seed" => args.seed = Some(number()?),
            "--threads" => args.threads = number()?.clamp(1, 64),
            "--transactions" => {
                args.options.transactions = value.parse().map_err(|_| bad("a number"))?;
            }
            "--only" => {
                let numbers: Result<Vec<u32>, _> = value.split(',').map(str::parse).collect();
                args.options.only = Some(numbers.map_err(|_| bad("a list of numbers"))?);
            }
            "--faults" => {
                let ids = value.split(',').filter(|id| !id.is_empty());
                let ids = ids.map(|id| u64::from_str_radix(id, 16));
                let ids: Result<BTreeSet<u64>, _> = ids.collect();
                args.options.faults = Some(ids.map_err(|_| bad("a list of faults"))?);
            }
            "--bug" => {
                args.options.bug = Some(Bug::parse(&value).ok_or_else(|| bad("a known mistake"))?);
            }
            _ => return Err(format!("{word} is not an option")),
        }
    }
    Ok(args)
}

/// Plays one world, made small if it fails.
fn one(seed: u64, args: &Args) -> ExitCode {
    let played = play(seed, &args.options);
    let mut report = Report::default();
    report.add(&played);
    for line in &played.trace {
        println!("{line}");
    }
    let Some(violation) = &played.violation else {
        println!("{report}\nseed {seed}: no violation");
        return ExitCode::SUCCESS;
    };
    println!("seed {seed}: {violation}");
    if !args.whole {
        small(seed, &args.options, &played);
    }
    ExitCode::FAILURE
}

/// Plays many worlds on a few threads; stops at the first that fails.
fn many(args: &Args) -> ExitCode {
    let begun = Instant::now();
    let parts = std::thread::scope(|scope| {
        let play_part = |part: u64| {
            let mut report = Report::default();
            let mut seed = args.from + part;
            while seed < args.from + args.seeds {
                let played = play(seed, &args.options);
                report.add(&played);
                if played.violation.is_some() {
                    return (report, Some(played));
                }
                seed += args.threads;
            }
            (report, None)
        };
        let threads: Vec<_> =
            (0..args.threads).map(|part| scope.spawn(move || play_part(part))).collect();
        threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut report = Report::default();
    let mut failed: Option<Played> = None;
    for part in parts {
        let Ok((part, played)) = part else {
            println!("a world has panicked (I15)");
            return ExitCode::FAILURE;
        };
        report.merge(&part);
        failed = failed.or(played);
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{report}");
    println!("{:.0} transactions a second", report.transactions as f64 / seconds);
    if let Some(played) = failed {
        let (seed, violation) = (played.seed, played.violation.clone());
        println!("seed {seed}: {}", violation.map(|found| found.to_string()).unwrap_or_default());
        small(seed, &args.options, &played);
        return ExitCode::FAILURE;
    }
    let missing = report.missing();
    if !missing.is_empty() && args.options.bug.is_none() {
        println!("not reached, so nothing is proven about it:\n  {}", missing.join("\n  "));
        return ExitCode::FAILURE;
    }
    println!(
        "seeds {} to {}: no violation in {seconds:.1} s",
        args.from,
        args.from + args.seeds - 1
    );
    ExitCode::SUCCESS
}

/// Prints the one command that plays a small version of what failed.
fn small(seed: u64, options: &SimOptions, played: &Played) {
    let Small { options, played } = shrink(seed, options, played, SHRINK_MAX);
    let mut command = format!("cargo xtask sim --seed {seed} --trace --whole");
    if let Some(only) = &options.only {
        let only: Vec<String> = only.iter().map(u32::to_string).collect();
        command += &format!(" --only {}", only.join(","));
    }
    if let Some(faults) = &options.faults {
        let ids: Vec<String> = faults.iter().map(|id| format!("{id:x}")).collect();
        command +=
            &format!(" --faults {}", if ids.is_empty() { ",".into() } else { ids.join(",") });
    }
    if let Some(bug) = options.bug {
        command += &format!(" --bug {}", bug.name());
    }
    if options.transactions != dtmd_testkit::sim::TRANSACTIONS {
        command += &format!(" --transactions {}", options.transactions);
    }
    for (id, kind) in &played.injected {
        println!("  fault {id:x}: {}", kind.name());
    }
    println!("repeat it with:\n  {command}");
}
