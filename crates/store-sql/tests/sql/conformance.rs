//! Both databases pass the suite that every store must pass.

mod mariadb {
    dtmd_store::conformance_suite!(|| async { crate::common::Kind::Mariadb.fresh().await });
}

mod postgres {
    dtmd_store::conformance_suite!(|| async { crate::common::Kind::Postgres.fresh().await });
}
