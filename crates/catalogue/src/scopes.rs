//! Whose records there are.

use crate::{Catalogue, CatalogueError, Key, Scope, Table, limits};

/// The scopes that have records in `table`, in order. Costs one page of one record a scope; they are of several moments.
/// May be cancelled.
pub async fn scopes(catalogue: &dyn Catalogue, table: Table) -> Result<Vec<Scope>, CatalogueError> {
    let (mut scopes, mut after) = (Vec::new(), None);
    loop {
        let mut page = catalogue.page(table, None, after.as_ref(), 1).await?;
        let Some(first) = page.records.pop() else {
            return Ok(scopes);
        };
        let scope = first.key.scope;
        // No id comes after it, so that the next record is another scope's.
        let last = vec![0xff; limits::ID_LEN_MAX];
        after = Some(Key::new(scope.clone(), last));
        scopes.push(scope);
    }
}

#[cfg(test)]
mod tests {
    use crypto::{random::SeededRandom, store_key::GenerationKey};

    use super::*;
    use crate::{Batch, Expect, MemoryCatalogue, StoreId};

    const TABLE: Table = Table::new("t");

    fn scope(account: &str, region: &str) -> Scope {
        Scope {
            account: account.to_owned(),
            region: region.to_owned(),
        }
    }

    #[tokio::test]
    async fn each_scope_with_records_is_named_once() {
        let catalogue = MemoryCatalogue::new(StoreId([1; 16]));
        assert_eq!(scopes(&catalogue, TABLE).await.unwrap(), []);
        let all = [
            scope("", ""),
            scope("1", "a"),
            scope("1", "b"),
            scope("2", "a"),
        ];
        let key = GenerationKey::generate(&SeededRandom::new(1)).record_key("t");
        for scope in &all {
            for id in [vec![0], vec![0xff], vec![0xff; limits::ID_LEN_MAX]] {
                let at = Key::new(scope.clone(), id);
                let sealed = key.seal_at(&at.place(TABLE, 1), 1, b"r", &SeededRandom::new(2));
                let batch = Batch::new().put(TABLE, at, Expect::Absent, sealed);
                catalogue.commit(batch).await.unwrap();
            }
        }
        assert_eq!(scopes(&catalogue, TABLE).await.unwrap(), all);
        assert_eq!(scopes(&catalogue, Table::new("u")).await.unwrap(), []);
    }
}
