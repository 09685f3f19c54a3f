//! DTM's JSON in columns: `options`, `ext_data` and what `custom_data` means.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dtmd_protocol::{Mode, Options, TransType};
use serde_json::{Map, Value};

/// Returns the option set as DTM keeps it (spec 01 §1.4), with milliseconds beside its seconds.
pub(crate) fn write(options: &Options) -> String {
    let mut map = Map::new();
    if options.wait_result {
        map.insert("wait_result".into(), true.into());
    }
    for (name, value) in [
        ("timeout_to_fail", options.timeout_to_fail),
        ("request_timeout", options.request_timeout),
        ("retry_interval", options.retry_interval),
    ] {
        let Some(value) = value else { continue };
        let fraction = u64::from(value.subsec_nanos() > 0);
        map.insert(name.into(), (value.as_secs() + fraction).into());
        if fraction > 0 {
            let millis = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
            map.insert(format!("{name}_ms"), millis.into());
        }
    }
    if !options.branch_headers.is_empty() {
        let headers = options.branch_headers.iter();
        let headers = headers.map(|(name, value)| (name.clone(), value.clone().into()));
        map.insert("branch_headers".into(), Value::Object(headers.collect()));
    }
    map.insert("concurrent".into(), options.concurrent.into());
    for (name, count) in
        [("retry_limit", options.retry_limit), ("retry_count", options.retry_count)]
    {
        if count > 0 {
            map.insert(name.into(), count.into());
        }
    }
    Value::Object(map).to_string()
}

/// Returns the options of a row that a DTM server wrote.
///
/// # Errors
///
/// What is wrong, in words.
pub(crate) fn read(options: &str, ext_data: &str) -> Result<Options, String> {
    let map = object("options", options)?;
    let seconds = |name: &str| {
        let millis = map.get(&format!("{name}_ms")).and_then(Value::as_u64);
        let whole = map.get(name).and_then(Value::as_i64).filter(|&seconds| seconds > 0);
        let whole = whole.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        millis.filter(|&millis| millis > 0).map(Duration::from_millis).or(whole)
    };
    let flag = |name: &str| map.get(name).and_then(Value::as_bool).unwrap_or(false);
    let count = |name: &str| {
        let count = map.get(name).and_then(Value::as_i64).unwrap_or(0).max(0);
        u32::try_from(count).unwrap_or(u32::MAX)
    };
    let mut headers = BTreeMap::new();
    let ext = object("ext_data", ext_data)?;
    for source in [ext.get("headers"), map.get("branch_headers")] {
        let Some(Value::Object(found)) = source else { continue };
        let texts = found.iter().filter_map(|(name, value)| Some((name, value.as_str()?)));
        headers.extend(texts.map(|(name, value)| (name.clone(), value.to_owned())));
    }
    Ok(Options {
        wait_result: flag("wait_result"),
        timeout_to_fail: seconds("timeout_to_fail"),
        request_timeout: seconds("request_timeout"),
        retry_interval: seconds("retry_interval"),
        retry_limit: count("retry_limit"),
        retry_count: count("retry_count"),
        concurrent: flag("concurrent"),
        branch_headers: Arc::new(headers),
    })
}

