//! DTM's tables (spec 05 §2), and what we add to them.

use crate::options::{Driver, SqlOptions};
use crate::text::quoted;

/// A column as it is created. The type depends on the database.
pub(crate) struct Column {
    pub(crate) name: &'static str,
    kind: Type,
    /// What follows the type.
    rule: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    /// The key, counted by the database.
    Id,
    Word(u16),
    /// In DTM's layout `varchar(1024)` or `text`: too narrow for reasons, results and payloads
    /// (spec 07 D13).
    Long,
    Bytes,
    Time,
    Int,
    Big,
}

/// One table.
pub(crate) struct Table {
    /// As configured.
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    /// Name (of PostgreSQL's constraint) and columns of the unique key.
    unique: (&'static str, &'static str),
    /// Names and columns of DTM's other indexes, made with the table.
    indexes: &'static [(&'static str, &'static str)],
    /// Names and columns of the indexes that are ours.
    pub(crate) our_indexes: &'static [(&'static str, &'static str)],
}

const fn dtm(name: &'static str, kind: Type, rule: &'static str) -> Column {
    Column { name, kind, rule }
}

const fn ours(name: &'static str, kind: Type) -> Column {
    Column { name, kind, rule: NULL }
}

const NULL: &str = "default null";

/// Returns the three tables.
pub(crate) fn tables(options: &SqlOptions) -> [Table; 3] {
    [globals(options), branches(options), keys(options)]
}

fn globals(options: &SqlOptions) -> Table {
    use Type::{Big, Bytes, Id, Int, Long, Time, Word};
    Table {
        name: options.trans_global.clone(),
        columns: vec![
            dtm("id", Id, ""),
            dtm("gid", Word(128), "not null"),
            dtm("trans_type", Word(45), "not null"),
            dtm("status", Word(12), "not null"),
            dtm("query_prepared", Long, "not null"),
            dtm("protocol", Word(45), "not null"),
            dtm("create_time", Time, NULL),
            dtm("update_time", Time, NULL),
            dtm("finish_time", Time, NULL),
            dtm("rollback_time", Time, NULL),
            dtm("options", Long, ""),
            dtm("custom_data", Long, ""),
            dtm("next_cron_interval", Int, NULL),
            dtm("next_cron_time", Time, NULL),
            dtm("owner", Word(128), "not null default ''"),
            dtm("ext_data", Long, ""),
            dtm("result", Long, ""),
            dtm("rollback_reason", Long, ""),
            ours("dtmd_revision", Big),
            ours("dtmd_epoch", Big),
            ours("dtmd_write", Big),
            ours("dtmd_seal", Big),
            ours("dtmd_wake", Big),
            ours("dtmd_ended", Big),
            ours("dtmd_record", Bytes),
        ],
        unique: ("gid", "gid"),
        indexes: &[("owner", "owner"), ("status_next_cron_time", "status,next_cron_time")],
        our_indexes: &[
            // The clean-up, and totals.
            ("dtmd_status", "status,dtmd_ended,trans_type"),
            ("dtmd_list", "status,trans_type,create_time,id"),
        ],
    }
}

fn branches(options: &SqlOptions) -> Table {
    use Type::{Bytes, Id, Long, Time, Word};
    Table {
        name: options.trans_branch_op.clone(),
        columns: vec![
            dtm("id", Id, ""),
            dtm("gid", Word(128), "not null"),
            dtm("url", Long, "not null"),
            dtm("data", Long, ""),
            dtm("bin_data", Bytes, ""),
            dtm("branch_id", Word(128), "not null"),
            dtm("op", Word(45), "not null"),
            dtm("status", Word(45), "not null"),
            dtm("finish_time", Time, NULL),
            dtm("rollback_time", Time, NULL),
            dtm("create_time", Time, NULL),
            dtm("update_time", Time, NULL),
        ],
        unique: match options.driver {
            Driver::Mysql => ("gid_uniq", "gid,branch_id,op"),
            // DTM's asynchronous upsert names it.
            Driver::Postgres => ("gid_branch_uniq", "gid,branch_id,op"),
        },
        indexes: &[],
        our_indexes: &[],
    }
}

fn keys(options: &SqlOptions) -> Table {
    use Type::{Big, Id, Long, Time, Word};
    Table {
        name: options.kv.clone(),
        columns: vec![
            dtm("id", Id, ""),
            dtm("cat", Word(45), "not null"),
            dtm("k", Word(128), "not null"),
            dtm("v", Long, ""),
            dtm("version", Big, "default 1"),
            dtm("create_time", Time, NULL),
            dtm("update_time", Time, NULL),
            ours("dtmd_created", Big),
            ours("dtmd_updated", Big),
            ours("dtmd_write", Big),
        ],
        unique: ("uniq_k", "cat,k"),
        indexes: &[],
        our_indexes: &[],
    }
}

