//! Answers in one piece, in many, cut short, and hostile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;

use super::*;

const LIMIT: usize = 64;

/// What bytes come to when the connection ends after them: status, body, kept; or why none.
type Outcome = Result<(u16, String, bool), Option<NotHttp>>;

/// Reads pieces as they come from a socket, and then its end.
fn read(pieces: &[&[u8]]) -> Outcome {
    let mut reader = Reader::new(LIMIT);
    let mut unread = Vec::new();
    for piece in pieces {
        unread.extend_from_slice(piece);
        let consumed = reader.advance(&unread).map_err(Some)?;
        unread.drain(..consumed);
        if reader.is_done() {
            break;
        }
    }
    if !reader.is_done() {
        reader.end(&unread)?;
    }
    let Answered { status, body, is_kept_alive } = reader.into_answer();
    Ok((status, String::from_utf8_lossy(&body).into_owned(), is_kept_alive))
}

fn read_whole(text: &str) -> Outcome {
    read(&[text.as_bytes()])
}

fn read_bytewise(text: &str) -> Outcome {
    read(&text.as_bytes().chunks(1).collect::<Vec<_>>())
}

fn ok(status: u16, body: &str, is_kept_alive: bool) -> Outcome {
    Ok((status, body.to_owned(), is_kept_alive))
}

const H: &str = "HTTP/1.1 200 OK\r\n";

#[test]
fn answers_and_whether_their_connection_is_kept() {
    let table = [
        ("Content-Length: 2\r\n\r\n{}", ok(200, "{}", true)),
        ("content-length:2\r\n\r\n{}", ok(200, "{}", true)),
        ("Content-Length: 0\r\n\r\n", ok(200, "", true)),
        ("Content-Length: 2, 2\r\n\r\n{}", ok(200, "{}", true)),
        ("Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", ok(200, "{}", true)),
        ("Content-Length: 2\r\nConnection: keep-alive\r\n\r\n{}", ok(200, "{}", true)),
        ("Content-Length: 2\r\nConnection: close\r\n\r\n{}", ok(200, "{}", false)),
        ("Content-Length: 2\r\nConnection: x, CLOSE\r\n\r\n{}", ok(200, "{}", false)),
        ("Content-Length: 2\r\nConnection: x\r\nConnection: close\r\n\r\n{}", ok(200, "{}", false)),
        ("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ok(200, "", true)),
        ("Transfer-Encoding: Chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", ok(200, "{}", true)),
        (
            "Transfer-Encoding: chunked\r\n\r\n1;a=\"b\"\r\n{\r\n01 \r\n}\r\n0\r\nX: y\r\n\r\n",
            ok(200, "{}", true),
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
            ok(200, "0123456789", true),
        ),
        // The end of the connection is the end of the body.
        ("\r\n{}", ok(200, "{}", false)),
        ("\r\n", ok(200, "", false)),
        ("Transfer-Encoding: gzip\r\n\r\nxyz", ok(200, "xyz", false)),
        ("Transfer-Encoding: chunked, gzip\r\n\r\nxyz", ok(200, "xyz", false)),
        (
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            ok(200, "x", true),
        ),
        // Whoever sends both is read by the chunks, once.
        (
            "Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            ok(200, "x", false),
        ),
        // What nobody asked for is not the next answer.
        ("Content-Length: 2\r\n\r\n{}HTTP/1.1 409 No\r\n\r\n", ok(200, "{}", false)),
        ("Content-Length: 0\r\n\r\n ", ok(200, "", false)),
    ];
    for (text, expected) in table {
        let text = format!("{H}{text}");
        assert_eq!(read_whole(&text), expected, "{text}");
        // In pieces it is the same, but that what follows has not come when it is done.
        if text.contains("{}HTTP") || text.ends_with(' ') {
            continue;
        }
        assert_eq!(read_bytewise(&text), expected, "{text}");
    }
}

#[test]
fn answers_without_a_body_and_before_the_answer() {
    let table = [
        ("HTTP/1.1 204 No Content\r\n\r\n", ok(204, "", true)),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", ok(304, "", true)),
        ("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\nabc", ok(101, "", false)),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", ok(200, "{}", false)),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",
            ok(200, "{}", false),
        ),
        ("HTTP/1.1 409\r\nContent-Length: 0\r\n\r\n", ok(409, "", true)),
        ("\r\nHTTP/1.1 200 OK\nContent-Length: 2\n\n{}", ok(200, "{}", true)),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 425 Later\r\nContent-Length: 1\r\n\r\n!",
            ok(425, "!", true),
        ),
    ];
    for (text, expected) in table {
        assert_eq!(read_whole(text), expected, "{text}");
        if !text.contains(" 101 ") {
            assert_eq!(read_bytewise(text), expected, "{text}");
        }
    }
}

#[test]
fn bodies_are_kept_up_to_the_limit() {
    let exact = "x".repeat(LIMIT);
    let chunk = format!("{LIMIT:x}\r\n{exact}\r\n");
    let table = [
        (format!("Content-Length: {LIMIT}\r\n\r\n{exact}"), true),
        (format!("Content-Length: {}\r\n\r\n{exact}y", LIMIT + 1), false),
        (format!("Content-Length: 18446744073709551615\r\n\r\n{exact}yyyy"), false),
        (format!("Transfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n"), true),
        (format!("Transfer-Encoding: chunked\r\n\r\n{chunk}1\r\ny\r\n0\r\n\r\n"), false),
        (format!("Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{exact}yyyy"), false),
        (format!("\r\n{exact}yyyy"), false),
    ];
    for (text, is_kept) in table {
        let text = format!("{H}{text}");
        assert_eq!(read_whole(&text), ok(200, &exact, is_kept), "{text}");
        assert_eq!(read_bytewise(&text), ok(200, &exact, is_kept), "{text}");
    }
}

