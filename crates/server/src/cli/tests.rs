//! Tests of arguments, of requests against a server with canned answers, and of what is printed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{CommandFactory, Parser};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;

fn command(line: &str) -> Option<Command> {
    Cli::try_parse_from(line.split_whitespace()).unwrap().into_command()
}

fn usage_error(line: &str) -> String {
    let error = Cli::try_parse_from(line.split_whitespace()).unwrap_err();
    assert_eq!(error.exit_code(), i32::from(EXIT_USAGE), "{line}");
    error.to_string()
}

#[test]
fn clap_finds_no_fault() {
    Cli::command().debug_assert();
}

#[test]
fn dtms_flags_mean_serve() {
    let serve = |args: ServeArgs| Some(Command::Serve(args));
    let file = Some(PathBuf::from("c.yml"));
    let with = |config, debug, reset| ServeArgs { config, debug, reset, ..ServeArgs::default() };
    assert_eq!(command("dtmd -c c.yml"), serve(with(file.clone(), false, false)));
    assert_eq!(command("dtmd -c=c.yml"), serve(with(file.clone(), false, false)));
    assert_eq!(command("dtmd -d"), serve(with(None, true, false)));
    assert_eq!(command("dtmd -r"), serve(with(None, false, true)));
    assert_eq!(command("dtmd -d -r -c c.yml"), serve(with(file.clone(), true, true)));
    assert_eq!(command("dtmd serve -c c.yml -d"), serve(with(file, true, false)));
    assert_eq!(command("dtmd -v"), Some(Command::Version));
    assert_eq!(command("dtmd -v -c c.yml"), Some(Command::Version));
    assert_eq!(command("dtmd"), None, "prints the help");
    assert!(version_line().starts_with("dtm version: "));
}

#[test]
fn serve_flags_become_options() {
    let line = "dtmd serve --data d --store memory --listen 0.0.0.0 --http-port 0 \
                --allow-anonymous -d --log-format json --test-control 127.0.0.1:0";
    let Some(Command::Serve(args)) = command(line) else { panic!("not serve") };
    assert_eq!(args.test_control, Some("127.0.0.1:0".parse().unwrap()));
    let none = |_: &str| None;
    let loaded = crate::config::load_with(&none, None, &args.flags()).unwrap();
    let config = loaded.config;
    assert_eq!(config.store.path, PathBuf::from("d"));
    assert_eq!(config.store.driver, crate::config::StoreDriver::Memory);
    assert_eq!(config.listen.http(), "0.0.0.0:0".parse::<SocketAddr>().unwrap());
    assert!(config.listen.allow_anonymous);
    assert_eq!(config.log.level, crate::config::LogLevel::Debug);
    assert_eq!(config.log.format, crate::config::LogFormat::Json);
    assert_eq!(ServeArgs::default().flags(), vec![]);
}

#[test]
fn wrong_usage_is_refused() {
    assert!(usage_error("dtmd serve --test-control 10.0.0.1:1").contains("loopback"));
    assert!(usage_error("dtmd tx ls --status done").contains("submitted"));
    for line in [
        "dtmd what",
        "dtmd tx get",
        "dtmd tx ls --limit 0",
        "dtmd serve --store mysql",
        "dtmd demo saga --fail-at x",
        "dtmd -c a serve",
    ] {
        usage_error(line);
    }
}

#[test]
fn database_urls_of_the_demo_stay_hidden() {
    let demo = command("dtmd demo xa --mysql mysql://root:hunter2@h/ --fail-at 2 --keep").unwrap();
    assert!(!format!("{demo:?}").contains("hunter2"));
    let Command::Demo(args) = demo else { panic!("not demo") };
    assert_eq!((args.scenario, args.fail_at, args.keep), (DemoScenario::Xa, Some(2), true));
    assert_eq!(args.mysql.unwrap().reveal(), "mysql://root:hunter2@h/");
}

