//! `dtmd tx`, `dtmd topic` and `dtmd doctor`: what is asked of the server, and what is said about
//! the answer.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::bulk::{self, Act};
use super::client::{ApiClient, ClientError, percent};
use super::client_args::{
    ClientArgs, DoctorArgs, FilterArgs, OutputFormat, TopicArgs, TopicCommand, TxArgs, TxCommand,
};
use super::{EXIT_OK, doctor, export, render, watch};

/// A command that only needs the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCommand {
    /// `dtmd tx`.
    Tx(TxArgs),
    /// `dtmd topic`.
    Topic(TopicArgs),
    /// `dtmd doctor`.
    Doctor(DoctorArgs),
}

/// Runs a command, prints what there is to print, and returns the process's exit code.
pub async fn run_client(command: ClientCommand) -> ExitCode {
    match execute_to(command, &mut std::io::stdout()).await {
        Ok(code) => ExitCode::from(code),
        // A reader who has seen enough (`| head`) is no error.
        Err(ClientError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => {
            ExitCode::from(EXIT_OK)
        }
        Err(error) => {
            // With stderr closed there is nobody left to tell.
            _ = writeln!(std::io::stderr(), "dtmd: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs a command and returns what it prints.
///
/// # Errors
///
/// The server refuses, fails, or cannot be reached.
pub async fn execute(command: ClientCommand) -> Result<String, ClientError> {
    let mut out = Vec::new();
    execute_to(command, &mut out).await?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Runs a command, prints to `out`, and returns the process's exit code.
///
/// # Errors
///
/// As [`execute`], and what keeps `out` from being written.
async fn execute_to(command: ClientCommand, out: &mut dyn Write) -> Result<u8, ClientError> {
    match command {
        ClientCommand::Tx(args) => {
            let api = connect(&args.client)?;
            execute_tx(&api, args.command, args.client.output, out).await
        }
        ClientCommand::Topic(args) => {
            let api = connect(&args.client)?;
            let text = execute_topic(&api, args.command, args.client.output).await?;
            say(out, &text)
        }
        ClientCommand::Doctor(args) => {
            doctor::run(&connect(&args.client)?, args.client.output, out).await
        }
    }
}

fn connect(args: &ClientArgs) -> Result<ApiClient, ClientError> {
    ApiClient::new(&args.server_url()?, args.timeout())
}

fn say(out: &mut dyn Write, text: &str) -> Result<u8, ClientError> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(ClientError::Output)?;
    Ok(EXIT_OK)
}

async fn execute_tx(
    api: &ApiClient,
    command: TxCommand,
    output: OutputFormat,
    out: &mut dyn Write,
) -> Result<u8, ClientError> {
    match command {
        TxCommand::Ls { filter, limit, position } => {
            let answer = page(api, &filter, limit, position.as_deref()).await?;
            say(out, &shown(&answer, output, render::transactions))
        }
        TxCommand::Get { gid } => {
            let mut answer = query(api, &gid).await?;
            // A server that keeps none, DTM for instance, is no less worth showing.
            if let Ok(mut found) = api.get_own(&attempts_route(&gid)).await {
                answer["attempts"] = found["attempts"].take();
            }
            say(out, &shown(&answer, output, render::transaction))
        }
        TxCommand::Watch { gid, interval, .. } => {
            let every = Duration::from_secs(interval);
            match gid {
                Some(gid) => watch::one(api, &gid, every, output, out).await,
                None => watch::all(api, every, output, out).await,
            }
        }
        TxCommand::Export { filter, branches, to } => {
            export::export(api, &filter, branches, to.as_deref(), out).await?;
            Ok(EXIT_OK)
        }
        TxCommand::Retry(chosen) => bulk::run(api, &Act::Retry, chosen, output, out).await,
        TxCommand::Stop(chosen) => bulk::run(api, &Act::Stop, chosen, output, out).await,
        TxCommand::Abort { chosen, reason } => {
            bulk::run(api, &Act::Abort { reason }, chosen, output, out).await
        }
    }
}

async fn page(
    api: &ApiClient,
    filter: &FilterArgs,
    limit: u32,
    position: Option<&str>,
) -> Result<Value, ClientError> {
    let params = export::params(filter, usize::try_from(limit).unwrap_or(usize::MAX));
    let mut params: Vec<(&str, &str)> =
        params.iter().map(|(name, value)| (*name, value.as_str())).collect();
    params.extend(position.map(|position| ("position", position)));
    api.get("all", &params).await
}

fn attempts_route(gid: &str) -> String {
    format!("transactions/{}/attempts", percent(gid))
}

async fn execute_topic(
    api: &ApiClient,
    command: TopicCommand,
    output: OutputFormat,
) -> Result<String, ClientError> {
    match command {
        TopicCommand::Ls { limit, position } => {
            let limit = limit.to_string();
            let mut params = vec![("cat", "topics"), ("limit", limit.as_str())];
            params.extend(position.as_deref().map(|position| ("position", position)));
            let answer = api.get("scanKV", &params).await?;
            Ok(shown(&answer, output, render::topics))
        }
        TopicCommand::Subscribe { topic, url, remark } => {
            let params = [("topic", topic.as_str()), ("url", &url), ("remark", &remark)];
            let answer = api.get("subscribe", &params).await?;
            Ok(done(&answer, output, &format!("{topic}: {url} subscribes")))
        }
        TopicCommand::Unsubscribe { topic, url } => {
            let params = [("topic", topic.as_str()), ("url", &url)];
            let answer = api.get("unsubscribe", &params).await?;
            Ok(done(&answer, output, &format!("{topic}: {url} subscribes no more")))
        }
        TopicCommand::Delete { topic } => {
            let answer = api.delete(&format!("topic/{}", percent(&topic))).await?;
            Ok(done(&answer, output, &format!("{topic}: deleted")))
        }
    }
}

/// Asks for a transaction; one that is not there is an error here, although the API answers 200.
pub(super) async fn query(api: &ApiClient, gid: &str) -> Result<Value, ClientError> {
    let answer = api.get("query", &[("gid", gid)]).await?;
    if answer["transaction"].is_object() {
        Ok(answer)
    } else {
        Err(ClientError::NoSuchGid { gid: gid.to_owned(), server: api.server().to_owned() })
    }
}

pub(super) fn shown(
    answer: &Value,
    output: OutputFormat,
    table: impl Fn(&Value) -> String,
) -> String {
    match output {
        OutputFormat::Table => table(answer),
        OutputFormat::Json => format!("{answer:#}\n"),
        // A JSON value always has a form in YAML.
        OutputFormat::Yaml => serde_saphyr::to_string(answer).unwrap_or_default(),
    }
}

pub(super) fn done(answer: &Value, output: OutputFormat, text: &str) -> String {
    shown(answer, output, |_| format!("{}\n", render::plain(text)))
}
