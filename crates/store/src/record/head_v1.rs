//! The few members of a version 1 record that an index keeps, read without building the rest.
//!
//! It goes over the bytes as `write_v1.rs` writes them; the tests compare it with the library's way.

use dtmd_protocol::{GlobalStatus, Timestamp, TransType};

use super::{Head, RecordError};

/// Returns the head of a record's body. What stands behind it is not looked at.
pub(super) fn head(body: &[u8]) -> Result<Head<'_>, RecordError> {
    let mut rest = Rest(body);
    let gid = rest.text("gid")?;
    rest.bytes("namespace")?;
    let trans_type = rest.mode()?;
    let status = rest.status()?;
    rest.tag("protocol")?;
    rest.bytes("query_prepared")?;
    rest.bytes("custom_data")?;
    rest.options()?;
    rest.each("steps", |rest| {
        rest.bytes("action")?;
        rest.bytes("compensate")
    })?;
    rest.skip_number("content")?;
    rest.each("branches", Rest::branch)?;
    let created = rest.time("created")?;
    rest.time("updated")?;
    let finished = rest.optional("finished", |rest| rest.time("finished"))?;
    let rolled_back = rest.optional("rolled_back", |rest| rest.time("rolled_back"))?;
    Ok(Head { gid, trans_type, status, created, ended: finished.or(rolled_back) })
}

/// What has not been read yet. Each way of reading names the member that it fails at.
struct Rest<'a>(&'a [u8]);

type Read<T> = Result<T, RecordError>;

impl<'a> Rest<'a> {
    fn byte(&mut self, member: &'static str) -> Read<u8> {
        let (byte, rest) = self.0.split_first().ok_or(RecordError::Invalid { member })?;
        self.0 = rest;
        Ok(*byte)
    }

    /// Reads a varint of at most 64 bits.
    fn number(&mut self, member: &'static str) -> Read<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte(member)?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(RecordError::Invalid { member })
    }

    /// Reads which variant it is. One byte as it is written, but read as any number is.
    fn tag(&mut self, member: &'static str) -> Read<u64> {
        self.number(member)
    }

    /// Goes over a varint of any length.
    fn skip_number(&mut self, member: &'static str) -> Read<()> {
        while self.byte(member)? & 0x80 != 0 {}
        Ok(())
    }

    fn time(&mut self, member: &'static str) -> Read<Timestamp> {
        let zigzag = self.number(member)?;
        Ok(Timestamp((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed()))
    }

    fn duration(&mut self, member: &'static str) -> Read<()> {
        self.skip_number(member)?;
        self.skip_number(member)
    }

    fn bytes(&mut self, member: &'static str) -> Read<&'a [u8]> {
        let length = usize::try_from(self.number(member)?).unwrap_or(usize::MAX);
        let (bytes, rest) =
            self.0.split_at_checked(length).ok_or(RecordError::Invalid { member })?;
        self.0 = rest;
        Ok(bytes)
    }

    fn text(&mut self, member: &'static str) -> Read<&'a str> {
        std::str::from_utf8(self.bytes(member)?).map_err(RecordError::malformed)
    }

    fn optional<T>(
        &mut self,
        member: &'static str,
        read: impl FnOnce(&mut Self) -> Read<T>,
    ) -> Read<Option<T>> {
        match self.byte(member)? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(RecordError::Invalid { member }),
        }
    }

    fn each<T>(
        &mut self,
        member: &'static str,
        mut read: impl FnMut(&mut Self) -> Read<T>,
    ) -> Read<()> {
        // Every element has a byte at least, so a length that is none ends with the bytes.
        for _ in 0..self.number(member)? {
            read(self)?;
        }
        Ok(())
    }

    fn mode(&mut self) -> Read<TransType> {
        Ok(match self.tag("mode")? {
            0 => {
                self.byte("concurrent")?;
                self.each("orders", |rest| rest.each("orders", |rest| rest.skip_number("orders")))?;
                TransType::Saga
            }
            1 => TransType::Tcc,
            2 => TransType::Xa,
            3 => {
                self.duration("delay")?;
                TransType::Msg
            }
            4 => {
                self.bytes("name")?;
                self.bytes("data")?;
                TransType::Workflow
            }
            _ => return Err(RecordError::Invalid { member: "mode" }),
        })
    }

    fn status(&mut self) -> Read<GlobalStatus> {
        Ok(match self.tag("status")? {
            0 => GlobalStatus::Prepared,
            1 => GlobalStatus::Submitted,
            2 => GlobalStatus::Aborting,
            3 => GlobalStatus::Succeed,
            4 => GlobalStatus::Failed,
            _ => return Err(RecordError::Invalid { member: "status" }),
        })
    }

    fn options(&mut self) -> Read<()> {
        self.byte("wait_result")?;
        for member in ["timeout_to_fail", "request_timeout", "retry_interval"] {
            self.optional(member, |rest| rest.duration(member))?;
        }
        self.skip_number("retry_limit")?;
        self.skip_number("retry_count")?;
        self.byte("concurrent")?;
        self.each("branch_headers", |rest| {
            rest.bytes("branch_headers")?;
            rest.bytes("branch_headers")
        })
    }

    fn branch(&mut self) -> Read<()> {
        const NAMED: u64 = 8;
        self.bytes("branch_id")?;
        if self.tag("op")? == NAMED {
            self.bytes("op")?;
        }
        self.bytes("url")?;
        self.bytes("data")?;
        self.tag("status")?;
        self.skip_number("attempts")?;
        self.skip_number("next_at")?;
        self.skip_number("created")?;
        self.skip_number("updated")?;
        self.optional("finished", |rest| rest.skip_number("finished"))?;
        Ok(())
    }
}
