//! Just enough of HTTP/1.1 for both ends of a benchmark: heads with a Content-Length.

/// The head of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    /// The request line or status line.
    pub(crate) first: &'a [u8],
    /// Bytes of the head, its empty line included.
    pub(crate) head_bytes: usize,
    /// Bytes of the body; 0 if it comes in chunks.
    pub(crate) body_bytes: usize,
    /// Whether the body comes in chunks.
    pub(crate) is_chunked: bool,
}

impl Head<'_> {
    /// Bytes of the whole message.
    pub(crate) fn message_bytes(&self) -> usize {
        self.head_bytes.saturating_add(self.body_bytes)
    }

    /// The status of a response.
    pub(crate) fn status(&self) -> Option<u16> {
        let digits = self.first.strip_prefix(b"HTTP/1.")?.get(2..5)?;
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// The target of a request.
    pub(crate) fn target(&self) -> &[u8] {
        self.first.split(|byte| *byte == b' ').nth(1).unwrap_or_default()
    }
}

/// Why bytes are no message that can be read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable(pub(crate) &'static str);

/// Finds the head at the start of `buf`; `None` if it is not whole yet.
pub(crate) fn head(buf: &[u8]) -> Result<Option<Head<'_>>, Unreadable> {
    let Some(end) = buf.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let (mut first, mut body_bytes, mut is_chunked) = (None, 0, false);
    for line in buf[..end].split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if first.is_none() {
            first = Some(line);
        } else if let Some(value) = header(line, b"content-length:") {
            let text = std::str::from_utf8(value).unwrap_or_default().trim();
            body_bytes = text.parse().map_err(|_| Unreadable("a Content-Length is no number"))?;
        } else if header(line, b"transfer-encoding:").is_some() {
            is_chunked = true;
        }
    }
    let first = first.unwrap_or_default();
    Ok(Some(Head { first, head_bytes: end + 4, body_bytes, is_chunked }))
}

/// Returns the body that comes in these chunks; `None` if the last one has not come yet.
pub(crate) fn unchunked(mut chunks: &[u8]) -> Result<Option<Vec<u8>>, Unreadable> {
    let mut body = Vec::new();
    loop {
        let Some(end) = chunks.windows(2).position(|bytes| bytes == b"\r\n") else {
            return Ok(None);
        };
        let digits = chunks[..end].split(|byte| *byte == b';').next().unwrap_or_default();
        let size = std::str::from_utf8(digits).ok();
        let size = size.and_then(|digits| usize::from_str_radix(digits.trim(), 16).ok());
        let size = size.ok_or(Unreadable("a chunk's size is no number"))?;
        let (from, to) = (end + 2, (end + 2).saturating_add(size));
        match chunks.get(from..to) {
            // Both servers end with an empty line here: they send no trailers.
            _ if size == 0 => return Ok(chunks.get(to..to + 2).map(|_| body)),
            Some(chunk) => body.extend_from_slice(chunk),
            None => return Ok(None),
        }
        chunks = chunks.get(to + 2..).unwrap_or_default();
    }
}

/// The value of a line if it is the header of this lower-case name.
fn header<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_found_when_they_are_whole() {
        let text = b"HTTP/1.1 409 Conflict\r\nContent-length: 3\r\nx: y\r\n\r\nabcHTTP/1.1";
        for cut in 0..47 {
            assert_eq!(head(&text[..cut]), Ok(None), "{cut}");
        }
        let found = head(text).unwrap().unwrap();
        assert_eq!((found.status(), found.body_bytes), (Some(409), 3));
        assert_eq!(&text[found.head_bytes..found.message_bytes()], b"abc");
    }

    #[test]
    fn a_request_has_a_target() {
        let found = head(b"POST /step?gid=1 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().unwrap();
        assert_eq!((found.target(), found.body_bytes), (&b"/step?gid=1"[..], 0));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        assert!(head(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n").is_err());
        assert!(unchunked(b"zz\r\n").is_err());
    }

    #[test]
    fn chunks_become_a_body_when_the_last_one_is_there() {
        let head = head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        assert!(head.unwrap().is_chunked);
        let chunks = b"3\r\nabc\r\na;x=y\r\n0123456789\r\n0\r\n\r\n";
        for cut in 0..chunks.len() {
            assert_eq!(unchunked(&chunks[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(unchunked(chunks), Ok(Some(b"abc0123456789".to_vec())));
    }
}
