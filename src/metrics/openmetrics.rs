//! The `OpenMetrics` text format, version 1.0.0, which can carry exemplars.
//!
//! Differs from Prometheus' own format in that a counter's family lacks the `_total` of its samples,
//! bounds of buckets are written in one canonical form, and the page says where it ends.

use std::fmt::Write;

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::exemplars::{Exemplar, Exemplars};

/// Returns a page of everything that was gathered.
pub(super) fn page(families: &[MetricFamily], exemplars: &Exemplars) -> String {
    let mut page = String::new();
    for family in families {
        // Writing to a `String` cannot fail.
        let _ = write_family(&mut page, family, exemplars);
    }
    page.push_str("# EOF\n");
    page
}

fn write_family(page: &mut String, family: &MetricFamily, exemplars: &Exemplars) -> std::fmt::Result {
    let kind = family.get_field_type();
    let (kind_name, name) = match kind {
        MetricType::COUNTER => ("counter", family.name().strip_suffix("_total").unwrap_or(family.name())),
        MetricType::GAUGE => ("gauge", family.name()),
        MetricType::HISTOGRAM => ("histogram", family.name()),
        // This crate has none.
        MetricType::SUMMARY | MetricType::UNTYPED => return Ok(()),
    };
    writeln!(page, "# HELP {name} {}", escaped(family.help()))?;
    writeln!(page, "# TYPE {name} {kind_name}")?;
    for metric in family.get_metric() {
        match kind {
            MetricType::COUNTER => {
                sample(page, &format!("{name}_total"), metric, None, metric.get_counter().get_value(), None)?;
            }
            MetricType::GAUGE => sample(page, name, metric, None, metric.get_gauge().get_value(), None)?,
            _ => write_histogram(page, name, metric, exemplars)?,
        }
    }
    Ok(())
}

fn write_histogram(page: &mut String, name: &str, metric: &Metric, exemplars: &Exemplars) -> std::fmt::Result {
    let histogram = metric.get_histogram();
    let labels: Vec<&str> = metric.get_label().iter().map(prometheus::proto::LabelPair::value).collect();
    let mut exemplars = exemplars.of(name, &labels).into_iter();
    let finite = histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
    let buckets = finite.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
    let name_of = |suffix: &str| format!("{name}_{suffix}");
    for (bound, count) in buckets.chain([(f64::INFINITY, histogram.get_sample_count())]) {
        let exemplar = exemplars.next().flatten();
        sample(page, &name_of("bucket"), metric, Some(bound), whole(count), exemplar.as_ref())?;
    }
    sample(page, &name_of("count"), metric, None, whole(histogram.get_sample_count()), None)?;
    sample(page, &name_of("sum"), metric, None, histogram.get_sample_sum(), None)
}

fn sample(
    page: &mut String,
    name: &str,
    metric: &Metric,
    bound: Option<f64>,
    value: f64,
    exemplar: Option<&Exemplar>,
) -> std::fmt::Result {
    page.push_str(name);
    let labels = metric.get_label().iter().map(|label| (label.name(), escaped(label.value())));
    let bound = bound.map(|bound| ("le", canonical(bound)));
    let labels: Vec<String> = labels.chain(bound).map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    if !labels.is_empty() {
        write!(page, "{{{}}}", labels.join(","))?;
    }
    write!(page, " {}", number(value))?;
    if let Some(exemplar) = exemplar {
        write_exemplar(page, exemplar)?;
    }
    page.write_char('\n')
}

fn write_exemplar(page: &mut String, exemplar: &Exemplar) -> std::fmt::Result {
    let (seconds, millis) = (exemplar.at.unix_seconds(), exemplar.at.0 % 1000);
    let value = number(exemplar.seconds);
    write!(page, " # {{trace_id=\"{}\"}} {value} {seconds}.{millis:03}", escaped(&exemplar.trace_id))
}

fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        value if value.is_infinite() => if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        value => value.to_string(),
    }
}

