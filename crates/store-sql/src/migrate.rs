//! Making the tables, and what they lack.
//!
//! Everything is additive: columns with defaults, indexes, wider types. Each statement is a
//! transaction of its own (long ones abort on YugabyteDB, and MySQL commits each anyway); one that
//! another server was quicker with is as good as done. Afterwards the schema is looked at again.

use std::collections::{HashMap, HashSet};

use crate::conn::Conn;
use crate::error::{DbError, Kind, SqlError};
use crate::options::{Driver, SqlOptions};
use crate::schema::{Table, tables};
use crate::text::Dialect;

/// How often the schema is looked at until nothing is missing: others may be at it too.
const ROUNDS_MAX: usize = 5;
/// Rebuilding a large table takes long.
const STATEMENT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(6 * 3600);

/// Returns the statements that are missing; none if the schema is up to date.
///
/// # Errors
///
/// [`SqlError`] if the database does not answer.
pub async fn plan(options: &SqlOptions) -> Result<Vec<String>, SqlError> {
    options.validate()?;
    let failed = |error: DbError| error.into_open(options.location(), "reading the schema");
    match Conn::open(options, true).await {
        Ok(mut conn) => missing(&mut conn, options).await.map_err(failed),
        Err(error) if is_missing_database(&error, options) => {
            let mut statements = vec![create_database(options)];
            statements
                .extend(tables(options).iter().flat_map(|table| table.create(options.driver)));
            Ok(statements)
        }
        Err(error) => Err(error.into_open(options.location(), "connecting")),
    }
}

/// Runs the statements that are missing, and returns them. Several servers may do it at once.
///
/// # Errors
///
/// [`SqlError`] if the database does not answer or refuses a statement, for lack of rights say.
pub async fn apply(options: &SqlOptions) -> Result<Vec<String>, SqlError> {
    options.validate()?;
    let failed =
        |doing: &'static str| move |error: DbError| error.into_open(options.location(), doing);
    let mut applied = Vec::new();
    let patient = SqlOptions { timeout: STATEMENT_TIMEOUT, ..options.clone() };
    let open = async |database: bool| Conn::open(&patient, database).await;
    let mut conn = match open(true).await {
        Ok(conn) => conn,
        Err(error) if is_missing_database(&error, options) => {
            let mut conn = open(false).await.map_err(failed("connecting"))?;
            let statement = create_database(options);
            conn.run(&statement).await.map_err(failed("making the database"))?;
            applied.push(statement);
            open(true).await.map_err(failed("connecting"))?
        }
        Err(error) => return Err(failed("connecting")(error)),
    };
    for _ in 0..ROUNDS_MAX {
        let statements = missing(&mut conn, options).await.map_err(failed("reading the schema"))?;
        if statements.is_empty() {
            return Ok(applied);
        }
        for statement in statements {
            match conn.run(&statement).await {
                Ok(_) => applied.push(statement),
                Err(error) if was_quicker(&error) => {}
                Err(error) => {
                    let source = format!("{} (in: {statement})", error.source).into();
                    return Err(failed("changing the schema")(DbError { source, ..error }));
                }
            }
        }
    }
    let missing = missing(&mut conn, options).await.map_err(failed("reading the schema"))?;
    if missing.is_empty() {
        return Ok(applied);
    }
    Err(SqlError::Schema { location: options.location(), missing })
}

/// Whether a statement failed only because somebody else ran it at the same time.
fn was_quicker(error: &DbError) -> bool {
    let text = error.source.to_string();
    // MySQL: database, table, column, index exist; a concurrent change of the definition.
    let mysql = [1007, 1050, 1060, 1061, 1213, 1205, 1412].contains(&error.code);
    // PostgreSQL: schema, table, column, a table's row type exist; two created one at the same
    // moment. `if not exists` looks only at what was committed before the statement began.
    let postgres =
        ["42P06", "42P07", "42701", "42710", "23505", "40001", "40P01", "55P03", "XX000"]
            .iter()
            .any(|code| text.ends_with(&format!("({code})")));
    mysql || postgres
}

fn is_missing_database(error: &DbError, options: &SqlOptions) -> bool {
    options.driver == Driver::Mysql && error.kind == Kind::Schema
}

fn create_database(options: &SqlOptions) -> String {
    let name = options.database.replace('`', "``");
    format!("create database if not exists `{name}` default charset utf8mb4")
}

/// A table as the database's catalogue has it.
struct Found {
    /// Column names and types.
    columns: HashMap<String, String>,
    indexes: HashSet<String>,
}

async fn missing(conn: &mut Conn, options: &SqlOptions) -> Result<Vec<String>, DbError> {
    let mut statements = Vec::new();
    if options.driver == Driver::Postgres {
        let schema = options.schema.to_ascii_lowercase();
        let select =
            format!("select 1 from information_schema.schemata where schema_name='{schema}'");
        if conn.run(&select).await?.iter().flatten().next().is_none() {
            statements.push(format!("create schema if not exists \"{schema}\""));
        }
    }
    for table in tables(options) {
        let found = look(conn, options, &table).await?;
        if found.columns.is_empty() {
            statements.extend(table.create(options.driver));
            if options.driver == Driver::Postgres {
                let ours = table.our_indexes.iter();
                statements.extend(ours.map(|index| table.make_index(options.driver, *index)));
            }
            continue;
        }
        for column in &table.columns {
            match found.columns.get(column.name) {
                None => statements.push(table.add(options.driver, column)),
                Some(stored) if column.is_narrow(options.driver, stored) => {
                    statements.push(table.widen(options.driver, column));
                }
                Some(_) => {}
            }
        }
        for index in table.our_indexes {
            let name = table.index_name(options.driver, index.0);
            if !found.indexes.contains(name.trim_matches('"')) {
                statements.push(table.make_index(options.driver, *index));
            }
        }
    }
    Ok(statements)
}

async fn look(conn: &mut Conn, options: &SqlOptions, table: &Table) -> Result<Found, DbError> {
    let dialect = Dialect::new(options);
    let mut select = String::new();
    let base = match options.driver {
        Driver::Mysql => table.base(),
        Driver::Postgres => table.base().to_ascii_lowercase(),
    };
    let schema = |out: &mut String| match (table.qualifier(), options.driver) {
        (Some(schema), Driver::Mysql) => dialect.text(out, schema),
        (Some(schema), Driver::Postgres) => dialect.text(out, &schema.to_ascii_lowercase()),
        (None, Driver::Mysql) => out.push_str("database()"),
        (None, Driver::Postgres) => dialect.text(out, &options.schema.to_ascii_lowercase()),
    };
    select.push_str(
        "select column_name,data_type from information_schema.columns where table_schema=",
    );
    schema(&mut select);
    select.push_str(" and table_name=");
    dialect.text(&mut select, &base);
    select.push_str(match options.driver {
        Driver::Mysql => {
            ";select distinct index_name from information_schema.statistics where table_schema="
        }
        Driver::Postgres => ";select indexname from pg_indexes where schemaname=",
    });
    schema(&mut select);
    select.push_str(match options.driver {
        Driver::Mysql => " and table_name=",
        Driver::Postgres => " and tablename=",
    });
    dialect.text(&mut select, &base);
    let results = conn.run(&select).await?;
    let lower = |row: &crate::conn::Row, at: usize| row.text(at).to_ascii_lowercase();
    let mut results = results.iter();
    let columns = results.next().into_iter().flatten();
    let columns = columns.map(|row| (lower(row, 0), lower(row, 1))).collect();
    let indexes = results.next().into_iter().flatten();
    Ok(Found { columns, indexes: indexes.map(|row| lower(row, 0)).collect() })
}