#[test]
fn what_is_no_answer() {
    let table = [
        ("SSH-2.0-OpenSSH_9.6\r\n", "its first line is not one of HTTP/1"),
        ("HTTP/2.0 200 OK\r\n\r\n", "its first line is not one of HTTP/1"),
        ("HTTP/1.1 2x0 OK\r\n\r\n", "its status is not a number"),
        ("HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n{}", "its head is malformed"),
        ("HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", "its head is malformed"),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "its content-length is not a number"),
        ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}", "its content-length is not a number"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\n{}", "its content-length is not a number"),
        ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n{}", "its content-length is not a number"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2,\r\n\r\n{}", "its content-length is not a number"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "its content-length is not a number",
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\n{}", "it has two lengths"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 3\r\n\r\n{}",
            "it has two lengths",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "a chunk's length is not a number",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
            "a chunk's length is not a number",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n",
            "a chunk's length is not a number",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n 1\r\nx\r\n",
            "a chunk's length is not a number",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n",
            "a chunk's length is not a number",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\n",
            "a line of its chunks does not end as lines do",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n",
            "a chunk is longer than it says",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\n\r\n",
            "a chunk is longer than it says",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(read_whole(text), Err(Some(expected)), "{text}");
        assert_eq!(read_bytewise(text), Err(Some(expected)), "{text}");
    }
    let lines = "X: y\r\n".repeat(HEADERS_MAX + 1);
    assert_eq!(read_whole(&format!("{H}{lines}\r\n")), Err(Some("it has too many headers")));
    let long = format!("X: {}\r\n", "y".repeat(HEAD_MAX_BYTES));
    assert_eq!(read_whole(&format!("{H}{long}\r\n")), Err(Some("its head is too long")));
    assert_eq!(read_whole(&format!("{H}{long}")), Err(Some("its head is too long")));
    let interim = "HTTP/1.1 102 Wait\r\n\r\n".repeat(HEAD_MAX_BYTES / 20);
    assert_eq!(read_whole(&interim), Err(Some("its head is too long")), "for ever");
    let extension = format!("1;{}", "e".repeat(CHUNK_LINE_MAX_BYTES));
    let text = format!("{H}Transfer-Encoding: chunked\r\n\r\n{extension}");
    assert_eq!(read_whole(&text), Err(Some("a line of its chunks is too long")));
    let trailers = "X: y\r\n".repeat(HEAD_MAX_BYTES / 6);
    let text = format!("{H}Transfer-Encoding: chunked\r\n\r\n0\r\n{trailers}");
    assert_eq!(read_whole(&text), Err(Some("its head is too long")));
}

#[test]
fn an_answer_that_breaks_off_is_none_wherever_it_does() {
    for text in [
        format!("{H}Content-Length: 5\r\n\r\nhello"),
        format!("{H}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n"),
        format!("HTTP/1.1 100 Continue\r\n\r\n{H}Content-Length: 5\r\n\r\nhello"),
    ] {
        for cut in 0..text.len() {
            assert_eq!(read_whole(&text[..cut]), Err(None), "{}", &text[..cut]);
        }
        assert!(read_whole(&text).is_ok());
    }
}

/// A head of any length ends where it ends, also when its end comes in pieces.
#[test]
fn the_end_of_a_long_head_is_found_across_pieces() {
    for filler in (900..1200).step_by(7) {
        let text = format!("{H}X: {}\r\nContent-Length: 2\r\n\r\n{{}}", "y".repeat(filler));
        assert_eq!(read_bytewise(&text), ok(200, "{}", true));
        let (one, two) = text.as_bytes().split_at(text.len() - 4);
        assert_eq!(read(&[one, two]), ok(200, "{}", true));
    }
}

#[test]
fn only_the_head_is_read_where_only_it_matters() {
    let mut reader = Reader::head_only();
    reader.advance(b"HTTP/1.1 202 Accepted\r\nContent-Length: 99\r\n\r\n").unwrap();
    assert!(reader.is_done());
    let answer = reader.into_answer();
    assert_eq!((answer.status, answer.is_kept_alive), (202, false));
}

fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 100 Go\r\n\r\n",
        "HTTP/1.0 409 No\r\n",
        "HTTP/1.1 204 \r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 30\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "\r\n",
        "\r\n\r\n",
        "\n",
        "3\r\n",
        "0\r\n",
        "abc",
        "abc\r\n",
        "f;x\r\n",
        "\0",
    ]);
    let word = prop_oneof![
        9 => words.prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes, in whatever pieces: it ends, it keeps to its bounds, and the pieces do not
    /// change what it is.
    #[test]
    fn pieces_do_not_matter(bytes in fragments(), cuts in prop::collection::vec(0usize..200, 0..6)) {
        let whole = read(&[&bytes]);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&bytes[from..cut]);
            from = cut;
        }
        pieces.push(&bytes[from..]);
        let pieced = read(&pieces);
        if let Ok((_, body, _)) = &whole {
            prop_assert!(body.len() <= 3 * LIMIT);
        }
        // What follows an answer is seen only if it has come with it.
        let strip = |outcome: &Outcome| outcome.clone().map(|(status, body, _)| (status, body));
        prop_assert_eq!(strip(&whole), strip(&pieced));
        if let (Ok((.., true)), Ok((.., kept))) = (&whole, &pieced) {
            prop_assert!(*kept);
        }
    }
}
