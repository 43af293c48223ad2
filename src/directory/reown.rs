//! Makes a guest's rows the user's, with statements over the application's own tables.
//!
//! A statement's text consists of fixed words and of names that the catalogue confirmed, quoted; values
//! are parameters. Every table is checked before any statement is built, and all problems are reported
//! at once. A table that changed since then fails the whole transaction.

mod postgres;
mod sqlite;

use std::fmt::Write;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use sqlx::AssertSqlSafe;

use super::sql::{Result, Tx, Value};
use super::{Directory, DirectoryError};
use crate::config::rebind::{OnConflict, Table};

/// The application's tables, and how to re-own what is in them.
pub struct Reown {
    tables: Vec<Table>,
    /// Absent until the catalogue was read, and again after a transaction failed.
    plan: ArcSwapOption<ReownPlan>,
}

/// The statements that re-own everything, in order.
pub(super) struct ReownPlan(Vec<ReownStep>);

/// The old and the new owner, each within a tenant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owners<'a> {
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) from_tenant: &'a str,
    pub(super) to_tenant: &'a str,
}

/// A configured table as the catalogue describes it.
struct TableDescription {
    /// Why it cannot be re-owned; empty if it can.
    problems: Vec<String>,
    /// The unique indexes that a change of owner can violate.
    unique: Vec<Index>,
}

/// A unique index over plain columns and all rows.
struct Index {
    columns: Vec<Column>,
    /// Whether it treats two nulls as equal.
    nulls_equal: bool,
}

struct Column {
    name: String,
    /// The index's collation, where it is not the column's own.
    collation: Option<String>,
}

struct ReownStep {
    sql: Arc<str>,
    parameters: Vec<Parameter>,
    /// Whether its rows count in the caller's answer.
    moves: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Parameter {
    From,
    To,
    FromTenant,
    ToTenant,
}

/// A statement under construction.
#[derive(Default)]
struct StatementText {
    sql: String,
    parameters: Vec<Parameter>,
}

impl Reown {
    /// Returns the re-owning of `tables`, which have not been checked yet.
    pub fn new(tables: Vec<Table>) -> Self {
        Self { tables, plan: ArcSwapOption::empty() }
    }

    /// Makes the next rebind read the catalogue again.
    pub(super) fn forget(&self) {
        self.plan.store(None);
    }
}

impl Directory {
    /// Checks every table that is to be re-owned; [`DirectoryError::Tables`] names all problems.
    pub async fn check_tables(&self, reown: &Reown) -> Result<()> {
        self.plan(reown).await.map(drop)
    }

    pub(super) async fn plan(&self, reown: &Reown) -> Result<Arc<ReownPlan>> {
        if let Some(plan) = reown.plan.load_full() {
            return Ok(plan);
        }
        let (mut steps, mut problems) = (Vec::new(), Vec::new());
        for (position, table) in reown.tables.iter().enumerate() {
            let described = if self.pool.is_postgres() {
                postgres::describe(&self.pool, table).await?
            } else {
                sqlite::describe(&self.pool, table).await?
            };
            let found = described.problems.iter();
            problems.extend(found.map(|problem| format!("rebind.tables[{position}]: {} {problem}", table.table)));
            steps.extend(steps_of(table, &described.unique));
        }
        if !problems.is_empty() {
            return Err(DirectoryError::Tables(problems));
        }
        let plan = Arc::new(ReownPlan(steps));
        reown.plan.store(Some(plan.clone()));
        Ok(plan)
    }
}

impl ReownPlan {
    /// Re-owns every table; returns how many rows have a new owner.
    pub(super) async fn run(&self, tx: &mut Tx, owners: Owners<'_>) -> Result<u64> {
        let mut moved = 0;
        for step in &self.0 {
            let values: Vec<Value<'_>> = step.parameters.iter().map(|parameter| owners.value(*parameter)).collect();
            let rows = tx.execute(AssertSqlSafe(step.sql.clone()), &values).await?;
            moved += if step.moves { rows } else { 0 };
        }
        Ok(moved)
    }
}

impl<'a> Owners<'a> {
    fn value(self, parameter: Parameter) -> Value<'a> {
        match parameter {
            Parameter::From => self.from,
            Parameter::To => self.to,
            Parameter::FromTenant => self.from_tenant,
            Parameter::ToTenant => self.to_tenant,
        }
        .into()
    }
}

