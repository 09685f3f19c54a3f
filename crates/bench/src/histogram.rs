//! Latencies, counted in buckets whose width follows their value.

use std::time::Duration;

/// Buckets per power of two: a percentile is at most 1/128 above what was measured.
const SUB_BITS: u32 = 7;
const SUB: usize = 1 << SUB_BITS;
/// One group of buckets below 2^7 ns, one for each power of two above it.
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) * SUB;

/// Counts of durations; its size does not depend on how many there are.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(nanos)) {
            *count += 1;
        }
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    /// How many durations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The duration in microseconds that `percent` of all do not exceed; 0 if there are none.
    #[must_use]
    pub fn percentile_us(&self, percent: f64) -> f64 {
        let wanted = (self.count as f64 * percent / 100.0).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_bound(index).min(self.max) as f64 / 1000.0;
            }
        }
        0.0
    }

    /// The longest duration in microseconds, as it was measured.
    #[must_use]
    pub fn max_us(&self) -> f64 {
        self.max as f64 / 1000.0
    }
}

/// Returns the bucket of a value: exact below 128, then 128 to each power of two.
fn bucket(nanos: u64) -> usize {
    let group = (u64::BITS - nanos.leading_zeros()).saturating_sub(SUB_BITS);
    if group == 0 {
        return nanos as usize;
    }
    // The highest bit is implied by the group, so only the 7 bits below it are kept.
    let shift = group - 1;
    group as usize * SUB + ((nanos >> shift) as usize - SUB)
}

/// Returns the largest value of a bucket.
fn upper_bound(index: usize) -> u64 {
    let (group, sub) = (index / SUB, (index % SUB) as u64);
    if group == 0 {
        return sub;
    }
    let shift = group - 1;
    let above = u128::from(SUB as u64 + sub + 1) << shift;
    u64::try_from(above - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_and_no_wider_than_a_128th() {
        let mut before = 0;
        for power in 0..64 {
            for offset in [0, 1, 3] {
                let value = (1u64 << power) + offset;
                let bound = upper_bound(bucket(value));
                assert!(bound >= value, "{value}: {bound}");
                assert!(bound - value <= value / 128, "{value}: {bound}");
                assert!(bucket(value) < BUCKETS);
            }
            let index = bucket(1 << power);
            assert!(index > before || power == 0, "buckets grow with the value");
            before = index;
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn percentiles_of_one_to_a_thousand() {
        let mut histogram = Histogram::default();
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        assert_eq!(histogram.count(), 1000);
        for (percent, expected) in [(50.0, 500.0), (95.0, 950.0), (99.0, 990.0)] {
            let found = histogram.percentile_us(percent);
            assert!((expected..=expected * 1.01).contains(&found), "p{percent}: {found}");
        }
        assert!((histogram.max_us() - 1000.0).abs() < f64::EPSILON);
        assert!((histogram.percentile_us(100.0) - 1000.0).abs() < f64::EPSILON);
    }

    #[test]
    fn nothing_counted_is_zero() {
        assert!(Histogram::default().percentile_us(99.0).abs() < f64::EPSILON);
    }
}
