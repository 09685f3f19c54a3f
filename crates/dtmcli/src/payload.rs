//! What is sent to a branch, and what it answers.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::{BranchError, BranchResult};

/// The body of a branch call. An error of serializing is kept until the transaction is sent, so
/// that builders stay one chain.
#[derive(Debug, Clone, Default)]
pub(crate) struct Payload {
    bytes: Bytes,
    error: Option<String>,
}

impl Payload {
    pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(bytes) => Self { bytes: bytes.into(), error: None },
            Err(error) => Self {
                bytes: Bytes::new(),
                error: Some(format!("a payload cannot be made JSON: {error}")),
            },
        }
    }

    pub(crate) fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), error: None }
    }

    pub(crate) fn get(&self) -> Result<Bytes> {
        match &self.error {
            None => Ok(self.bytes.clone()),
            Some(text) => Err(Error::invalid(text.clone())),
        }
    }
}

/// The methods that set the body of a branch call.
macro_rules! payload_methods {
    () => {
        /// The body, as JSON. A value that cannot be JSON is an error when the transaction is sent.
        pub fn json<T: serde::Serialize + ?Sized>(mut self, value: &T) -> Self {
            self.payload = crate::payload::Payload::json(value);
            self
        }

        /// The body, as it is. Over HTTP it must be text in UTF-8.
        pub fn body(mut self, body: impl Into<bytes::Bytes>) -> Self {
            self.payload = crate::payload::Payload::bytes(body);
            self
        }

        /// The body, as an encoded protobuf message, for branches that are called over gRPC.
        #[cfg(feature = "grpc")]
        pub fn message<M: prost::Message>(mut self, message: &M) -> Self {
            self.payload = crate::payload::Payload::bytes(message.encode_to_vec());
            self
        }
    };
}
pub(crate) use payload_methods;

/// What a branch answered to a successful call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reply {
    bytes: Bytes,
}

impl Reply {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    /// The body.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The body as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The body, decoded from JSON.
    ///
    /// # Errors
    ///
    /// [`BranchError::Retry`] if it is not that: an answer that cannot be read says nothing about
    /// the business.
    pub fn json<T: DeserializeOwned>(&self) -> BranchResult<T> {
        serde_json::from_slice(&self.bytes)
            .map_err(|error| BranchError::retry(format!("the branch's answer: {error}")))
    }

    /// The body, decoded as a protobuf message.
    ///
    /// # Errors
    ///
    /// [`BranchError::Retry`] if it is not that.
    #[cfg(feature = "grpc")]
    pub fn message<M: prost::Message + Default>(&self) -> BranchResult<M> {
        M::decode(self.bytes.clone())
            .map_err(|error| BranchError::retry(format!("the branch's answer: {error}")))
    }
}
