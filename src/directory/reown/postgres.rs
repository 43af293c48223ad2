//! Describes a table from PostgreSQL's catalogue.

use super::{Column, Index, TableDescription};
use crate::config::rebind::{OnConflict, Table};
use crate::directory::sql::{Database, Result, SqlRow};

/// `pg_relation_is_updatable` answers a set of bits; this one is UPDATE.
const CAN_UPDATE: i64 = 4;
/// `anon:` and a UUID.
const GUEST_CHARACTERS: i64 = 41;

const RELATION: &str = "\
    select c.oid::bigint, c.relkind::text, pg_relation_is_updatable(c.oid, true)::bigint, \
        row_security_active(c.oid)::int::bigint, has_schema_privilege(n.oid, 'usage')::int::bigint, \
        has_table_privilege(c.oid, 'delete')::int::bigint \
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
    where n.nspname = $1 and c.relname = $2";

// `atttypmod` is the limit of length plus four.
const COLUMN: &str = "\
    select t.typcategory::text, (a.attgenerated <> '')::int::bigint, \
        has_column_privilege(a.attrelid, a.attnum, 'select')::int::bigint, \
        has_column_privilege(a.attrelid, a.attnum, 'update')::int::bigint, \
        pg_column_is_updatable(a.attrelid, a.attnum, true)::int::bigint, \
        case when t.typname = 'varchar' and a.atttypmod > 4 then (a.atttypmod - 4)::bigint end \
    from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid \
    where a.attrelid = $1::oid and a.attname = $2 and a.attnum > 0 and not a.attisdropped";

// Since PostgreSQL 15 an index can treat nulls as equal; `indnullsnotdistinct` says so.
const UNIQUE: &str = "\
    select i.indexrelid::bigint::text, a.attname::text, \
        coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false)::int::bigint, \
        has_column_privilege(a.attrelid, a.attnum, 'select')::int::bigint \
    from pg_catalog.pg_index i \
    cross join lateral unnest(i.indkey) with ordinality as k (attnum, position) \
    join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum \
    where i.indrelid = $1::oid and i.indisunique and i.indpred is null and i.indexprs is null \
        and k.position <= i.indnkeyatts \
    order by i.indexrelid, k.position";

pub(super) async fn describe(pool: &Database, table: &Table) -> Result<TableDescription> {
    let schema = table.table.schema.as_deref().unwrap_or("public");
    let relations = pool.rows(RELATION, &[schema.into(), table.table.name.as_str().into()]).await?;
    let Some(relation) = relations.first() else {
        return Ok(TableDescription { problems: vec!["does not exist".to_owned()], unique: Vec::new() });
    };
    let oid = relation.int(0)?;
    let mut problems: Vec<String> = about_relation(relation, table)?.into_iter().map(str::to_owned).collect();
    column(pool, oid, &table.column, true, &mut problems).await?;
    if let Some(tenant) = &table.tenant_column {
        column(pool, oid, tenant, false, &mut problems).await?;
    }
    let unique = if table.on_conflict == OnConflict::Fail {
        Vec::new()
    } else {
        unique(pool, oid, &table.column, &mut problems).await?
    };
    Ok(TableDescription { problems, unique })
}

fn about_relation(relation: &SqlRow, table: &Table) -> Result<Vec<&'static str>> {
    let kind = relation.text(1)?;
    let deletes = table.on_conflict != OnConflict::Fail;
    let mut problems = Vec::new();
    match kind.as_str() {
        "v" if deletes => problems.push("is a view, which has no unique indexes: on_conflict must be fail"),
        "v" if relation.int(2)? & CAN_UPDATE == 0 => problems.push("is a view that cannot be updated"),
        "r" | "p" | "v" => {}
        _ => problems.push("is no table"),
    }
    if relation.int(3)? == 1 {
        problems.push("has row security, which would hide rows from this database user");
    }
    if relation.int(4)? == 0 {
        problems.push("is in a schema that this database user may not use");
    }
    if deletes && relation.int(5)? == 0 {
        problems.push("may not be deleted from by this database user, as its on_conflict asks");
    }
    Ok(problems)
}

async fn column(pool: &Database, oid: i64, name: &str, holds_users: bool, problems: &mut Vec<String>) -> Result<()> {
    let rows = pool.rows(COLUMN, &[oid.into(), name.into()]).await?;
    let Some(row) = rows.first() else {
        problems.push(format!("has no column {name:?}"));
        return Ok(());
    };
    if row.text(0)? != "S" {
        problems.push(format!("has a column {name:?} that is not of a type for text"));
    }
    if row.int(1)? == 1 || row.int(4)? == 0 {
        problems.push(format!("has a column {name:?} that cannot be updated"));
    }
    if row.int(2)? == 0 {
        problems.push(format!("has a column {name:?} that this database user may not read"));
    }
    if row.int(3)? == 0 {
        problems.push(format!("has a column {name:?} that this database user may not update"));
    }
    if let Some(limit) = row.maybe_int(5)?
        && holds_users
        && limit < GUEST_CHARACTERS
    {
        problems.push(format!("has a column {name:?} too short for a guest, who takes {GUEST_CHARACTERS} characters"));
    }
    Ok(())
}

async fn unique(pool: &Database, oid: i64, owner: &str, problems: &mut Vec<String>) -> Result<Vec<Index>> {
    let (mut columns, mut nulls_equal) = (Vec::new(), Vec::new());
    for row in pool.rows(UNIQUE, &[oid.into()]).await? {
        let (index, name) = (row.text(0)?, row.text(1)?);
        if row.int(3)? == 0 && name != owner {
            problems.push(format!("has a column {name:?} in a unique index that this database user may not read"));
        }
        if row.int(2)? == 1 {
            nulls_equal.push(index.clone());
        }
        columns.push((index, Column { name, collation: None }));
    }
    Ok(super::indexes(columns, owner, |index| nulls_equal.iter().any(|equal| equal == index)))
}