/// Returns what only one mode has, from the `custom_data` of a row that a DTM server wrote
/// (spec 01 §1.5).
///
/// # Errors
///
/// What is wrong, in words.
pub(crate) fn mode(trans_type: TransType, custom_data: &str, steps: usize) -> Result<Mode, String> {
    let members = match trans_type {
        TransType::Tcc => return Ok(Mode::Tcc),
        TransType::Xa => return Ok(Mode::Xa),
        TransType::Saga | TransType::Msg | TransType::Workflow => {
            object("custom_data", custom_data)?
        }
    };
    // DTM's decoder does not care for the case.
    let member = |name: &str| {
        let mut found = members.iter();
        found.find(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    };
    Ok(match trans_type {
        TransType::Tcc => Mode::Tcc,
        TransType::Xa => Mode::Xa,
        TransType::Saga => Mode::Saga {
            concurrent: member("concurrent").and_then(Value::as_bool).unwrap_or(false),
            orders: orders(member("orders"), steps)?.into(),
        },
        TransType::Msg => {
            let delay = member("delay").and_then(Value::as_u64).unwrap_or(0);
            Mode::Msg { delay: Duration::from_secs(delay) }
        }
        TransType::Workflow => {
            let name = member("name").and_then(Value::as_str).unwrap_or_default();
            let data = member("data").and_then(Value::as_str).unwrap_or_default();
            let data = base64(data).ok_or("custom_data.data is not base64")?;
            Mode::Workflow { name: name.into(), data: data.into() }
        }
    })
}

/// Saga orders: a map from the step's index, as text, to the steps before it; a list where an SDK
/// wrote the map's keys 0, 1, 2, … as one.
fn orders(value: Option<&Value>, steps: usize) -> Result<Vec<Vec<usize>>, String> {
    let listed: Vec<(String, &Value)> = match value {
        Some(Value::Object(map)) => map.iter().map(|(step, list)| (step.clone(), list)).collect(),
        Some(Value::Array(list)) => {
            list.iter().enumerate().map(|(step, list)| (step.to_string(), list)).collect()
        }
        _ => return Ok(Vec::new()),
    };
    let mut orders = Vec::new();
    for (step, before) in listed {
        let wrong = || format!("custom_data.orders: step {step} does not exist");
        let at = step.parse::<usize>().ok().filter(|&at| at < steps).ok_or_else(wrong)?;
        if orders.len() <= at {
            orders.resize(at + 1, Vec::new());
        }
        let before = before.as_array().map(Vec::as_slice).unwrap_or_default().iter();
        orders[at] = before
            .map(|step| step.as_u64().and_then(|step| usize::try_from(step).ok()))
            .map(|step| step.filter(|&step| step < steps).ok_or_else(wrong))
            .collect::<Result<_, _>>()?;
    }
    Ok(orders)
}

/// An empty text and null are empty objects.
fn object(what: &str, text: &str) -> Result<Map<String, Value>, String> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let map: Option<Map<String, Value>> =
        serde_json::from_str(text).map_err(|error| format!("{what}: {error}"))?;
    Ok(map.unwrap_or_default())
}

/// Returns the bytes of standard base64.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let mut bits = 0u32;
        for at in 0..4 {
            let value = match group.get(at) {
                Some(digit @ b'A'..=b'Z') => digit - b'A',
                Some(digit @ b'a'..=b'z') => digit - b'a' + 26,
                Some(digit @ b'0'..=b'9') => digit - b'0' + 52,
                Some(b'+') => 62,
                Some(b'/') => 63,
                Some(_) => return None,
                None => 0,
            };
            bits = bits << 6 | u32::from(value);
        }
        if group.len() == 1 {
            return None;
        }
        bytes.extend(&bits.to_be_bytes()[1..group.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_their_text() {
        let headers = BTreeMap::from([("a".to_owned(), "b\"c".to_owned())]);
        let options = Options {
            wait_result: true,
            timeout_to_fail: Some(Duration::from_millis(1500)),
            request_timeout: Some(Duration::from_secs(3)),
            retry_interval: None,
            retry_limit: 3,
            retry_count: 0,
            concurrent: true,
            branch_headers: Arc::new(headers),
        };
        assert_eq!(read(&write(&options), "").unwrap(), options);
        assert_eq!(write(&Options::default()), "{\"concurrent\":false}");
        assert_eq!(read("", "null").unwrap(), Options::default());
        assert!(read("{", "").is_err());
    }

    #[test]
    fn ext_data_adds_headers() {
        let options =
            read("{\"branch_headers\":{\"a\":\"1\"}}", "{\"headers\":{\"a\":\"0\",\"b\":\"2\"}}");
        let headers = options.unwrap().branch_headers;
        assert_eq!(headers.get("a").map(String::as_str), Some("1"));
        assert_eq!(headers.get("b").map(String::as_str), Some("2"));
    }

    #[test]
    fn custom_data_means_what_it_means_to_dtm() {
        let saga = |orders: Vec<Vec<usize>>, concurrent| {
            Ok(Mode::Saga { concurrent, orders: orders.into() })
        };
        let mode_of = |kind, text| mode(kind, text, 3);
        assert_eq!(mode_of(TransType::Saga, ""), saga(vec![], false));
        assert_eq!(
            mode_of(TransType::Saga, "{\"orders\":{\"2\":[0,1]},\"concurrent\":true}"),
            saga(vec![vec![], vec![], vec![0, 1]], true)
        );
        assert_eq!(
            mode_of(TransType::Saga, "{\"orders\":[[],[0]]}"),
            saga(vec![vec![], vec![0]], false)
        );
        assert!(mode_of(TransType::Saga, "{\"orders\":{\"9\":[0]}}").is_err());
        let delay = Mode::Msg { delay: Duration::from_secs(5) };
        assert_eq!(mode_of(TransType::Msg, "{\"Delay\":5}"), Ok(delay));
        let workflow = Mode::Workflow { name: "w".into(), data: Arc::from(&b"hi!?"[..]) };
        assert_eq!(
            mode_of(TransType::Workflow, "{\"name\":\"w\",\"data\":\"aGkhPw==\"}"),
            Ok(workflow)
        );
    }
}
