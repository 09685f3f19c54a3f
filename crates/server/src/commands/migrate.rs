//! `dtmd migrate`: makes the tables in an SQL database, and what they lack.

use dtmd_store_sql::migrate;

use super::say;
use crate::cli::MigrateArgs;
use crate::config;
use crate::run::sql_options;

/// Prints the statements that are missing, and runs them unless it is a dry run.
pub(super) async fn run(args: MigrateArgs) -> anyhow::Result<()> {
    let loaded = config::load(args.config.as_deref(), &[])?;
    loaded.config.validate()?;
    let options = sql_options(&loaded.config)?;
    let statements = match args.dry_run {
        true => migrate::plan(&options).await?,
        false => migrate::apply(&options).await?,
    };
    for statement in &statements {
        say(&format!("{statement};"));
    }
    let count = statements.len();
    say(&match (count, args.dry_run) {
        (0, _) => "-- the tables are up to date".to_owned(),
        (_, true) => format!("-- {count} statements are missing; nothing was run"),
        (_, false) => format!("-- {count} statements were run; the tables are up to date"),
    });
    Ok(())
}