impl StatementText {
    fn push(&mut self, text: &str) -> &mut Self {
        self.sql.push_str(text);
        self
    }

    fn name(&mut self, name: &str) -> &mut Self {
        self.push(&quoted(name))
    }

    fn table(&mut self, table: &Table) -> &mut Self {
        if let Some(schema) = &table.table.schema {
            self.name(schema).push(".");
        }
        self.name(&table.table.name)
    }

    fn parameter(&mut self, parameter: Parameter) -> &mut Self {
        let known = self.parameters.iter().position(|other| *other == parameter);
        let index = known.unwrap_or_else(|| {
            self.parameters.push(parameter);
            self.parameters.len() - 1
        });
        // Writing to a string cannot fail.
        let _ = write!(self.sql, "${}", index + 1);
        self
    }

    /// Writes `alias."column" = $n`.
    fn equals(&mut self, alias: &str, column: &str, parameter: Parameter) -> &mut Self {
        self.push(alias).name(column).push(" = ").parameter(parameter)
    }

    /// Writes the condition that the row `alias` belongs to an owner, in a tenant if the table has tenants.
    fn belongs(&mut self, alias: &str, table: &Table, (owner, tenant): (Parameter, Option<Parameter>)) -> &mut Self {
        self.equals(alias, &table.column, owner);
        if let (Some(column), Some(tenant)) = (&table.tenant_column, tenant) {
            self.push(" and ").equals(alias, column, tenant);
        }
        self
    }

    fn step(self, moves: bool) -> ReownStep {
        ReownStep { sql: self.sql.into(), parameters: self.parameters, moves }
    }
}

// Deletions come before the update, because a unique index is checked row by row.
fn steps_of(table: &Table, unique: &[Index]) -> Vec<ReownStep> {
    let in_the_way = match table.on_conflict {
        OnConflict::Fail => &[],
        OnConflict::KeepUser | OnConflict::KeepGuest => unique,
    };
    let mut steps: Vec<ReownStep> = in_the_way.iter().map(|index| deletion(table, index)).collect();
    steps.push(update(table));
    steps
}

fn update(table: &Table) -> ReownStep {
    let mut text = StatementText::default();
    text.push("update ").table(table).push(" set ").equals("", &table.column, Parameter::To);
    if let Some(tenant) = &table.tenant_column {
        text.push(", ").equals("", tenant, Parameter::ToTenant);
    }
    text.push(" where ").belongs("", table, (Parameter::From, Some(Parameter::FromTenant)));
    text.step(true)
}

