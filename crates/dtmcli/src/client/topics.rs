//! Topics: messages for whoever subscribes (spec 01 §4.4).

use super::{Client, Server};
use crate::error::Result;

/// The topics of a server. Made by [`Client::topics`].
///
/// A message to a topic ([`Delivery::topic`](crate::Delivery::topic)) goes to every URL that is
/// subscribed when the message is accepted.
#[derive(Debug, Clone)]
pub struct Topics {
    client: Client,
}

impl Topics {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Subscribes a URL to a topic, which is made if it is not there. The remark is for people.
    ///
    /// # Errors
    ///
    /// The server's. That the URL is subscribed already is [`Error::Unexpected`] with the text
    /// `this url exists`, as DTM says it.
    ///
    /// [`Error::Unexpected`]: crate::Error::Unexpected
    pub async fn subscribe(&self, topic: &str, url: &str, remark: &str) -> Result<()> {
        self.send(Change::Subscribe { topic, url, remark }).await
    }

    /// Takes a URL off a topic.
    ///
    /// # Errors
    ///
    /// The server's, also when it was not subscribed.
    pub async fn unsubscribe(&self, topic: &str, url: &str) -> Result<()> {
        self.send(Change::Unsubscribe { topic, url }).await
    }

    /// Deletes a topic. Messages that were accepted before still go to all who were subscribed.
    ///
    /// # Errors
    ///
    /// The server's, also when there is no such topic.
    pub async fn delete(&self, topic: &str) -> Result<()> {
        self.send(Change::Delete { topic }).await
    }

    async fn send(&self, change: Change<'_>) -> Result<()> {
        let server = &self.client.inner.server;
        self.client
            .repeat(move || async move {
                match server {
                    #[cfg(feature = "http")]
                    Server::Http(server) => server.topic(change).await,
                    #[cfg(feature = "grpc")]
                    Server::Grpc(server) => server.topic(change).await,
                }
            })
            .await
    }
}

/// What is done to a topic.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change<'a> {
    Subscribe { topic: &'a str, url: &'a str, remark: &'a str },
    Unsubscribe { topic: &'a str, url: &'a str },
    Delete { topic: &'a str },
}
