//! What `GET /auth/bootstrap` is composed of.

use std::time::Duration;

use serde_json::{Map, Value};

use super::read::{FromKeys, FromTree, Notes, SectionKeys, TreePlace};

/// What `GET /auth/bootstrap` is composed of.
#[derive(Clone, Debug, PartialEq)]
pub struct Bootstrap {
    /// Whether guests may ask.
    pub allow_anonymous: bool,
    /// Who the caller is to the application.
    pub profile: Section,
    /// What the caller has paid for.
    pub subscription: Section,
    /// Which keys the caller has left with the application: masked, always.
    pub secrets: Section,
}

impl FromKeys for Bootstrap {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            allow_anonymous: keys.take("allow_anonymous"),
            profile: keys.take("profile"),
            subscription: keys.take("subscription"),
            secrets: keys.take("secrets"),
        }
    }
}

/// One of the three sections.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// Where it comes from.
    pub source: SectionSource,
    /// Whether there is no answer without it.
    pub required: bool,
    /// How long the source may take.
    pub timeout: Duration,
    /// What stands in for keys that the source leaves out.
    pub defaults: Map<String, Value>,
}

/// Where a section comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum SectionSource {
    /// The application is asked.
    Http(HttpSource),
    /// The directory's database is asked, in the operator's words.
    Sql(SqlSource),
    /// What Doorward itself knows of the caller.
    Directory,
    /// No source is asked: the section is its defaults.
    Static,
}

/// An endpoint of the application.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpSource {
    /// Its path, with a query if it needs one.
    pub path: String,
    /// What to send when it answers 404.
    pub create: Option<Create>,
}

impl FromKeys for HttpSource {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { path: keys.take("path"), create: keys.take("create") }
    }
}

/// What makes a document that is not there.
#[derive(Clone, Debug, PartialEq)]
pub struct Create {
    /// How it is sent: only PUT is safe to repeat.
    pub method: CreateMethod,
    /// Where it is sent; the source's own path when absent.
    pub path: Option<String>,
    /// The document; `{user_id}` and `{client_id}` in its texts are replaced.
    pub body: Map<String, Value>,
}

impl FromKeys for Create {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            method: keys.take_or("method", CreateMethod::Put),
            path: keys.take("path"),
            body: keys.take_or("body", Map::new()),
        }
    }
}

/// How a document is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateMethod {
    /// `PUT`
    Put,
    /// `POST`
    Post,
}

impl FromTree for CreateMethod {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        let words = [("PUT", Self::Put), ("POST", Self::Post)];
        place.one_of(notes, &words, Self::Put)
    }
}

/// Statements on the directory's database; `$1` is the user, `$2` the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlSource {
    /// Gives one column of JSON.
    pub select: String,
    /// What to run when that gives no row; must do nothing when there is one after all.
    pub create: Option<String>,
}

impl FromKeys for SqlSource {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { select: keys.take("select"), create: keys.take("create") }
    }
}

/// Where a section says that it comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    Http,
    Sql,
    Directory,
    Static,
}

impl FromTree for Name {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        let words =
            [("http", Self::Http), ("sql", Self::Sql), ("directory", Self::Directory), ("static", Self::Static)];
        place.one_of(notes, &words, Self::Http)
    }
}

impl FromKeys for Section {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        let (name, http, sql) = (keys.take("source"), keys.take("http"), keys.take("sql"));
        let source = SectionSource::new(name, http, sql).unwrap_or_else(|contradiction| {
            keys.contradict(&["source", "http", "sql"], contradiction);
            SectionSource::Static
        });
        let (required, timeout) = (keys.take("required"), keys.take("timeout"));
        Self { source, required, timeout, defaults: keys.take::<Option<_>>("defaults").unwrap_or_default() }
    }
}

impl SectionSource {
    fn new(name: Name, http: Option<HttpSource>, sql: Option<SqlSource>) -> Result<Self, &'static str> {
        match (name, http, sql) {
            (Name::Http, Some(http), None) => Ok(Self::Http(http)),
            (Name::Sql, None, Some(sql)) => Ok(Self::Sql(sql)),
            (Name::Directory, None, None) => Ok(Self::Directory),
            (Name::Static, None, None) => Ok(Self::Static),
            (Name::Http, None, _) => Err("has source: http and needs http: { path: … } beside it"),
            (Name::Sql, _, None) => Err("has source: sql and needs sql: { select: … } beside it"),
            (_, Some(_), _) => Err("has an http section that only source: http reads"),
            (_, _, Some(_)) => Err("has a sql section that only source: sql reads"),
        }
    }
}

impl Bootstrap {
    /// Returns the sections with their names, in the order of the answer.
    pub fn sections(&self) -> [(&'static str, &Section); 3] {
        [("profile", &self.profile), ("subscription", &self.subscription), ("secrets", &self.secrets)]
    }
}

impl SqlSource {
    /// Returns the highest placeholder that a statement names: 0 when it names none.
    pub fn placeholders(statement: &str) -> usize {
        let number = |rest: &str| {
            let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
            rest.get(..digits).and_then(|digits| digits.parse::<usize>().ok())
        };
        statement.split('$').skip(1).filter_map(number).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_counted() {
        for (statement, highest) in [
            ("select '{}'", 0),
            ("select a from b where c = $1", 1),
            ("select a from b where c=$2 and d=$1", 2),
            ("select $10", 10),
            ("select '$' || $1::text", 1),
        ] {
            assert_eq!(SqlSource::placeholders(statement), highest, "{statement}");
        }
    }
}
