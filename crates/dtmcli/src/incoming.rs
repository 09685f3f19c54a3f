//! Which branch a request calls.

use http::{HeaderMap, Uri};

use crate::Branch;
use crate::barrier::ParseError;

/// From the query string (HTTP), else from the headers (gRPC). The error is that of the one that
/// was meant.
pub(crate) fn branch(uri: &Uri, headers: &HeaderMap) -> Result<Branch, ParseError> {
    if headers.contains_key("dtm-gid") {
        let text =
            headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        return Branch::from_metadata(text);
    }
    Branch::from_query(uri.query().unwrap_or_default())
}