/// Answers one request after the other with what it was given, and keeps what was asked.
#[derive(Clone)]
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answers: &[(u16, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Self { url, asked: Arc::default() };
        let asked = Arc::clone(&server.asked);
        let answers: Vec<_> =
            answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
        tokio::spawn(async move {
            for answer in answers {
                let (stream, _) = listener.accept().await.unwrap();
                let service = service_fn(|request| reply(request, answer.clone(), asked.clone()));
                _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        });
        server
    }

    /// Runs a command line against this server.
    async fn run(&self, line: &str) -> Result<String, ClientError> {
        run_against(&self.url, line).await
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn reply(
    request: Request<Incoming>,
    (status, body): (u16, String),
    asked: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, sent) = request.into_parts();
    let sent = String::from_utf8(sent.collect().await?.to_bytes().to_vec()).unwrap();
    asked.lock().unwrap().push(format!("{} {} {sent}", head.method, head.uri).trim_end().into());
    let answer = Response::builder().status(status).body(Full::from(body)).unwrap();
    Ok(answer)
}

async fn run_against(url: &str, line: &str) -> Result<String, ClientError> {
    match command(&format!("dtmd {line} --server {url}")).unwrap() {
        Command::Tx(args) => execute(ClientCommand::Tx(args)).await,
        Command::Topic(args) => execute(ClientCommand::Topic(args)).await,
        Command::Doctor(args) => execute(ClientCommand::Doctor(args)).await,
        other => panic!("not a client command: {other:?}"),
    }
}

const SAGA: &str = r#"{"transaction":{"id":0,"create_time":"2024-05-01T12:00:00.123456789+08:00",
  "update_time":"2024-05-01T12:00:00.2+08:00","gid":"g-3","trans_type":"saga",
  "steps":[{"action":"http://s/a","compensate":"http://s/b"}],"payloads":["{}"],"status":"failed",
  "protocol":"http","rollback_time":"2024-05-01T12:00:01+08:00","options":"{\"concurrent\":true}",
  "rollback_reason":"no money\u001b[31m FAILURE","next_cron_interval":10,
  "next_cron_time":"2024-05-01T12:00:10.12+08:00","concurrent":true},
 "branches":[
  {"id":0,"create_time":"2024-05-01T12:00:00Z","update_time":"2024-05-01T12:00:00Z","gid":"g-3",
   "url":"http://s/b","bin_data":"e30=","branch_id":"01","op":"compensate","status":"succeed",
   "finish_time":"2024-05-01T12:00:00.9+08:00","attempts":3},
  {"id":0,"gid":"g-3","url":"http://s/a","branch_id":"01","op":"action","status":"failed"},
  {"id":0,"gid":"g-3","url":"","branch_id":"02","op":"compensate","status":"prepared"},
  {"id":0,"gid":"g-3","url":"http://s/c","branch_id":"02","op":"action","status":"prepared"}]}"#;

const SAGA_TREE: &str = "\
saga g-3  failed
  created      2024-05-01 12:00:00.123 +08:00
  updated      2024-05-01 12:00:00.200 +08:00
  rolled back  2024-05-01 12:00:01.000 +08:00
  protocol     http
  reason       no money\\u{1b}[31m FAILURE
  concurrent   yes
branches
├─ 01
│  ├─ compensate  succeed   http://s/b  at 2024-05-01 12:00:00.900 +08:00  3 attempts
│  └─ action      failed    http://s/a
└─ 02
   ├─ compensate  prepared
   └─ action      prepared  http://s/c
";

#[tokio::test]
async fn tx_get_shows_a_tree() {
    let none = (404, "404 page not found");
    let server = Server::start(&[(200, SAGA), none, (200, SAGA), none]).await;
    assert_eq!(server.run("tx get g;3").await.unwrap(), SAGA_TREE);
    let json = server.run("tx get g-3 -o json").await.unwrap();
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed, serde_json::from_str::<serde_json::Value>(SAGA).unwrap());
    assert_eq!(server.asked()[0], "GET /api/dtmsvr/query?gid=g%3B3");
    assert_eq!(server.asked()[1], "GET /dtmd/v1/transactions/g%3B3/attempts");
}

