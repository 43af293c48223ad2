//! What an expression asks for.

use std::time::Duration;

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, AggregateExpr, Expr, LabelModifier, VectorSelector};

/// What stands for Grafana's `$__rate_interval`: a range that nobody writes by hand.
pub(super) const RATE_INTERVAL: Duration = Duration::from_secs(671);
/// What stands for Grafana's `$__range`.
pub(super) const RANGE: Duration = Duration::from_secs(673);

/// One series name of an expression, with all that is said about it.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    /// The series' name.
    pub(super) name: String,
    /// Its label matchers.
    pub(super) matchers: Vec<Matcher>,
    /// The range, in a range selector.
    pub(super) range: Option<Duration>,
    /// The functions around it, the outermost first.
    pub(super) functions: Vec<String>,
    /// Labels that aggregations around it keep.
    pub(super) kept: Vec<String>,
}

/// Returns every selector of an expression in which Grafana's variables may stand; one that cannot
/// be parsed fails the test.
#[track_caller]
pub(super) fn selectors(place: &str, expr: &str) -> Vec<Selector> {
    let expr = expr
        .replace("$__rate_interval", &format!("{}s", RATE_INTERVAL.as_secs()))
        .replace("$__range", &format!("{}s", RANGE.as_secs()));
    let parsed = parser::parse(&expr).unwrap_or_else(|error| panic!("{place}: {error}: {expr}"));
    let mut walk = Walk::default();
    walk.visit(&parsed);
    assert!(!walk.found.is_empty(), "{place}: {expr} asks for nothing");
    walk.found
}

/// Returns whether a matcher excludes instead of choosing.
pub(super) fn excludes(matcher: &Matcher) -> bool {
    matches!(matcher.op, MatchOp::NotEqual | MatchOp::NotRe(_))
}

#[derive(Default)]
struct Walk {
    functions: Vec<String>,
    kept: Vec<String>,
    found: Vec<Selector>,
}

impl Walk {
    fn visit(&mut self, expr: &Expr) {
        match expr {
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Unary(unary) => self.visit(&unary.expr),
            Expr::Binary(binary) => {
                self.visit(&binary.lhs);
                self.visit(&binary.rhs);
            }
            Expr::Paren(paren) => self.visit(&paren.expr),
            Expr::Subquery(subquery) => self.visit(&subquery.expr),
            Expr::VectorSelector(vector) => self.take(vector, None),
            Expr::MatrixSelector(matrix) => self.take(&matrix.vs, Some(matrix.range)),
            Expr::Call(call) => {
                self.functions.push(call.func.name.to_owned());
                call.args.args.iter().for_each(|argument| self.visit(argument));
                self.functions.pop();
            }
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => {}
            Expr::Extension(_) => panic!("the parser makes none"),
        }
    }

    fn aggregate(&mut self, aggregate: &AggregateExpr) {
        let before = self.kept.len();
        if let Some(LabelModifier::Include(labels)) = &aggregate.modifier {
            self.kept.extend(labels.labels.iter().cloned());
        }
        self.visit(&aggregate.expr);
        self.kept.truncate(before);
    }

    fn take(&mut self, selector: &VectorSelector, range: Option<Duration>) {
        let name = selector.name.clone().expect("a selector with a name");
        assert!(selector.matchers.or_matchers.is_empty(), "{name}: or");
        let (matchers, functions) = (selector.matchers.matchers.clone(), self.functions.clone());
        self.found.push(Selector { name, matchers, range, functions, kept: self.kept.clone() });
    }
}
