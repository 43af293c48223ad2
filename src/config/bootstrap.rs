//! What `GET /auth/bootstrap` is composed of.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::duration;

/// What `GET /auth/bootstrap` is composed of.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
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

/// One of the three sections.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Section {
    /// Where it comes from.
    pub source: Source,
    /// Whether there is no answer without it.
    pub required: bool,
    /// How long the source may take.
    pub timeout: Duration,
    /// What stands in for keys that the source leaves out.
    pub defaults: Map<String, Value>,
}

/// Where a section comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The application is asked.
    Http(HttpSource),
    /// The directory's database is asked, in the operator's words.
    Sql(SqlSource),
    /// What Doorward itself knows of the caller.
    Directory,
    /// Nobody is asked.
    Static,
}

/// An endpoint of the application.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSource {
    /// Its path, with a query if it needs one.
    pub path: String,
    /// What to send when it answers 404.
    #[serde(default)]
    pub create: Option<Create>,
}

/// What makes a document that is not there.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// How it is sent: only PUT is safe to repeat.
    #[serde(default = "put")]
    pub method: CreateMethod,
    /// Where it is sent; the source's own path when absent.
    #[serde(default)]
    pub path: Option<String>,
    /// The document; `{user_id}` and `{client_id}` in its texts are replaced.
    #[serde(default)]
    pub body: Map<String, Value>,
}

/// How a document is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CreateMethod {
    /// `PUT`
    Put,
    /// `POST`
    Post,
}

/// Statements on the directory's database; `$1` is the user, `$2` the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqlSource {
    /// Gives one column of JSON.
    pub select: String,
    /// What to run when that gives no row; must do nothing when there is one after all.
    #[serde(default)]
    pub create: Option<String>,
}

/// A section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    source: Name,
    http: Option<HttpSource>,
    sql: Option<SqlSource>,
    required: bool,
    #[serde(deserialize_with = "duration::deserialize")]
    timeout: Duration,
    defaults: Option<Map<String, Value>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    Http,
    Sql,
    Directory,
    Static,
}

impl TryFrom<Written> for Section {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let Written { source, http, sql, required, timeout, defaults } = written;
        let source = match (source, http, sql) {
            (Name::Http, Some(http), None) => Source::Http(http),
            (Name::Sql, None, Some(sql)) => Source::Sql(sql),
            (Name::Directory, None, None) => Source::Directory,
            (Name::Static, None, None) => Source::Static,
            (Name::Http, None, _) => return Err("has source: http and needs http: { path: … } beside it"),
            (Name::Sql, _, None) => return Err("has source: sql and needs sql: { select: … } beside it"),
            (_, Some(_), _) => return Err("has an http section that only source: http reads"),
            (_, _, Some(_)) => return Err("has a sql section that only source: sql reads"),
        };
        Ok(Self { source, required, timeout, defaults: defaults.unwrap_or_default() })
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

fn put() -> CreateMethod {
    CreateMethod::Put
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
