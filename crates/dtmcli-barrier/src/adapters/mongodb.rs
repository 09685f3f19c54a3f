//! MongoDB: `Client` and `ClientSession`. Needs a replica set, as transactions do.
//!
//! This adapter is compiled and has the same rule behind it as the others, but **it has not been
//! run against a server by our tests**: none was at hand where they run.

use mongodb::bson::{Document, doc};
use mongodb::options::IndexOptions;
use mongodb::{Client, ClientSession, Collection, IndexModel};

use crate::db::{BarrierDb, BarrierRow, BarrierTx, CommitError};
use crate::error::BoxError;
use crate::table::TableName;

/// Database and collection used unless a branch names others.
const DATABASE: &str = "dtm_barrier";
const COLLECTION: &str = "barrier";
const UNKNOWN_COMMIT: &str = "UnknownTransactionCommitResult";
const TRANSIENT: &str = "TransientTransactionError";

/// Makes the barrier's collection and its unique index, unless they are there.
///
/// # Errors
///
/// The driver's.
pub async fn create_mongodb_collection(
    client: &Client,
    table: Option<&TableName>,
) -> Result<(), BoxError> {
    let keys = doc! { "gid": 1, "branch_id": 1, "op": 1, "barrier_id": 1 };
    let options = IndexOptions::builder().unique(true).build();
    let index = IndexModel::builder().keys(keys).options(options).build();
    collection(client, table).create_index(index).await?;
    Ok(())
}

fn collection(client: &Client, table: Option<&TableName>) -> Collection<Document> {
    let database = table.and_then(TableName::schema).unwrap_or(DATABASE);
    client.database(database).collection(table.map_or(COLLECTION, TableName::name))
}

fn key(row: BarrierRow<'_>) -> Document {
    doc! {
        "gid": row.gid, "branch_id": row.branch_id, "op": row.op, "barrier_id": row.barrier_id,
    }
}

impl BarrierTx for ClientSession {
    /// Looks first, because a duplicate key would end the transaction. Two that insert at one
    /// time conflict: one of them fails and is called again.
    async fn insert(
        &mut self,
        table: Option<&TableName>,
        row: BarrierRow<'_>,
    ) -> Result<bool, BoxError> {
        let rows = collection(&self.client(), table);
        if rows.find_one(key(row)).session(&mut *self).await?.is_some() {
            return Ok(false);
        }
        let mut inserted = key(row);
        inserted.insert("trans_type", row.trans_type);
        inserted.insert("reason", row.reason);
        rows.insert_one(inserted).session(&mut *self).await?;
        Ok(true)
    }

    async fn reason(
        &mut self,
        table: Option<&TableName>,
        row: BarrierRow<'_>,
    ) -> Result<Option<String>, BoxError> {
        let rows = collection(&self.client(), table);
        let found = rows.find_one(key(row)).session(&mut *self).await?;
        Ok(found.and_then(|row| row.get_str("reason").ok().map(str::to_owned)))
    }
}

impl BarrierDb for Client {
    type Tx = ClientSession;

    /// An error here is one, and never a success without the business (D31).
    async fn begin(&self) -> Result<ClientSession, BoxError> {
        let mut session = self.start_session().await?;
        session.start_transaction().await?;
        Ok(session)
    }

    async fn commit(mut tx: ClientSession) -> Result<(), CommitError> {
        tx.commit_transaction().await.map_err(|error| {
            let refused = error.contains_label(TRANSIENT) && !error.contains_label(UNKNOWN_COMMIT);
            if refused {
                CommitError::RolledBack(error.into())
            } else {
                CommitError::Unknown(error.into())
            }
        })
    }

    async fn rollback(mut tx: ClientSession) -> Result<(), BoxError> {
        Ok(tx.abort_transaction().await?)
    }
}
