//! Describes a table from `SQLite`'s schema.

use super::{Column, Index, TableDescription};
use crate::config::rebind::{OnConflict, Table};
use crate::directory::sql::{Database, Result};

const RELATION: &str = "select type from pragma_table_list where schema = 'main' and name = $1";
/// `hidden` is 2 or 3 for a generated column.
const COLUMN: &str = "select type, hidden from pragma_table_xinfo($1) where name = $2";
// An expression in an index has no name.
const UNIQUE: &str = "\
    select list.name, info.name, info.coll from pragma_index_list($1) as list \
    join pragma_index_xinfo(list.name) as info \
    where list.\"unique\" = 1 and list.partial = 0 and info.key = 1 and not exists ( \
        select 1 from pragma_index_xinfo(list.name) as other where other.key = 1 and other.name is null) \
    order by list.seq, info.seqno";

pub(super) async fn describe(pool: &Database, table: &Table) -> Result<TableDescription> {
    let name = table.table.name.as_str();
    let mut described = TableDescription { problems: Vec::new(), unique: Vec::new() };
    let rows = pool.rows(RELATION, &[name.into()]).await?;
    let Some(relation) = rows.first() else {
        described.problems.push("does not exist".to_owned());
        return Ok(described);
    };
    if relation.text(0)? != "table" {
        described.problems.push("is no table".to_owned());
        return Ok(described);
    }
    for column in [Some(&table.column), table.tenant_column.as_ref()].into_iter().flatten() {
        described.problems.extend(wrong_with(pool, name, column).await?);
    }
    if table.on_conflict != OnConflict::Fail {
        described.unique = unique(pool, name, &table.column).await?;
    }
    Ok(described)
}

async fn wrong_with(pool: &Database, table: &str, column: &str) -> Result<Option<String>> {
    let rows = pool.rows(COLUMN, &[table.into(), column.into()]).await?;
    let Some(row) = rows.first() else { return Ok(Some(format!("has no column {column:?}"))) };
    if row.int(1)? != 0 {
        return Ok(Some(format!("has a column {column:?} that cannot be updated")));
    }
    let fits = holds_text(&row.text(0)?);
    Ok((!fits).then(|| format!("has a column {column:?} that is not of a type for text")))
}

// https://sqlite.org/datatype3.html, section 3.1: the first rule that fits gives the affinity.
fn holds_text(declared: &str) -> bool {
    let declared = declared.to_ascii_uppercase();
    let says = |words: &[&str]| words.iter().any(|word| declared.contains(word));
    !says(&["INT"]) && (says(&["CHAR", "CLOB", "TEXT"]) || declared.is_empty() || declared == "ANY")
}

async fn unique(pool: &Database, table: &str, owner: &str) -> Result<Vec<Index>> {
    let mut columns = Vec::new();
    for row in pool.rows(UNIQUE, &[table.into()]).await? {
        columns.push((row.text(0)?, Column { name: row.text(1)?, collation: Some(row.text(2)?) }));
    }
    Ok(super::indexes(columns, owner, |_| false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_for_text_are_told_by_affinity() {
        for good in ["TEXT", "text", "VARCHAR(255)", "character(20)", "CLOB", "", "any"] {
            assert!(holds_text(good), "{good}");
        }
        for bad in ["INTEGER", "BIGINT", "CHARINT", "REAL", "NUMERIC", "BLOB", "BOOLEAN", "DATE"] {
            assert!(!holds_text(bad), "{bad}");
        }
    }
}