#[tokio::test]
async fn tx_get_shows_attempts_under_their_branches() {
    let attempts = r#"{"gid":"g-3","attempts":[
        {"branch_id":"01","op":"action","at":"2024-05-01T12:00:00.5+08:00","url":"http://s/a",
         "attempt":1,"outcome":"failure","ms":12.345,"error":"no\u001b money"},
        {"branch_id":"02","op":"action","at":"2024-05-01T12:00:00.6+08:00","url":"http://s/c",
         "attempt":1,"outcome":"unknown","status":500,"ms":3.0,"error":"HTTP status 500: x"},
        {"branch_id":"00","op":"msg","at":"2024-05-01T12:00:00.7+08:00","url":"http://s/q",
         "attempt":1,"outcome":"success","ms":1.0}]}"#;
    let server = Server::start(&[(200, SAGA), (200, attempts), (200, SAGA), (200, attempts)]).await;
    let text = server.run("tx get g-3").await.unwrap();
    let (_, branches) = text.split_once("branches\n").unwrap();
    let expected = "\
├─ 01
│  ├─ compensate  succeed   http://s/b  at 2024-05-01 12:00:00.900 +08:00  3 attempts
│  └─ action      failed    http://s/a
│       · 2024-05-01 12:00:00.500 +08:00  failure  12.3 ms  no\\u{1b} money
└─ 02
   ├─ compensate  prepared
   └─ action      prepared  http://s/c
        · 2024-05-01 12:00:00.600 +08:00  unknown  3.0 ms  HTTP status 500: x
00 msg  · 2024-05-01 12:00:00.700 +08:00  success  1.0 ms
";
    assert_eq!(branches, expected);
    let yaml = server.run("tx get g-3 -o yaml").await.unwrap();
    assert!(yaml.contains("attempts:") && yaml.contains("gid: g-3"), "{yaml}");
}

