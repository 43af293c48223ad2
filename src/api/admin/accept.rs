//! Which of two text formats a scraper wants (RFC 9110 §12.5.1).
//!
//! Prometheus' own format stays the default: for a scraper that asks for nothing, for anything, or for
//! something that is not to be had here.

use http::HeaderMap;
use http::header::ACCEPT;

/// A format of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetricsFormat {
    /// Prometheus' text format, version 0.0.4.
    Text,
    /// `OpenMetrics` text, version 1.0.0.
    OpenMetrics,
}

/// One element of `Accept`.
struct Range<'a> {
    media: &'a str,
    version: Option<&'a str>,
    quality: f64,
}

/// Returns the format that the header asks for.
pub(super) fn format(headers: &HeaderMap) -> MetricsFormat {
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<Range<'_>> = values.flat_map(|value| value.split(',')).map(Range::parse).collect();
    let best = |names: &[(&str, &str)]| {
        // The most exact range that names a format decides about it, not the kindest.
        let quality = |&(media, version): &(&str, &str)| {
            let named = ranges.iter().filter(|range| range.is(media, version));
            named.map(|range| range.quality).reduce(f64::max)
        };
        names.iter().find_map(quality).unwrap_or(0.0)
    };
    let open = best(&[("application/openmetrics-text", "1.0.0")]);
    let text = best(&[("text/plain", "0.0.4"), ("text/*", ""), ("*/*", "")]);
    if open > 0.0 && open >= text { MetricsFormat::OpenMetrics } else { MetricsFormat::Text }
}

impl<'a> Range<'a> {
    fn parse(element: &'a str) -> Self {
        let mut parts = element.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let mut range = Self { media, version: None, quality: 1.0 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                "version" => range.version = Some(value.trim().trim_matches('"')),
                // What cannot be read is no wish.
                "q" => range.quality = value.trim().parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0),
                _ => {}
            }
        }
        range
    }

    fn is(&self, media: &str, version: &str) -> bool {
        self.media.eq_ignore_ascii_case(media) && self.version.is_none_or(|wanted| wanted == version)
    }
}

#[cfg(test)]
mod tests {
    use super::MetricsFormat::{OpenMetrics, Text};
    use super::*;

    #[test]
    fn a_scraper_gets_what_it_prefers_of_what_there_is() {
        for (accept, expected) in [
            (&[][..], Text),
            (&[""], Text),
            (&["*/*"], Text),
            (&["text/plain"], Text),
            (&["text/html,application/xhtml+xml,*/*;q=0.8"], Text),
            (&["application/json"], Text),
            (&["application/openmetrics-text"], OpenMetrics),
            (&["Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8"], OpenMetrics),
            (&["application/openmetrics-text; version=2.0.0"], Text),
            (&["application/openmetrics-text;version=0.0.1"], Text),
            (&["application/openmetrics-text;q=0"], Text),
            (&["application/openmetrics-text;q=nonsense"], Text),
            (&["application/openmetrics-text;q=0.4,text/plain;q=0.5"], Text),
            (&["application/openmetrics-text;q=0.5,text/plain;q=0.5"], OpenMetrics),
            (&["application/openmetrics-text;q=0.5,*/*;q=0.9"], Text),
            (&["text/plain;q=0.1, */*", "application/openmetrics-text;q=0.5"], OpenMetrics),
            // Prometheus 2.42, Prometheus 3, and 3 with native histograms.
            (
                &[
                    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ],
                OpenMetrics,
            ),
            (
                &[
                    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                ],
                OpenMetrics,
            ),
            (
                &[
                    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                ],
                OpenMetrics,
            ),
            (
                &[
                    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                ],
                Text,
            ),
        ] {
            let headers: HeaderMap = accept.iter().map(|value| (ACCEPT, value.parse().unwrap())).collect();
            assert_eq!(format(&headers), expected, "{accept:?}");
        }
    }
}
