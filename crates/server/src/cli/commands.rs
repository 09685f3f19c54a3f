//! `dtmd tx` and `dtmd topic`: what is asked of the server, and what is said about the answer.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::args::{ClientArgs, OutputFormat, TopicArgs, TopicCommand, TxArgs, TxCommand};
use super::client::{ApiClient, ClientError, percent};
use super::render;
use super::{EXIT_OK, EXIT_REFUSED};

/// A command that only needs the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCommand {
    /// `dtmd tx`.
    Tx(TxArgs),
    /// `dtmd topic`.
    Topic(TopicArgs),
}

/// Runs a command, prints what there is to print, and returns the process's exit code.
pub async fn run_client(command: ClientCommand) -> ExitCode {
    match execute(command).await {
        Ok(text) => print(&text),
        Err(error) => {
            // With stderr closed there is nobody left to tell.
            _ = writeln!(std::io::stderr(), "dtmd: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Writes to stdout; a reader who has seen enough (`| head`) is no error.
fn print(text: &str) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => ExitCode::from(EXIT_REFUSED),
        _ => ExitCode::from(EXIT_OK),
    }
}

/// Runs a command and returns what it prints.
///
/// # Errors
///
/// The server refuses, fails, or cannot be reached.
pub async fn execute(command: ClientCommand) -> Result<String, ClientError> {
    match command {
        ClientCommand::Tx(args) => {
            let api = connect(&args.client)?;
            execute_tx(&api, args.command, args.client.output).await
        }
        ClientCommand::Topic(args) => {
            let api = connect(&args.client)?;
            execute_topic(&api, args.command, args.client.output).await
        }
    }
}

fn connect(args: &ClientArgs) -> Result<ApiClient, ClientError> {
    ApiClient::new(&args.server, args.timeout())
}

async fn execute_tx(
    api: &ApiClient,
    command: TxCommand,
    output: OutputFormat,
) -> Result<String, ClientError> {
    match command {
        TxCommand::Ls { status, trans_type, limit, position } => {
            let limit = limit.to_string();
            let mut params = vec![("limit", limit.as_str())];
            params.extend(status.as_deref().map(|status| ("status", status)));
            params.extend(trans_type.as_deref().map(|name| ("transType", name)));
            params.extend(position.as_deref().map(|position| ("position", position)));
            let answer = api.get("all", &params).await?;
            Ok(shown(&answer, output, render::transactions))
        }
        TxCommand::Get { gid } => {
            let answer = query(api, &gid).await?;
            Ok(shown(&answer, output, render::transaction))
        }
        TxCommand::Retry { gid } => {
            let answer = api.post("resetNextCronTime", &json!({ "gid": gid })).await?;
            Ok(done(&answer, output, &format!("{gid}: its branches are due now")))
        }
        TxCommand::Stop { gid } => {
            let answer = api.post("forceStop", &json!({ "gid": gid })).await?;
            Ok(done(&answer, output, &format!("{gid}: stopped; it is failed, nothing was undone")))
        }
        TxCommand::Abort { gid, reason } => {
            // The request has to repeat the mode (spec 01 §2.3), which an operator need not know.
            let found = query(api, &gid).await?;
            let trans_type = render::member(&found["transaction"], "trans_type");
            let mut body = json!({ "gid": gid, "trans_type": trans_type });
            if let Some(reason) = reason {
                body["rollback_reason"] = reason.into();
            }
            let answer = api.post("abort", &body).await?;
            Ok(done(
                &answer,
                output,
                &format!("{gid}: aborting; `dtmd tx get` shows how far it is"),
            ))
        }
    }
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
async fn query(api: &ApiClient, gid: &str) -> Result<Value, ClientError> {
    let answer = api.get("query", &[("gid", gid)]).await?;
    if answer["transaction"].is_object() {
        Ok(answer)
    } else {
        Err(ClientError::NoSuchGid { gid: gid.to_owned(), server: api.server().to_owned() })
    }
}

fn shown(answer: &Value, output: OutputFormat, table: impl Fn(&Value) -> String) -> String {
    match output {
        OutputFormat::Table => table(answer),
        OutputFormat::Json => format!("{answer:#}\n"),
    }
}

fn done(answer: &Value, output: OutputFormat, text: &str) -> String {
    shown(answer, output, |_| format!("{}\n", render::plain(text)))
}