impl Column {
    fn type_of(&self, driver: Driver, sequence: &str) -> String {
        match (self.kind, driver) {
            (Type::Id, Driver::Mysql) => "bigint not null auto_increment".to_owned(),
            (Type::Id, Driver::Postgres) => {
                format!("bigint not null default nextval('{sequence}')")
            }
            (Type::Word(width), _) => format!("varchar({width})"),
            (Type::Long, Driver::Mysql) => "mediumtext".to_owned(),
            (Type::Long, Driver::Postgres) => "text".to_owned(),
            (Type::Bytes, Driver::Mysql) => "longblob".to_owned(),
            (Type::Bytes, Driver::Postgres) => "bytea".to_owned(),
            (Type::Time, Driver::Mysql) => "datetime".to_owned(),
            (Type::Time, Driver::Postgres) => "timestamp(0) with time zone".to_owned(),
            (Type::Int, _) => "int".to_owned(),
            (Type::Big, _) => "bigint".to_owned(),
        }
    }

    fn definition(&self, driver: Driver, sequence: &str) -> String {
        let parts = [self.name, self.type_of(driver, sequence).as_str(), self.rule].join(" ");
        parts.trim_end().to_owned()
    }

    /// Returns whether a column of this type, as the database names it, is too narrow.
    pub(crate) fn is_narrow(&self, driver: Driver, stored: &str) -> bool {
        match (self.kind, driver) {
            (Type::Long, Driver::Mysql) => {
                matches!(stored, "varchar" | "char" | "text" | "tinytext")
            }
            (Type::Long, Driver::Postgres) => stored == "character varying",
            (Type::Bytes, Driver::Mysql) => {
                matches!(stored, "blob" | "tinyblob" | "mediumblob" | "varbinary")
            }
            (Type::Bytes, Driver::Postgres)
            | (Type::Id | Type::Word(_) | Type::Time | Type::Int | Type::Big, _) => false,
        }
    }
}

impl Table {
    /// Returns the statements that make the table.
    pub(crate) fn create(&self, driver: Driver) -> Vec<String> {
        let name = quoted(driver, &self.name);
        let sequence = self.sequence();
        let columns = self.columns.iter().map(|column| column.definition(driver, &sequence));
        let mut parts: Vec<String> = columns.collect();
        parts.push("primary key (id)".to_owned());
        let (unique, of) = self.unique;
        match driver {
            Driver::Mysql => {
                parts.push(format!("unique key {unique} ({of})"));
                for (index, of) in self.indexes.iter().chain(self.our_indexes) {
                    parts.push(format!("key {index} ({of})"));
                }
                vec![format!(
                    "create table if not exists {name} ({}) engine=InnoDB \
                     default charset=utf8mb4 collate=utf8mb4_bin",
                    parts.join(", ")
                )]
            }
            Driver::Postgres => {
                parts.push(format!("constraint {} unique ({of})", self.constraint()));
                let mut statements = vec![
                    format!("create sequence if not exists {sequence}"),
                    format!("create table if not exists {name} ({})", parts.join(", ")),
                ];
                for (index, of) in self.indexes {
                    let index = self.index_name(driver, index);
                    statements.push(format!("create index if not exists {index} on {name} ({of})"));
                }
                statements
            }
        }
    }

    /// Returns the statement that adds a column.
    pub(crate) fn add(&self, driver: Driver, column: &Column) -> String {
        let definition = column.definition(driver, "");
        format!("alter table {} add column {definition}", quoted(driver, &self.name))
    }

    /// Returns the statement that widens a column.
    pub(crate) fn widen(&self, driver: Driver, column: &Column) -> String {
        let (table, name) = (quoted(driver, &self.name), column.name);
        let wide = column.type_of(driver, "");
        match driver {
            Driver::Mysql => format!("alter table {table} modify {name} {wide} {}", column.rule)
                .trim_end()
                .to_owned(),
            Driver::Postgres => format!("alter table {table} alter column {name} type {wide}"),
        }
    }

    /// Returns the statement that makes our index.
    pub(crate) fn make_index(&self, driver: Driver, index: (&str, &str)) -> String {
        let (name, table) = (self.index_name(driver, index.0), quoted(driver, &self.name));
        match driver {
            Driver::Mysql => format!("create index {name} on {table} ({})", index.1),
            Driver::Postgres => {
                format!("create index if not exists {name} on {table} ({})", index.1)
            }
        }
    }

    /// Index names are the schema's on PostgreSQL, the table's on MySQL.
    pub(crate) fn index_name(&self, driver: Driver, index: &str) -> String {
        match driver {
            Driver::Mysql => index.to_owned(),
            Driver::Postgres if self.base() == "trans_global" => index.to_owned(),
            Driver::Postgres => format!("\"{}_{index}\"", self.base()),
        }
    }

    fn constraint(&self) -> String {
        let (unique, _) = self.unique;
        match self.base().as_str() {
            "trans_global" | "trans_branch_op" | "kv" => unique.to_owned(),
            base => format!("\"{base}_{unique}\""),
        }
    }

    fn sequence(&self) -> String {
        quoted(Driver::Postgres, &format!("{}_seq", self.name))
    }

    /// The name without its schema, as the database's catalogue has it.
    pub(crate) fn base(&self) -> String {
        self.name.rsplit('.').next().unwrap_or_default().to_owned()
    }

    /// The schema in its name, if there is one.
    pub(crate) fn qualifier(&self) -> Option<&str> {
        self.name.split_once('.').map(|(schema, _)| schema)
    }
}
