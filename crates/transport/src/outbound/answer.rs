//! Reading an answer of HTTP/1: bytes in, status and body out. No I/O here.
//!
//! What is not plainly one answer is none: a caller takes it for an unknown outcome, which is never
//! wrong. Whether the connection can be used again is decided here, too, and the other way round:
//! only after an answer whose end is beyond doubt.

use std::mem::MaybeUninit;

use httparse::{Header, ParserConfig, Response, Status};

/// The longest head of an answer, in bytes, interim answers before it included; trailers count, too.
const HEAD_MAX_BYTES: usize = 64 << 10;
/// The most header lines of an answer.
const HEADERS_MAX: usize = 100;
/// A head this short is judged at every read, so that what is no HTTP at all is soon seen; a longer
/// one when its end has come, or reading it byte by byte would cost the square of its length.
const JUDGED_EARLY_BYTES: usize = 1 << 10;
/// The longest line between chunks: a length and what extensions there are.
const CHUNK_LINE_MAX_BYTES: usize = 4 << 10;

/// What an answer is judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answered {
    /// Its status.
    pub(super) status: u16,
    /// Its body, up to the limit.
    pub(super) body: Vec<u8>,
    /// Whether the service will take another request on the connection.
    pub(super) is_kept_alive: bool,
}

/// Why bytes are no answer: a few words for people.
pub(super) type NotHttp = &'static str;

/// How far an answer is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In its head; so many bytes are known not to hold the head's end.
    Head { searched: usize },
    /// In a body of known length; so many bytes are missing.
    Length(u64),
    /// Before the length of a chunk.
    ChunkLength,
    /// In a chunk; so many bytes are missing.
    Chunk(u64),
    /// Before the end of the line that ends a chunk.
    ChunkEnd,
    /// After the last chunk.
    Trailers,
    /// In a body that ends with the connection.
    UntilClose,
    /// At its end.
    Done,
}

/// Reads one answer.
#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    status: u16,
    body: Vec<u8>,
    is_kept_alive: bool,
    body_max: usize,
    /// The body does not matter.
    head_only: bool,
    /// Bytes of head and trailers so far.
    head_bytes: usize,
}

impl Reader {
    /// Returns a reader that keeps so much of a body. A longer one is cut off.
    pub(super) fn new(body_max: usize) -> Self {
        Self {
            state: State::Head { searched: 0 },
            status: 0,
            body: Vec::new(),
            is_kept_alive: false,
            body_max,
            head_only: false,
            head_bytes: 0,
        }
    }

    /// Returns a reader that is done when it knows the status.
    pub(super) fn head_only() -> Self {
        Self { head_only: true, ..Self::new(0) }
    }

    /// Returns whether the answer's head is still incomplete.
    pub(super) fn is_in_head(&self) -> bool {
        matches!(self.state, State::Head { .. })
    }

