//! A connection of a catalogue: whose file it is, and what must hold in it.

use rusqlite::Connection;

use super::options::Options;
use crate::{
    CatalogueError, StoreId,
    database::{self, Form, Look, Renewal, failed},
};

/// `PRAGMA application_id`: `SGCT`, a Sealgate catalogue.
const APPLICATION_ID: i64 = 0x5347_4354;
/// `PRAGMA user_version`: the format this program writes, and the only one it reads.
const FORMAT: i64 = 1;

const SCHEMA: &str = include_str!("schema.sql");

/// A catalogue. It is rewritten whole after every stop that was not in order: it is small.
pub(super) const FORM: Form = Form {
    application_id: APPLICATION_ID,
    format: FORMAT,
    check,
    secure_delete: true,
    renewal: Renewal::Whole,
    look: Look::Whole,
};

/// A connection that may write, to a catalogue that was identified and, where it must be, renewed or made. The caller
/// has the lock for opening.
pub(super) fn for_writing(options: &Options) -> Result<Connection, CatalogueError> {
    let fill = options.create.map(|id| {
        move |connection: &Connection| {
            connection.execute_batch(SCHEMA)?;
            connection.execute(
                "INSERT INTO meta (one, store_id, sequence, trimmed, kept) VALUES (1, ?1, 0, 0, 0)",
                [id.0],
            )?;
            Ok(())
        }
    });
    let fill = fill.as_ref().map(|fill| fill as &dyn Fn(&_) -> _);
    database::open(&options.site(), &FORM, fill)
}

/// A connection that reads, to a catalogue that was opened.
pub(super) fn for_reading(options: &Options) -> Result<Connection, CatalogueError> {
    let site = options.site();
    let connection = database::connect(&site, &site.path, false, site.patience)?;
    connection
        .pragma_update(None, "query_only", true)
        .map_err(failed)?;
    // The first look takes the lock that tells others that the file is in use.
    store_id(&connection)?;
    Ok(connection)
}

/// Says whether the changes are those of the sequence.
fn check(connection: &Connection) -> Result<(), CatalogueError> {
    store_id(connection)?;
    let sound: bool = connection
        .query_row(
            "SELECT trimmed <= sequence
                 AND kept = (SELECT count(*) FROM change)
                 AND trimmed < ifnull((SELECT min(sequence) FROM change), trimmed + 1)
                 AND sequence >= ifnull((SELECT max(sequence) FROM change), 0)
             FROM meta",
            [],
            |row| row.get(0),
        )
        .map_err(failed)?;
    if !sound {
        return Err(CatalogueError::Damaged(
            "the changes are not those of the sequence".to_owned(),
        ));
    }
    Ok(())
}

/// The store's id.
pub(super) fn store_id(connection: &Connection) -> Result<StoreId, CatalogueError> {
    let id = connection.query_row("SELECT store_id FROM meta", [], |row| row.get(0));
    id.map(StoreId).map_err(failed)
}