/// Deletes the rows of the side that gives way (`on_conflict`) that would collide in `index` with a row
/// of the other side once both belong to the user.
fn deletion(table: &Table, index: &Index) -> ReownStep {
    let is_owner = |column: &Column| column.name == table.column;
    let is_tenant = |column: &Column| Some(&column.name) == table.tenant_column.as_ref();
    // Only rows of the guest's tenant move. The user's are in the way in any tenant, unless the
    // index tells tenants apart.
    let users_tenant = index.columns.iter().any(is_tenant).then_some(Parameter::ToTenant);
    let guest = (Parameter::From, Some(Parameter::FromTenant));
    let user = (Parameter::To, users_tenant);
    let (gone, kept) = if table.on_conflict == OnConflict::KeepGuest { (user, guest) } else { (guest, user) };
    let mut text = StatementText::default();
    text.push("delete from ").table(table).push(" as gone where ").belongs("gone.", table, gone);
    text.push(" and exists (select 1 from ").table(table).push(" as kept where ").belongs("kept.", table, kept);
    let same = if index.nulls_equal { " is not distinct from gone." } else { " = gone." };
    for column in index.columns.iter().filter(|column| !is_owner(column) && !is_tenant(column)) {
        text.push(" and kept.").name(&column.name).push(same).name(&column.name);
        if let Some(collation) = &column.collation {
            text.push(" collate ").name(collation);
        }
    }
    text.push(")");
    text.step(false)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Puts the rows of an answer (index, column, collation) together, index by index.
fn indexes(rows: Vec<(String, Column)>, owner: &str, nulls_equal: impl Fn(&str) -> bool) -> Vec<Index> {
    let mut found: Vec<(String, Index)> = Vec::new();
    for (name, column) in rows {
        match found.last_mut() {
            Some((last, index)) if *last == name => index.columns.push(column),
            _ => {
                let nulls_equal = nulls_equal(&name);
                found.push((name, Index { columns: vec![column], nulls_equal }));
            }
        }
    }
    let by_user = |index: &Index| index.columns.iter().any(|column| column.name == owner);
    found.into_iter().map(|(_, index)| index).filter(by_user).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(tenant: Option<&str>, on_conflict: OnConflict) -> Table {
        Table {
            table: "app.the \"notes\"".parse().unwrap(),
            column: "Owner".to_owned(),
            tenant_column: tenant.map(str::to_owned),
            on_conflict,
        }
    }

    fn index(columns: &[&str]) -> Index {
        let column = |name: &&str| Column { name: (*name).to_owned(), collation: None };
        Index { columns: columns.iter().map(column).collect(), nulls_equal: false }
    }

    fn texts(table: &Table, unique: &[Index]) -> Vec<String> {
        steps_of(table, unique).iter().map(|step| step.sql.to_string()).collect()
    }

    #[test]
    fn names_are_quoted_and_values_are_parameters() {
        let plain = texts(&table(None, OnConflict::Fail), &[index(&["Owner", "slug"])]);
        assert_eq!(plain, [r#"update "app"."the ""notes""" set "Owner" = $1 where "Owner" = $2"#]);
        let tenants = texts(&table(Some("org"), OnConflict::Fail), &[]);
        let expected = r#"update "app"."the ""notes""" set "Owner" = $1, "org" = $2 where "Owner" = $3 and "org" = $4"#;
        assert_eq!(tenants, [expected]);
    }

    #[test]
    fn what_is_in_the_way_goes_first_by_each_index() {
        let unique = [index(&["Owner"]), index(&["slug", "Owner"])];
        let steps = texts(&table(None, OnConflict::KeepUser), &unique);
        assert_eq!(steps.len(), 3);
        let of = |gone, kept| {
            let table = r#""app"."the ""notes""""#;
            format!("delete from {table} as gone where {gone} and exists (select 1 from {table} as kept where {kept})")
        };
        assert_eq!(steps[0], of(r#"gone."Owner" = $1"#, r#"kept."Owner" = $2"#));
        assert_eq!(steps[1], of(r#"gone."Owner" = $1"#, r#"kept."Owner" = $2 and kept."slug" = gone."slug""#));
        let steps = steps_of(&table(None, OnConflict::KeepGuest), &unique);
        assert!(steps[0].parameters == [Parameter::To, Parameter::From]);
        assert_eq!(&*steps[0].sql, of(r#"gone."Owner" = $1"#, r#"kept."Owner" = $2"#));
    }

    #[test]
    fn a_tenant_outside_of_the_index_does_not_keep_rows_apart() {
        let apart = texts(&table(Some("org"), OnConflict::KeepUser), &[index(&["org", "Owner"])]);
        assert!(apart[0].contains(r#"gone."Owner" = $1 and gone."org" = $2 and exists"#), "{}", apart[0]);
        assert!(apart[0].ends_with(r#"where kept."Owner" = $3 and kept."org" = $4)"#), "{}", apart[0]);
        let together = texts(&table(Some("org"), OnConflict::KeepUser), &[index(&["Owner"])]);
        assert!(together[0].ends_with(r#"where kept."Owner" = $3)"#), "{}", together[0]);
    }
}