#[tokio::test]
async fn filters_choose_and_a_dry_run_changes_nothing() {
    let page = |gids: &[&str], next: &str| {
        let records: Vec<String> = gids
            .iter()
            .map(|gid| format!(r#"{{"gid":"{gid}","trans_type":"tcc","status":"prepared"}}"#))
            .collect();
        format!(r#"{{"transactions":[{}],"next_position":"{next}"}}"#, records.join(","))
    };
    let (first, second, ok) =
        (page(&["a", "b"], "7"), page(&["c"], ""), r#"{"dtm_result":"SUCCESS"}"#);
    let pages = [(200, first.as_str()), (200, second.as_str())];
    let refused = (409, r#"{"dtm_result":"FAILURE","message":"status: succeed FAILURE"}"#);

    let server = Server::start(&pages).await;
    let text = server.run("tx abort --type tcc --dry-run").await.unwrap();
    assert_eq!(
        text,
        "a tcc prepared\nb tcc prepared\nc tcc prepared\nwould abort 3 transactions\n"
    );
    let list = "GET /api/dtmsvr/all?limit=500&status=prepared&transType=tcc";
    assert_eq!(server.asked(), [list.to_owned(), format!("{list}&position=7")]);

    let server = Server::start(&pages).await;
    let error = server.run("tx abort --all").await.unwrap_err();
    assert_eq!(error.exit_code(), EXIT_USAGE);
    assert!(error.to_string().starts_with("3 transactions would be asked to abort"), "{error}");

    let answers = [pages[0], pages[1], (200, ok), refused, (200, ok)];
    let server = Server::start(&answers).await;
    let text = server.run("tx abort --all --yes").await.unwrap();
    assert_eq!(text, "b: refused: status: succeed FAILURE\nabort: 2 done, 1 refused\n");
    assert!(server.asked()[2].contains(r#""trans_type":"tcc""#), "known from the list");

    let server = Server::start(&[(200, ok), (200, ok)]).await;
    assert_eq!(server.run("tx retry x y").await.unwrap(), "retry: 2 done, 0 refused\n");
    let error = server.run("tx stop").await.unwrap_err();
    assert_eq!(error.exit_code(), EXIT_USAGE);
    for line in ["dtmd tx stop g --all", "dtmd tx retry --older-than soon", "dtmd tx watch"] {
        usage_error(line);
    }
}

#[tokio::test]
async fn an_export_is_lines_of_json_over_all_pages() {
    let first = r#"{"transactions":[{"gid":"a"},{"gid":"b"}],"next_position":"3"}"#;
    let second = r#"{"transactions":[{"gid":"c"}],"next_position":""}"#;
    let server = Server::start(&[(200, first), (200, second)]).await;
    let lines = "{\"gid\":\"a\"}\n{\"gid\":\"b\"}\n{\"gid\":\"c\"}\n";
    assert_eq!(server.run("tx export").await.unwrap(), lines);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out.jsonl");
    let server = Server::start(&[(200, second), (200, SAGA)]).await;
    let text = server.run(&format!("tx export --branches --to {}", file.display())).await.unwrap();
    assert!(text.starts_with("1 transactions written to "), "{text}");
    let line = std::fs::read_to_string(&file).unwrap();
    let whole: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(whole["branches"].as_array().unwrap().len(), 4);
    let again = server.run(&format!("tx export --to {}", file.display())).await.unwrap_err();
    assert_eq!(again.exit_code(), EXIT_USAGE, "a file that is there is not overwritten");
}

#[tokio::test]
async fn a_watch_ends_with_the_transaction() {
    let before = r#"{"transaction":{"gid":"g","trans_type":"msg","status":"submitted"},
        "branches":[{"branch_id":"01","op":"action","status":"prepared","attempts":2}]}"#;
    let after = before.replace("submitted", "succeed").replace("prepared", "succeed");
    let server = Server::start(&[(200, before), (200, &after.replace(":2}", ":0}"))]).await;
    let text = server.run("tx watch g --interval 1").await.unwrap();
    let lines: Vec<&str> = text.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    assert_eq!(
        lines,
        [
            "msg  g  submitted",
            "msg  g  01 action  prepared after 2 failed tries",
            "msg  g  succeed",
            "msg  g  01 action  succeed",
        ]
    );
}

#[tokio::test]
async fn the_doctor_looks_at_everything() {
    let version = format!(r#"{{"version":"v{}"}}"#, env!("CARGO_PKG_VERSION"));
    let info = r#"{"version":"v9","now":"2020-01-01T00:00:00Z","ready":true,
        "store":{"kind":"memory","location":"this process","exclusive":false,"durable":false}}"#;
    let answers = [
        (200, r#"{"msg":"pong"}"#),
        (200, version.as_str()),
        (200, info),
        (200, r#"{"checks":[{"name":"durability","health":"warning","text":"fsync = off"}]}"#),
        (200, r#"{"alerts":[]}"#),
    ];
    let server = Server::start(&answers).await;
    let text = server.run("doctor").await.unwrap();
    let health: Vec<String> = text
        .lines()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .collect();
    let first = ["ok reach", "ok version", "ok ready", "warn store", "warn clock"];
    assert_eq!(health, [&first[..], &["warn store:", "ok alerts"]].concat(), "{text}");
    assert!(text.contains("store: durability  fsync = off"), "{text}");
    // DTM has no API of ours.
    let none = (404, "404 page not found");
    let answers = [(200, "{}"), (200, r#"{"version":"v1.18"}"#), none, none, none];
    let server = Server::start(&answers).await;
    let text = server.run("doctor -o json").await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["findings"][1]["health"], "warn");
    assert_eq!(json["findings"][2]["text"], "it is not dtmd, or older: no more is known");
}

#[tokio::test]
async fn tx_get_of_an_unknown_gid_is_an_error() {
    let server = Server::start(&[(200, r#"{"transaction":null,"branches":[]}"#)]).await;
    let error = server.run("tx get g-9").await.unwrap_err();
    assert_eq!(error.exit_code(), EXIT_REFUSED);
    assert!(error.to_string().contains("no transaction with gid g-9"), "{error}");
}

#[tokio::test]
async fn tx_ls_shows_a_table_and_where_to_go_on() {
    let page = r#"{"transactions":[
        {"id":0,"gid":"g-1","trans_type":"msg","status":"submitted","concurrent":false,
         "create_time":"2024-05-01T12:00:00Z","next_cron_time":"2024-05-01T12:00:10Z"},
        {"id":0,"gid":"a-longer-gid","trans_type":"workflow","status":"succeed",
         "create_time":"2024-05-01T12:00:00Z","finish_time":"2024-05-01T12:00:01Z",
         "next_cron_time":"2024-05-01T12:00:10Z"}],"next_position":"p 2"}"#;
    let server = Server::start(&[(200, page), (200, r#"{"transactions":null}"#)]).await;
    let text = server.run("tx ls --status submitted --type msg --limit 5").await.unwrap();
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split("  ").collect()).collect();
    let word = |row: usize| words[row].iter().map(|w| w.trim()).filter(|w| !w.is_empty());
    let rows: Vec<Vec<&str>> = (0..3).map(|row| word(row).collect()).collect();
    assert_eq!(rows[0], ["GID", "TYPE", "STATUS", "CREATED", "FINISHED", "NEXT TRY"]);
    let (twelve, later) = ("2024-05-01 12:00:00.000 +00:00", "2024-05-01 12:00:10.000 +00:00");
    assert_eq!(rows[1], ["g-1", "msg", "submitted", twelve, later]);
    let finished = "2024-05-01 12:00:01.000 +00:00";
    assert_eq!(rows[2], ["a-longer-gid", "workflow", "succeed", twelve, finished]);
    assert_eq!(text.lines().nth(3), Some("there is more: add --position 'p 2'"));
    assert_eq!(server.run("tx ls --position p+2").await.unwrap(), "no transactions\n");
    assert_eq!(
        server.asked(),
        [
            "GET /api/dtmsvr/all?limit=5&status=submitted&transType=msg",
            "GET /api/dtmsvr/all?limit=20&position=p%2B2",
        ]
    );
}

#[tokio::test]
async fn operators_actions_are_posted() {
    let ok = (200, r#"{"dtm_result":"SUCCESS"}"#);
    let server = Server::start(&[ok, ok, (200, SAGA), ok]).await;
    assert!(server.run("tx retry g-1").await.unwrap().starts_with("g-1: "));
    assert!(server.run("tx stop g-1").await.unwrap().starts_with("g-1: stopped"));
    assert!(server.run("tx abort g-3 --reason because").await.unwrap().starts_with("g-3: "));
    let mut asked = server.asked();
    let abort = asked.pop().unwrap();
    assert_eq!(
        asked,
        [
            r#"POST /api/dtmsvr/resetNextCronTime {"gid":"g-1"}"#,
            r#"POST /api/dtmsvr/forceStop {"gid":"g-1"}"#,
            "GET /api/dtmsvr/query?gid=g-3",
        ]
    );
    let body = abort.strip_prefix("POST /api/dtmsvr/abort ").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let expected = r#"{"gid":"g-3","trans_type":"saga","rollback_reason":"because"}"#;
    assert_eq!(body, serde_json::from_str::<serde_json::Value>(expected).unwrap());
}

#[tokio::test]
async fn topics_are_listed_and_changed() {
    let page = r#"{"kv":[{"id":0,"cat":"topics","k":"paid","version":2,
        "v":"[{\"url\":\"http://s/a\",\"remark\":\"mail\"},{\"url\":\"http://s/b\",\"remark\":\"\"}]"},
        {"id":0,"cat":"topics","k":"quiet","version":4,"v":"[]"}],"next_position":""}"#;
    let ok = (200, r#"{"dtm_result":"SUCCESS"}"#);
    let server = Server::start(&[(200, page), ok, ok, ok]).await;
    let text = server.run("topic ls").await.unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(
        rows,
        [
            vec!["TOPIC", "VERSION", "SUBSCRIBER", "REMARK"],
            vec!["paid", "2", "http://s/a", "mail"],
            vec!["http://s/b"],
            vec!["quiet", "4", "(no", "subscribers)"],
        ]
    );
    server.run("topic subscribe paid http://s/c?x=1 --remark new").await.unwrap();
    server.run("topic unsubscribe paid http://s/c").await.unwrap();
    server.run("topic delete a/b").await.unwrap();
    assert_eq!(
        server.asked(),
        [
            "GET /api/dtmsvr/scanKV?cat=topics&limit=100",
            "GET /api/dtmsvr/subscribe?topic=paid&url=http%3A%2F%2Fs%2Fc%3Fx%3D1&remark=new",
            "GET /api/dtmsvr/unsubscribe?topic=paid&url=http%3A%2F%2Fs%2Fc",
            "DELETE /api/dtmsvr/topic/a%2Fb",
        ]
    );
}

#[tokio::test]
async fn answers_have_their_exit_codes_and_texts() {
    let refusal = r#"{"dtm_result":"FAILURE","message":"status: succeed. error: FAILURE"}"#;
    let unknown = r#"{"message":"no TransGlobal with gid: g-1 found"}"#;
    let rows = [
        (409, refusal, EXIT_REFUSED, "refused: status: succeed."),
        (500, unknown, EXIT_REFUSED, "no TransGlobal with gid: g-1 found (HTTP 500)"),
        (404, "404 page not found", EXIT_UNREACHABLE, "not as dtmd does (HTTP 404, no JSON)"),
        (200, "<html>", EXIT_UNREACHABLE, "check --server"),
        (503, "{}", EXIT_UNREACHABLE, "HTTP 503"),
    ];
    for (status, body, code, text) in rows {
        let server = Server::start(&[(status, body)]).await;
        let error = server.run("tx stop g-1").await.unwrap_err();
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test]
async fn an_absent_server_is_said_plainly() {
    // A port that was just free: nothing else of this test listens.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = run_against(&url, "tx ls").await.unwrap_err();
    assert_eq!(error.exit_code(), EXIT_UNREACHABLE);
    let text = error.to_string();
    let start = format!("cannot reach {url}: is dtmd running? start it with `dtmd serve`");
    assert!(text.starts_with(&start), "{text}");
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let api = ApiClient::new(&url, Duration::from_millis(50)).unwrap();
    let error = api.get("all", &[]).await.unwrap_err();
    assert_eq!(error.exit_code(), EXIT_UNREACHABLE);
    assert!(error.to_string().contains("did not answer within"), "{error}");
    drop(listener);
}

#[tokio::test]
async fn server_urls_are_read_as_people_write_them() {
    for form in ["", "/", "/api/dtmsvr", "/api/dtmsvr/"] {
        let server = Server::start(&[(200, "{}")]).await;
        let url = format!("{}{form}", server.url);
        run_against(&url, "tx ls").await.unwrap();
        assert_eq!(server.asked(), ["GET /api/dtmsvr/all?limit=20"], "{form}");
    }
    let server = Server::start(&[(200, "{}")]).await;
    run_against(server.url.strip_prefix("http://").unwrap(), "tx ls").await.unwrap();
    for bad in ["https://h", "ftp://h", "http://", "http://h:99999"] {
        let error = run_against(bad, "tx ls").await.unwrap_err();
        assert_eq!(error.exit_code(), EXIT_USAGE, "{bad}");
    }
}
