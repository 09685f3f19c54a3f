//! Topics over both transports.

use dtmcli::{Client, Delivery, GlobalStatus};

use crate::{stage, until};

#[tokio::test]
async fn a_message_goes_to_who_subscribed() {
    let (server, http, service) = stage().await;
    let grpc = Client::new(server.grpc_url()).unwrap();
    for (client, topic) in [(&http, "paid"), (&grpc, "sent/ä")] {
        let topics = client.topics();
        for path in ["/one", "/two", "/three"] {
            topics.subscribe(topic, &service.at(path), "a test").await.unwrap();
        }
        assert!(topics.subscribe(topic, &service.at("/one"), "").await.is_err());
        topics.unsubscribe(topic, &service.at("/three")).await.unwrap();
        // Of HTTP subscribers, so over HTTP.
        let submitted = http.msg().deliver(Delivery::topic(topic).json(&1)).submit().await.unwrap();
        until(&http, submitted.gid(), GlobalStatus::Succeed).await;
        topics.delete(topic).await.unwrap();
        assert!(topics.delete(topic).await.is_err());
    }
    assert_eq!(service.count("/one action 01-01"), 2, "{:?}", service.calls());
    assert_eq!(service.count("/two action 01-02"), 2, "{:?}", service.calls());
    assert_eq!(service.calls().len(), 4);
}
