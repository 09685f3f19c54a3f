//! Retry, stop and abort, for named transactions or for all that a filter finds.

use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::client::{ApiClient, ClientError};
use super::client_args::{ChosenArgs, FilterArgs, OutputFormat};
use super::export::Pages;
use super::{EXIT_OK, EXIT_REFUSED, commands, render};

/// What is done with each.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Retry,
    Stop,
    Abort { reason: Option<String> },
}

/// A transaction to act on.
struct Chosen {
    gid: String,
    /// Empty if it was named, and not needed yet.
    trans_type: String,
    status: String,
}

impl Act {
    fn word(&self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Stop => "stop",
            Self::Abort { .. } => "abort",
        }
    }

    /// The statuses in which it can be done.
    fn statuses(&self) -> &'static [&'static str] {
        match self {
            Self::Retry | Self::Stop => &["prepared", "submitted", "aborting"],
            Self::Abort { .. } => &["prepared"],
        }
    }

    /// What is said when it is done.
    fn done(&self) -> &'static str {
        match self {
            Self::Retry => "its branches are due now",
            Self::Stop => "stopped; it is failed, nothing was undone",
            Self::Abort { .. } => "aborting; `dtmd tx get` shows how far it is",
        }
    }

    async fn call(&self, api: &ApiClient, chosen: &Chosen) -> Result<Value, ClientError> {
        let gid = &chosen.gid;
        match self {
            Self::Retry => api.post("resetNextCronTime", &json!({ "gid": gid })).await,
            Self::Stop => api.post("forceStop", &json!({ "gid": gid })).await,
            Self::Abort { reason } => {
                // The request has to repeat the mode (spec 01 §2.3), which an operator need not
                // know.
                let trans_type = match chosen.trans_type.as_str() {
                    "" => {
                        let found = commands::query(api, gid).await?;
                        render::member(&found["transaction"], "trans_type")
                    }
                    known => known.to_owned(),
                };
                let mut body = json!({ "gid": gid, "trans_type": trans_type });
                if let Some(reason) = reason {
                    body["rollback_reason"] = reason.as_str().into();
                }
                api.post("abort", &body).await
            }
        }
    }
}

/// Acts on what was chosen; returns the exit code.
pub(super) async fn run(
    api: &ApiClient,
    act: &Act,
    args: ChosenArgs,
    output: OutputFormat,
    out: &mut dyn Write,
) -> Result<u8, ClientError> {
    if let ([gid], false) = (args.gids.as_slice(), args.dry_run) {
        let (trans_type, status) = (String::new(), String::new());
        let chosen = Chosen { gid: gid.clone(), trans_type, status };
        let answer = act.call(api, &chosen).await?;
        let text = format!("{gid}: {}", act.done());
        say(out, &commands::done(&answer, output, &text))?;
        return Ok(EXIT_OK);
    }
    let by_filter = args.gids.is_empty();
    if by_filter && !args.all && args.filter.is_empty() {
        return Err(ClientError::Usage(format!(
            "say which: `dtmd tx {0} GID`, or a filter such as --status or --older-than, or --all",
            act.word()
        )));
    }
    let chosen = choose(api, act, &args).await?;
    if args.dry_run {
        return list(&chosen, act, output, out);
    }
    // Trying again earlier can do no harm; the others cannot be taken back.
    if by_filter && !args.yes && !matches!(act, Act::Retry) {
        return Err(ClientError::Usage(format!(
            "{} transactions would be asked to {}: --dry-run lists them, --yes does it",
            chosen.len(),
            act.word()
        )));
    }
    act_on(api, act, &chosen, output, out).await
}

async fn choose(api: &ApiClient, act: &Act, args: &ChosenArgs) -> Result<Vec<Chosen>, ClientError> {
    if !args.gids.is_empty() {
        let named = |gid: &String| Chosen {
            gid: gid.clone(),
            trans_type: String::new(),
            status: String::new(),
        };
        return Ok(args.gids.iter().map(named).collect());
    }
    let statuses: Vec<&str> = match &args.filter.status {
        Some(status) => vec![status],
        None => act.statuses().to_vec(),
    };
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut chosen = Vec::new();
    for status in statuses {
        let filter = FilterArgs { status: Some(status.to_owned()), ..args.filter.clone() };
        let mut pages = Pages::new(api, &filter);
        while let Some(records) = pages.next().await? {
            for record in records {
                if chosen.len() == limit {
                    return Ok(chosen);
                }
                let [gid, trans_type, status] =
                    ["gid", "trans_type", "status"].map(|name| render::member(&record, name));
                chosen.push(Chosen { gid, trans_type, status });
            }
        }
    }
    Ok(chosen)
}

fn list(
    chosen: &[Chosen],
    act: &Act,
    output: OutputFormat,
    out: &mut dyn Write,
) -> Result<u8, ClientError> {
    let records: Vec<Value> = chosen
        .iter()
        .map(|one| json!({"gid": one.gid, "trans_type": one.trans_type, "status": one.status}))
        .collect();
    let answer = json!({ "would": act.word(), "transactions": records });
    say(
        out,
        &commands::shown(&answer, output, |_| {
            let mut text = String::new();
            for Chosen { gid, trans_type, status } in chosen {
                let line = format!("{} {trans_type} {status}", render::plain(gid));
                text.push_str(line.trim_end());
                text.push('\n');
            }
            text + &format!("would {} {} transactions\n", act.word(), chosen.len())
        }),
    )?;
    Ok(EXIT_OK)
}

async fn act_on(
    api: &ApiClient,
    act: &Act,
    chosen: &[Chosen],
    output: OutputFormat,
    out: &mut dyn Write,
) -> Result<u8, ClientError> {
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(chosen.len() as u64),
        false => ProgressBar::hidden(),
    };
    bar.set_style(ProgressStyle::default_bar());
    let (mut done, mut refused) = (0, Vec::new());
    for one in chosen {
        match act.call(api, one).await {
            Ok(_) => done += 1,
            Err(
                error @ (ClientError::Refused { .. }
                | ClientError::Failed { .. }
                | ClientError::NoSuchGid { .. }),
            ) => refused.push((one.gid.clone(), error.to_string())),
            // The next one would not go better.
            Err(error) => {
                bar.finish_and_clear();
                say(out, &format!("{done} of {} done, then:\n", chosen.len()))?;
                return Err(error);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let failures: Vec<Value> =
        refused.iter().map(|(gid, why)| json!({ "gid": gid, "error": why })).collect();
    let answer = json!({ "did": act.word(), "done": done, "refused": failures });
    say(
        out,
        &commands::shown(&answer, output, |_| {
            let mut text = String::new();
            for (gid, why) in &refused {
                text.push_str(&format!("{}: {}\n", render::plain(gid), render::plain(why)));
            }
            text + &format!("{}: {done} done, {} refused\n", act.word(), refused.len())
        }),
    )?;
    Ok(if refused.is_empty() { EXIT_OK } else { EXIT_REFUSED })
}

fn say(out: &mut dyn Write, text: &str) -> Result<(), ClientError> {
    out.write_all(text.as_bytes()).map_err(ClientError::Output)
}