    /// Reads on in `input`, all that has come and was not consumed before; returns how much of it
    /// is consumed now. There is more to read unless the answer [`is_done`](Self::is_done).
    ///
    /// # Errors
    ///
    /// It is no answer. The connection is of no more use.
    pub(super) fn advance(&mut self, input: &[u8]) -> Result<usize, NotHttp> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            let read = match self.state {
                State::Head { searched } => self.head(rest, searched)?,
                State::Length(left) => self.piece(rest, left, State::Length, State::Done),
                State::Chunk(left) => self.piece(rest, left, State::Chunk, State::ChunkEnd),
                State::UntilClose => self.piece(rest, u64::MAX, |_| State::UntilClose, State::Done),
                State::ChunkLength => self.chunk_length(rest)?,
                State::ChunkEnd => match rest {
                    [] | [b'\r'] => 0,
                    [b'\r', b'\n', ..] => {
                        self.state = State::ChunkLength;
                        2
                    }
                    _ => return Err("a chunk is longer than it says"),
                },
                State::Trailers => self.trailer(rest)?,
                State::Done => break,
            };
            at += read;
            if read == 0 {
                break;
            }
        }
        if self.is_done() && at < input.len() {
            // Nobody asked for what follows: it must not be taken for the next answer.
            self.is_kept_alive = false;
        }
        Ok(at)
    }

    /// Returns whether the answer is complete, or as much of it as is wanted.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes note that the connection has ended; `input` is what was not consumed.
    ///
    /// # Errors
    ///
    /// The answer is not complete by that: `None` if it broke off, otherwise why it is no HTTP.
    pub(super) fn end(&mut self, input: &[u8]) -> Result<(), Option<NotHttp>> {
        match self.state {
            State::UntilClose => self.state = State::Done,
            State::Done => {}
            State::Head { .. } => {
                // A short head was judged already; a long one may show only now that it is none.
                let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
                parse(input, &mut headers).map_err(Some)?;
                return Err(None);
            }
            _ => return Err(None),
        }
        Ok(())
    }

    /// Returns the answer.
    pub(super) fn into_answer(self) -> Answered {
        let Self { status, body, is_kept_alive, .. } = self;
        Answered { status, body, is_kept_alive }
    }

    fn head(&mut self, input: &[u8], searched: usize) -> Result<usize, NotHttp> {
        // The end's first line feed may have come before.
        let ends = has_end(&input[searched.saturating_sub(2)..]);
        if !ends && input.len() > JUDGED_EARLY_BYTES {
            self.count_head(input.len())?;
            self.state = State::Head { searched: input.len() };
            return Ok(0);
        }
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let Some((length, response)) = parse(input, &mut headers)? else {
            self.count_head(input.len())?;
            self.state = State::Head { searched: input.len() };
            return Ok(0);
        };
        self.count_head(length)?;
        self.head_bytes += length;
        self.status = response.code.unwrap_or(0);
        if (100..200).contains(&self.status) && self.status != 101 {
            // An interim answer: the real one follows.
            self.state = State::Head { searched: 0 };
            return Ok(length);
        }
        self.state = self.framing(&response)?;
        if self.head_only {
            self.is_kept_alive = false;
            self.state = State::Done;
        }
        Ok(length)
    }

    fn count_head(&self, more: usize) -> Result<(), NotHttp> {
        match self.head_bytes.saturating_add(more) > HEAD_MAX_BYTES {
            true => Err("its head is too long"),
            false => Ok(()),
        }
    }

    /// Returns what follows the head (RFC 9112 §6.3), and notes whether the connection is kept.
    fn framing(&mut self, response: &Response<'_, '_>) -> Result<State, NotHttp> {
        let mut length = None;
        let mut coding = None;
        let mut closes = response.version != Some(1) || self.status == 101;
        for header in response.headers.iter() {
            let name = header.name;
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(one_length(length, header.value)?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                // Several lines are one list; what matters is its last word.
                coding = words(header.value).last().or(coding);
            } else if name.eq_ignore_ascii_case("connection") {
                closes |= words(header.value).any(|word| word.eq_ignore_ascii_case(b"close"));
            }
        }
        // Who sends both may be two who see two different answers; this one is read by its chunks,
        // as everybody does, and then the connection ends.
        closes |= coding.is_some() && length.is_some();
        self.is_kept_alive = !closes;
        if self.status == 101 || self.status == 204 || self.status == 304 {
            return Ok(State::Done);
        }
        match (coding, length) {
            (Some(coding), _) if coding.eq_ignore_ascii_case(b"chunked") => Ok(State::ChunkLength),
            (None, Some(0)) => Ok(State::Done),
            (None, Some(length)) => {
                let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(self.body_max);
                self.body.reserve_exact(wanted.min(HEAD_MAX_BYTES));
                Ok(State::Length(length))
            }
            (Some(_), _) | (None, None) => {
                self.is_kept_alive = false;
                Ok(State::UntilClose)
            }
        }
    }

    /// Takes the next piece of a body of which `left` bytes are missing.
    fn piece(&mut self, input: &[u8], left: u64, more: fn(u64) -> State, after: State) -> usize {
        let here = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let room = self.body_max - self.body.len();
        self.body.extend_from_slice(&input[..here.min(room)]);
        if here > room {
            // What is beyond does not count, and is not waited for.
            self.is_kept_alive = false;
            self.state = State::Done;
            return here;
        }
        let left = left - here as u64;
        self.state = if left == 0 { after } else { more(left) };
        here
    }

    fn chunk_length(&mut self, input: &[u8]) -> Result<usize, NotHttp> {
        let Some(text) = line(input, CHUNK_LINE_MAX_BYTES)? else { return Ok(0) };
        let digits = text.split(|byte| *byte == b';').next().unwrap_or(text).trim_ascii_end();
        let is_hex = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
        let digits = std::str::from_utf8(digits).ok().filter(|_| is_hex);
        let length = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        self.state = match length.ok_or("a chunk's length is not a number")? {
            0 => State::Trailers,
            length => State::Chunk(length),
        };
        Ok(text.len() + 2)
    }

    /// Passes over a line after the last chunk: nothing in it matters here.
    fn trailer(&mut self, input: &[u8]) -> Result<usize, NotHttp> {
        let Some(text) = line(input, HEAD_MAX_BYTES)? else { return Ok(0) };
        self.count_head(text.len() + 2)?;
        self.head_bytes += text.len() + 2;
        if text.is_empty() {
            self.state = State::Done;
        }
        Ok(text.len() + 2)
    }
}

