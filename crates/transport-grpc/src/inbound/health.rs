//! The standard health service: what `/readyz` says, in gRPC's words.

use std::pin::Pin;
use std::time::Duration;

use dtmd_engine::Engine;
use futures_util::stream::{Stream, unfold};
use tokio::sync::watch;
use tokio::time::sleep;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

/// How often a watcher's answer is looked at anew.
const LOOK: Duration = Duration::from_secs(1);

/// The services that can be asked for; the empty name is the server.
const SERVICES: [&str; 3] = ["", "dtmgimp.Dtm", "dtmd.v1.Admin"];

#[derive(Clone)]
pub(super) struct Health {
    engine: Engine,
    shutdown: watch::Receiver<bool>,
}

impl Health {
    pub(super) fn new(engine: Engine, shutdown: watch::Receiver<bool>) -> Self {
        Self { engine, shutdown }
    }

    /// Returns whether transactions can be accepted.
    async fn status(&self) -> ServingStatus {
        match self.engine.ready().await {
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        }
    }

    /// Waits until the status is another one; `None` once there is nothing more to say.
    async fn change(&mut self, from: ServingStatus) -> Option<ServingStatus> {
        loop {
            // Either arm may be dropped while it waits: nothing is lost by it.
            tokio::select! {
                _ = self.shutdown.wait_for(|stop| *stop) => return None,
                () = sleep(LOOK) => {}
            }
            let now = self.status().await;
            if now != from {
                return Some(now);
            }
        }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        if !SERVICES.contains(&service.as_str()) {
            return Err(Status::not_found("this server has no such service"));
        }
        Ok(Response::new(response(self.status().await)))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = &request.get_ref().service;
        if !SERVICES.contains(&service.as_str()) {
            // So says the standard: unknown is an answer here, not an error.
            let unknown = futures_util::stream::iter([Ok(response(ServingStatus::ServiceUnknown))]);
            return Ok(Response::new(Box::pin(unknown)));
        }
        let first = (self.clone(), None);
        let statuses = unfold(first, |(mut health, last)| async move {
            let next = match last {
                None => health.status().await,
                Some(last) => health.change(last).await?,
            };
            Some((Ok(response(next)), (health, Some(next))))
        });
        Ok(Response::new(Box::pin(statuses)))
    }
}
