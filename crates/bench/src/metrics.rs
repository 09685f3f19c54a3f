//! The few of a server's metrics that a run is judged by, out of Prometheus' text form.

/// A page of `/api/metrics`.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    samples: Vec<(String, f64)>,
}

/// What a server's store has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StoreCounts {
    /// Flushes.
    pub flushes: f64,
    /// Seconds spent in them.
    pub flush_seconds: f64,
    /// Changes flushed, forced and lazy.
    pub changes: f64,
    /// Of them, the forced ones; `None` if the server does not count them apart.
    pub forced: Option<f64>,
}

impl StoreCounts {
    /// Returns what was done since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            flushes: self.flushes - before.flushes,
            flush_seconds: self.flush_seconds - before.flush_seconds,
            changes: self.changes - before.changes,
            forced: self.forced.zip(before.forced).map(|(now, then)| now - then),
        }
    }
}

impl Metrics {
    /// Reads a page; lines that are no samples are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter_map(|line| {
            if line.starts_with('#') {
                return None;
            }
            // Behind the value there may be a time; labels of ours hold no spaces.
            let name_end = line.rfind('}').map_or_else(|| line.find(' '), |at| Some(at + 1))?;
            let (name, rest) = line.split_at(name_end);
            let value = rest.split_whitespace().next()?.parse().ok()?;
            Some((name.to_owned(), value))
        });
        Self { samples: samples.collect() }
    }

    /// Returns the value of a sample without labels.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        self.samples.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// Returns what the store has done; `None` if this is no server of ours.
    #[must_use]
    pub fn store(&self) -> Option<StoreCounts> {
        Some(StoreCounts {
            flushes: self.value("dtmd_store_flush_duration_seconds_count")?,
            flush_seconds: self.value("dtmd_store_flush_duration_seconds_sum")?,
            changes: self.value("dtmd_store_flushed_changes_total")?,
            forced: self.value("dtmd_store_forced_changes_total"),
        })
    }

    /// Returns how many transactions of a mode are stored: those that succeeded, and all others
    /// (failed ones and those that are not final). `None` if this is no server of ours.
    #[must_use]
    pub fn stored(&self, mode: &str) -> Option<(u64, u64)> {
        self.store()?;
        let of_mode = format!("model=\"{mode}\"");
        let (mut succeed, mut others) = (0.0, 0.0);
        for (name, value) in &self.samples {
            let Some(labels) = name.strip_prefix("dtmd_stored_transactions{") else { continue };
            match labels.contains(&of_mode) {
                true if labels.contains("status=\"succeed\"") => succeed += value,
                true => others += value,
                false => {}
            }
        }
        Some((succeed as u64, others as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP dtmd_store_flushed_changes Changes flushed.\n\
        # TYPE dtmd_store_flushed_changes counter\n\
        dtmd_store_flushed_changes_total 30\n\
        dtmd_store_flush_duration_seconds_sum 0.5\n\
        dtmd_store_flush_duration_seconds_count 10\n\
        dtmd_store_flush_duration_seconds_bucket{le=\"0.1\"} 10\n\
        dtmd_stored_transactions{model=\"saga\",status=\"succeed\"} 7\n\
        dtmd_stored_transactions{model=\"saga\",status=\"failed\"} 2\n\
        dtmd_stored_transactions{model=\"saga\",status=\"submitted\"} 3 1700000000\n\
        dtmd_stored_transactions{model=\"msg\",status=\"succeed\"} 100\n\
        # EOF\n";

    #[test]
    fn samples_with_and_without_labels_are_read() {
        let metrics = Metrics::parse(PAGE);
        let counts = metrics.store().unwrap();
        assert_eq!(
            counts,
            StoreCounts { flushes: 10.0, flush_seconds: 0.5, changes: 30.0, forced: None }
        );
        assert_eq!(metrics.stored("saga"), Some((7, 5)));
        assert_eq!(metrics.stored("tcc"), Some((0, 0)));
    }

    #[test]
    fn differences_keep_what_is_not_counted_unknown() {
        let before = StoreCounts { flushes: 1.0, ..StoreCounts::default() };
        let now = StoreCounts { flushes: 5.0, forced: Some(2.0), ..StoreCounts::default() };
        assert_eq!(now.since(before).forced, None);
        assert!((now.since(before).flushes - 4.0).abs() < f64::EPSILON);
    }

    #[test]
    fn another_servers_page_has_no_store() {
        let metrics = Metrics::parse("go_goroutines 12\n\nbroken\n");
        assert_eq!(metrics.store(), None);
        assert_eq!(metrics.stored("saga"), None);
    }
}
