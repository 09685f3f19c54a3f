//! Why a request was not done, and which status says so (spec 03 §1.3).

use dtmd_engine::EngineError;
use dtmd_protocol::{Gid, Refused, RequestKind};
use dtmd_wire::{RequestError, response};
use tonic::{Code, Status};

/// The longest text of a status, in bytes. It travels in a header, where every byte that is not
/// ASCII becomes three, and some clients take no more than 8 KiB of headers.
const TEXT_MAX_BYTES: usize = 2048;

/// Why a request was not done.
#[derive(Debug)]
pub enum Problem {
    /// The engine did not.
    Engine(EngineError),
    /// It was not understood.
    Request(RequestError),
    /// An operator asked for a transaction that does not exist.
    Unknown(Gid),
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl Problem {
    /// The one table from our errors to gRPC's codes.
    ///
    /// `ABORTED` is FAILURE and `FAILED_PRECONDITION` is ONGOING; every other code says nothing
    /// about the transaction. DTM has `UNKNOWN` for errors that it returns and `INTERNAL` for those
    /// that it throws; which is which is kept, but for `UNAVAILABLE`: clients know to come back.
    pub fn code(&self) -> Code {
        match self {
            Self::Engine(error) => match error {
                EngineError::Refused(Refused::Status {
                    request: RequestKind::FinishWorkflow,
                    ..
                }) => Code::Internal,
                EngineError::Refused(_)
                | EngineError::RolledBack(_)
                | EngineError::NotPrepared(_) => Code::Aborted,
                EngineError::Ongoing(_) => Code::FailedPrecondition,
                EngineError::Invalid(_)
                | EngineError::NotFound(_)
                | EngineError::NoWorkflow
                | EngineError::TopicNotFound(_) => Code::Internal,
                EngineError::Topic(_) | EngineError::Branch(_) => Code::Unknown,
                EngineError::Unavailable(_)
                | EngineError::Overloaded(_)
                | EngineError::ShuttingDown => Code::Unavailable,
                // A new kind of error says nothing about the transaction until it is listed here.
                _ => Code::Unknown,
            },
            Self::Request(RequestError::Undecodable(_) | RequestError::Invalid(_)) => {
                Code::Internal
            }
            Self::Request(RequestError::UnknownType(_)) => Code::Unknown,
            Self::Unknown(_) => Code::NotFound,
        }
    }

    /// Returns what the caller reads: the text, with the word that SDKs search for.
    fn told(&self) -> String {
        let mut text = match self {
            Self::Engine(error) => error.to_string(),
            Self::Request(error) => error.to_string(),
            Self::Unknown(gid) => format!("there is no transaction with the gid {gid}"),
        };
        if text.len() > TEXT_MAX_BYTES {
            let end = (0..=TEXT_MAX_BYTES).rev().find(|&end| text.is_char_boundary(end));
            text.truncate(end.unwrap_or(0));
            text.push('…');
        }
        match self.code() {
            Code::Aborted => response::with_word(&text, "FAILURE"),
            Code::FailedPrecondition => response::with_word(&text, "ONGOING"),
            _ => text,
        }
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        Self::new(problem.code(), problem.told())
    }
}

#[cfg(test)]
mod tests {
    use dtmd_protocol::{GlobalStatus, Invalid, TransType};

    use super::*;

    #[test]
    fn the_table() {
        let gid = || Gid::new("g").unwrap();
        let refused = |request| {
            EngineError::Refused(Refused::Status {
                gid: gid(),
                request,
                trans_type: TransType::Saga,
                status: GlobalStatus::Failed,
            })
        };
        let uncallable =
            || EngineError::Invalid(Invalid::Uncallable { url: "x".into(), why: "y".into() });
        let engine = [
            (refused(RequestKind::Submit), Code::Aborted, "FAILURE"),
            (refused(RequestKind::Abort), Code::Aborted, "FAILURE"),
            (refused(RequestKind::FinishWorkflow), Code::Internal, ""),
            (EngineError::RolledBack("why".into()), Code::Aborted, "why FAILURE"),
            (EngineError::NotPrepared(gid()), Code::Aborted, "prepared found FAILURE"),
            (EngineError::Ongoing("slow".into()), Code::FailedPrecondition, "slow ONGOING"),
            (EngineError::Branch("refused".into()), Code::Unknown, "refused"),
            (EngineError::Topic("this url exists".into()), Code::Unknown, "this url exists"),
            (EngineError::TopicNotFound("t".into()), Code::Internal, "topic not found"),
            (EngineError::NotFound(gid()), Code::Internal, "no TransGlobal with gid: g found"),
            (EngineError::NoWorkflow, Code::Internal, "storage: NotFound"),
            (uncallable(), Code::Internal, ""),
            (EngineError::Unavailable("x".into()), Code::Unavailable, "same gid"),
            (EngineError::Overloaded("x"), Code::Unavailable, "later"),
            (EngineError::ShuttingDown, Code::Unavailable, "again"),
        ];
        let engine = engine.map(|(error, code, text)| (Problem::Engine(error), code, text));
        let requests = [
            (RequestError::Invalid("x".into()), Code::Internal, "x"),
            (RequestError::Undecodable("x".into()), Code::Internal, "x"),
            (RequestError::UnknownType("x".into()), Code::Unknown, "unknow trans type: x"),
        ];
        let requests = requests.map(|(error, code, text)| (Problem::Request(error), code, text));
        let unknown = [(Problem::Unknown(gid()), Code::NotFound, "g")];
        for (problem, code, text) in engine.into_iter().chain(requests).chain(unknown) {
            let shown = format!("{problem:?}");
            let status = Status::from(problem);
            assert_eq!(status.code(), code, "{shown}");
            assert!(status.message().contains(text), "{shown}: {}", status.message());
            // One word each, and only where it is meant.
            let words = |word| status.message().matches(word).count();
            assert_eq!(words("FAILURE"), usize::from(code == Code::Aborted), "{shown}");
            assert_eq!(words("ONGOING"), usize::from(code == Code::FailedPrecondition), "{shown}");
        }
    }

    #[test]
    fn long_texts_keep_their_word() {
        let status = Status::from(Problem::Engine(EngineError::RolledBack("错".repeat(5000))));
        assert!(status.message().len() < TEXT_MAX_BYTES + 16);
        assert!(status.message().ends_with("… FAILURE"));
    }
}
