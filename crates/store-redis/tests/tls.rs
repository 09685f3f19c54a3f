//! TLS: with an authority of one's own, and not with any other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use dtmd_store::conformance::sample::{gid, saga};
use dtmd_store::{Store, Write};
use dtmd_store_redis::{Mode, RedisOptions, RedisStore};

/// Makes an authority, and a certificate of it for the server, by the `openssl` program.
async fn make_certificates(dir: &Path) {
    std::fs::write(
        dir.join("leaf.ext"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
    )
    .unwrap();
    let new = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for command in [
        &format!("{new} -x509 -days 2 -subj /CN=authority -keyout ca.key -out ca.crt"),
        &format!("{new} -x509 -days 2 -subj /CN=other -keyout other.key -out other.crt"),
        &format!("{new} -subj /CN=localhost -keyout leaf.key -out leaf.csr"),
        "x509 -req -in leaf.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
         -extfile leaf.ext -out leaf.crt",
    ] {
        let mut openssl = tokio::process::Command::new("openssl");
        openssl.args(command.split_whitespace()).current_dir(dir);
        let output = openssl.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_authority_that_was_named_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    make_certificates(dir.path()).await;
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let _server = tokio::process::Command::new("redis-server")
        .args(["--port", "0", "--bind", "127.0.0.1", "--save", "", "--tls-auth-clients", "no"])
        .args(["--tls-port", &port.to_string(), "--tls-ca-cert-file", "ca.crt"])
        .args(["--tls-cert-file", "leaf.crt", "--tls-key-file", "leaf.key"])
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut options = RedisOptions::new(Mode::parse("localhost", port, "").unwrap());
    options.tls = true;
    options.tls_ca_file = Some(dir.path().join("ca.crt"));
    options.open_for = Duration::from_secs(20);
    let store = RedisStore::open(options.clone()).await.unwrap();
    store.commit(&[Write::Create(Arc::new(saga("a")))]).await.unwrap();
    assert!(store.load(&gid("a")).await.unwrap().is_some());
    options.open_for = Duration::ZERO;
    options.tls_ca_file = Some(dir.path().join("other.crt"));
    assert!(RedisStore::open(options.clone()).await.is_err());
    options.tls_ca_file = Some(dir.path().join("missing.crt"));
    let error = RedisStore::open(options).await.unwrap_err().to_string();
    assert!(error.contains("missing.crt"), "{error}");
}
