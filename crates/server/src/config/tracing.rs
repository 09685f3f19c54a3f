//! Where traces go.

use std::path::PathBuf;

use super::error::Problem;
use super::secret::Secret;
use super::settings::Reader;

/// The options of tracing, as they are written. What they leave open is taken from OpenTelemetry's
/// own variables ([`TracingConfig::settings`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracingConfig {
    /// The collector's base URL; empty leaves it to the environment. Since 0.1.0.
    pub endpoint: String,
    /// The name of this service in traces; empty leaves it to the environment. Since 0.1.0.
    pub service_name: String,
    /// Headers for the collector, `name=value` with commas between them. Since 0.1.0.
    pub headers: Secret,
    /// Of so many percent of the transactions whose caller says no trace is one begun. Since 0.1.0.
    pub sample_percent: u8,
}

impl Default for TracingConfig {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            service_name: String::new(),
            headers: Secret::default(),
            sample_percent: 100,
        }
    }
}

/// What spans are exported with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportSettings {
    /// Where they are posted to.
    pub url: String,
    /// The name of this service.
    pub service_name: String,
    /// Further attributes of this service.
    pub resource: Vec<(String, String)>,
    /// Headers of every request.
    pub headers: Vec<(String, Secret)>,
    /// Certificates to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// Of so many percent of the transactions without a trace is one begun.
    pub sample_percent: u8,
}

impl TracingConfig {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            endpoint: reader.text("TracingEndpoint").to_owned(),
            service_name: reader.text("TracingServiceName").to_owned(),
            headers: Secret::new(reader.text("TracingHeaders")),
            sample_percent: reader.integer("TracingSamplePercent"),
        }
    }

    pub(super) fn validate(&self, problems: &mut Vec<Problem>) {
        let endpoint = self.endpoint.as_str();
        if !endpoint.is_empty() && !is_url(endpoint) {
            let text = "TracingEndpoint should be a URL that starts with http:// or https://, \
                        such as http://localhost:4318";
            problems.push(Problem::new("TracingEndpoint", text));
        }
        if self.sample_percent > 100 {
            let text = "TracingSamplePercent should not be more than 100";
            problems.push(Problem::new("TracingSamplePercent", text));
        }
    }

    /// Returns what to export with, or `None` if no collector is named: by the option, or by
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT`. `env` reads a variable
    /// of OpenTelemetry's.
    ///
    /// # Errors
    ///
    /// A text for people: a variable holds what cannot be used.
    pub fn settings(
        &self,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<ExportSettings>, String> {
        let env = |name: &str| env(name).map(|text| text.trim().to_owned());
        let set = |name: &str| env(name).filter(|text| !text.is_empty());
        if set("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let of_base = |base: String| format!("{}/v1/traces", base.trim_end_matches('/'));
        let url = Some(self.endpoint.clone())
            .filter(|text| !text.is_empty())
            .map(of_base)
            .or_else(|| set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
            .or_else(|| set("OTEL_EXPORTER_OTLP_ENDPOINT").map(of_base));
        let Some(url) = url else { return Ok(None) };
        if !is_url(&url) {
            return Err(format!("{url} is no http:// or https:// URL of a collector"));
        }
        let protocol = set("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            .or_else(|| set("OTEL_EXPORTER_OTLP_PROTOCOL"));
        if protocol.is_some_and(|protocol| protocol == "grpc") {
            return Err("traces are sent over HTTP, not gRPC: name the collector's HTTP port \
                        (usually 4318) and take OTEL_EXPORTER_OTLP_PROTOCOL=grpc away"
                .to_owned());
        }
        let written = Some(self.headers.reveal().to_owned()).filter(|text| !text.is_empty());
        let headers = written
            .or_else(|| set("OTEL_EXPORTER_OTLP_TRACES_HEADERS"))
            .or_else(|| set("OTEL_EXPORTER_OTLP_HEADERS"))
            .unwrap_or_default();
        let name = Some(self.service_name.clone()).filter(|name| !name.is_empty());
        Ok(Some(ExportSettings {
            url,
            service_name: name
                .or_else(|| set("OTEL_SERVICE_NAME"))
                .unwrap_or_else(|| "dtmd".to_owned()),
            resource: pairs(&set("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default()),
            headers: pairs(&headers)
                .into_iter()
                .map(|(name, value)| (name, Secret::new(&value)))
                .collect(),
            ca_file: set("OTEL_EXPORTER_OTLP_CERTIFICATE").map(PathBuf::from),
            sample_percent: self.sample_percent,
        }))
    }
}

fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// Reads `name=value,name=value`; values are percent-encoded. What has no `=` is passed over.
fn pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_owned(), decoded(value.trim()))).collect()
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = (byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(code) => {
                decoded.push(code);
                at += 3;
            }
            None => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(
        config: &TracingConfig,
        env: &[(&str, &str)],
    ) -> Result<Option<ExportSettings>, String> {
        config.settings(&|wanted| {
            let found = env.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_a_collector_nothing_is_traced() {
        let config = TracingConfig::default();
        assert_eq!(settings(&config, &[("OTEL_SERVICE_NAME", "x")]), Ok(None));
        let config = TracingConfig { endpoint: "http://c:4318".to_owned(), ..config };
        assert_eq!(settings(&config, &[("OTEL_SDK_DISABLED", "true")]), Ok(None));
    }

    #[test]
    fn options_win_over_opentelemetrys_variables() {
        let env = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://e:4318/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b, x=y=z"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
            ("OTEL_SERVICE_NAME", "from-env"),
        ];
        let found = settings(&TracingConfig::default(), &env).unwrap().unwrap();
        assert_eq!((&*found.url, &*found.service_name), ("http://e:4318/v1/traces", "from-env"));
        let headers: Vec<_> = found.headers.iter().map(|(n, v)| (&**n, v.reveal())).collect();
        assert_eq!(headers, [("api-key", "a b"), ("x", "y=z")]);
        assert_eq!(found.resource, [("deployment.environment".to_owned(), "test".to_owned())]);
        let config = TracingConfig {
            endpoint: "https://own".to_owned(),
            service_name: "own".to_owned(),
            ..TracingConfig::default()
        };
        let found = settings(&config, &env).unwrap().unwrap();
        assert_eq!((&*found.url, &*found.service_name), ("https://own/v1/traces", "own"));
        let whole = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t/x")];
        let found = settings(&TracingConfig::default(), &whole).unwrap().unwrap();
        assert_eq!((&*found.url, &*found.service_name), ("http://t/x", "dtmd"));
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://e:4317");
        let grpc = [endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
        assert!(settings(&TracingConfig::default(), &grpc).unwrap_err().contains("4318"));
        let bare = [("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")];
        assert!(settings(&TracingConfig::default(), &bare).unwrap_err().contains("http://"));
    }
}