// Bounds become labels: two spellings would be two series. As Go's %g has it, with a point or an exponent.
fn canonical(bound: f64) -> String {
    let plain = number(bound);
    if bound > 0.0 && bound < 1e-4 {
        let text = format!("{bound:e}");
        let (digits, exponent) = text.split_once("e-").unwrap_or((&text, "0"));
        return format!("{digits}e-{exponent:0>2}");
    }
    if plain.contains('.') || !bound.is_finite() { plain } else { plain + ".0" }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles")]
fn whole(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::super::exemplars::Measured;
    use super::*;
    use crate::time::Timestamp;

    fn rendered() -> String {
        let metrics = Metrics::new().unwrap();
        metrics.http_requests.with_label_values(&["proxy", "a\"b\\c\nd", "200"]).inc();
        metrics.ready.with_label_values(&["store"]).set(1);
        let seen = |seconds: f64, trace_id: &str| {
            metrics.auth_decision_duration.with_label_values(&["cache"]).observe(seconds);
            let (trace_id, at) = (trace_id.to_owned(), Timestamp(1_767_225_600_007));
            metrics.exemplars.keep(Measured::Decision, &["cache"], Exemplar { trace_id, seconds, at });
        };
        seen(0.000_01, "old");
        seen(0.000_008, "new");
        seen(2.5, "slow");
        metrics.render_openmetrics()
    }

    #[test]
    fn counters_gauges_and_histograms_are_written_as_the_specification_has_them() {
        let page = rendered();
        for lines in [
            "# HELP doorward_http_requests Exchanges answered. `handler` is proxy, verify, admin or a surface; `route` a rule's id; `code` the status.\n\
             # TYPE doorward_http_requests counter\n\
             doorward_http_requests_total{code=\"200\",handler=\"proxy\",route=\"a\\\"b\\\\c\\nd\"} 1\n",
            "# TYPE doorward_ready gauge\ndoorward_ready{check=\"store\"} 1\n",
            "doorward_auth_decision_duration_seconds_bucket{source=\"cache\",le=\"5e-06\"} 0\n\
             doorward_auth_decision_duration_seconds_bucket{source=\"cache\",le=\"1e-05\"} 2 # {trace_id=\"new\"} 0.000008 1767225600.007\n\
             doorward_auth_decision_duration_seconds_bucket{source=\"cache\",le=\"2.5e-05\"} 2\n",
            "le=\"0.0001\"} 2\n",
            "le=\"1.0\"} 2\n\
             doorward_auth_decision_duration_seconds_bucket{source=\"cache\",le=\"+Inf\"} 3 # {trace_id=\"slow\"} 2.5 1767225600.007\n\
             doorward_auth_decision_duration_seconds_count{source=\"cache\"} 3\n\
             doorward_auth_decision_duration_seconds_sum{source=\"cache\"} 2.500018",
        ] {
            assert!(page.contains(lines), "{lines}\nis not in\n{page}");
        }
        assert!(page.ends_with("\n# EOF\n"));
        assert!(!page.contains("\"old\""));
    }

    #[test]
    fn every_line_is_of_the_grammar_and_belongs_to_the_family_before_it() {
        let (mut family, mut seen) = (String::new(), std::collections::BTreeSet::new());
        let page = rendered();
        let lines: Vec<&str> = page.strip_suffix("# EOF\n").unwrap().lines().collect();
        assert!(lines.len() > 100 && !page.contains("\n\n"));
        for line in lines {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(["counter", "gauge", "histogram"].contains(&kind) && !name.ends_with("_total"), "{line}");
                assert_eq!(name, family, "help and type are adjacent");
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split_once(' ').unwrap().0.to_owned();
                assert!(seen.insert(family.clone()), "{family} comes twice");
            } else {
                let (series, exemplar) =
                    line.split_once(" # ").map_or((line, None), |(series, rest)| (series, Some(rest)));
                let (series, value) = series.rsplit_once(' ').unwrap();
                value.parse::<f64>().unwrap();
                let name = series.split('{').next().unwrap();
                let suffix = name.strip_prefix(family.as_str()).unwrap();
                assert!(["", "_total", "_bucket", "_count", "_sum"].contains(&suffix), "{line}");
                assert!(series.contains('{') == series.ends_with('}'), "{line}");
                assert!(exemplar.is_none_or(|text| suffix == "_bucket" && text.split(' ').count() == 3), "{line}");
            }
        }
    }

    #[test]
    fn bounds_have_one_spelling() {
        for (bound, text) in [(0.000_005, "5e-06"), (0.000_25, "0.00025"), (1.0, "1.0"), (10.0, "10.0"), (2.5, "2.5")] {
            assert_eq!(canonical(bound), text);
        }
        assert_eq!(canonical(f64::INFINITY), "+Inf");
    }
}