/// Parses a head; `None` if it is not complete.
fn parse<'h, 'b>(
    input: &'b [u8],
    headers: &'h mut [MaybeUninit<Header<'b>>],
) -> Result<Option<(usize, Response<'h, 'b>)>, NotHttp> {
    let mut response = Response::new(&mut []);
    let parsed =
        ParserConfig::default().parse_response_with_uninit_headers(&mut response, input, headers);
    match parsed {
        Ok(Status::Complete(length)) => Ok(Some((length, response))),
        Ok(Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err("it has too many headers"),
        Err(httparse::Error::Version) => Err("its first line is not one of HTTP/1"),
        Err(httparse::Error::Status) => Err("its status is not a number"),
        Err(_) => Err("its head is malformed"),
    }
}

/// Returns whether a head's end may be in here.
fn has_end(input: &[u8]) -> bool {
    let mut feeds = input.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    feeds.any(|(at, _)| matches!(input.get(at + 1..), Some([b'\n', ..] | [b'\r', b'\n', ..])))
}

/// Returns the line that begins `input`, without its end; `None` if its end has not come.
fn line(input: &[u8], longest: usize) -> Result<Option<&[u8]>, NotHttp> {
    let end = input.iter().take(longest.saturating_add(1)).position(|byte| *byte == b'\n');
    match end {
        Some(end) => match input[..end].strip_suffix(b"\r") {
            Some(text) => Ok(Some(text)),
            None => Err("a line of its chunks does not end as lines do"),
        },
        None if input.len() > longest => Err("a line of its chunks is too long"),
        None => Ok(None),
    }
}

/// Returns the words of a header that is a list.
fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|word| !word.is_empty())
}

/// Returns the length that all say, those before and these; different ones are none.
fn one_length(before: Option<u64>, value: &[u8]) -> Result<u64, NotHttp> {
    let mut length = before;
    let mut said = false;
    for word in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        let is_number = !word.is_empty() && word.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(word).ok().filter(|_| is_number);
        let number: u64 = number
            .and_then(|digits| digits.parse().ok())
            .ok_or("its content-length is not a number")?;
        if length.is_some_and(|length| length != number) {
            return Err("it has two lengths");
        }
        length = Some(number);
        said = true;
    }
    length.filter(|_| said).ok_or("its content-length is not a number")
}

#[cfg(test)]
mod tests;
