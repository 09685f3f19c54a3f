//! The Redis store passes the suite that every store must pass: on one server, and on a cluster of
//! three masters.

use dtmd_store_redis::{RedisOptions, RedisStore};

async fn open(url: &str, prefix: String) -> RedisStore {
    let mut options = RedisOptions::from_url(url).expect("the URL of a private server");
    options.prefix = prefix;
    RedisStore::open(options).await.expect("a private server can be used")
}

mod single {
    use super::open;

    dtmd_store::conformance_suite!(|| async {
        let (url, prefix) = dtmd_local_servers::shared::redis().await.expect("a private Redis");
        open(&url, prefix).await
    });
}

mod cluster {
    use super::open;

    dtmd_store::conformance_suite!(|| async {
        let started = dtmd_local_servers::shared::redis_cluster().await;
        let (urls, prefix) = started.expect("a private Redis Cluster");
        open(&urls.join(","), prefix).await
    });
}
