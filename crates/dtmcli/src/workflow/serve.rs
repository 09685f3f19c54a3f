//! The endpoints at which the server has workflows resumed (spec 02 §4.4, 03 §5).

#[cfg(any(feature = "axum", feature = "tonic-server"))]
use super::Workflows;

#[cfg(feature = "axum")]
impl Workflows {
    /// The endpoint for axum: merge it into the service's router. The path is that of the callback
    /// which the [builder](Workflows::builder) was given. Takes POST and GET: the server uses GET
    /// for a workflow without input.
    pub fn router<S>(&self, path: &str) -> ::axum::Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        use crate::axum::{Answer, BranchCall, Done};

        let workflows = self.clone();
        let resume = move |BranchCall(branch): BranchCall, data: bytes::Bytes| async move {
            workflows.resume(branch.op().as_str(), branch.gid(), data).await?;
            Answer::Ok(Done)
        };
        ::axum::Router::new().route(path, ::axum::routing::any(resume))
    }
}

#[cfg(feature = "tonic-server")]
pub use grpc::WorkflowService;

#[cfg(feature = "tonic-server")]
mod grpc {
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use ::tonic::body::Body;
    use ::tonic::codegen::{Body as HttpBody, BoxFuture, Service, StdError, http};
    use ::tonic::server::{Grpc, NamedService, UnaryService};
    use ::tonic::{Request, Response, Status};
    use bytes::Bytes;

    use super::super::Workflows;
    use crate::tonic::{OrStatus as _, branch_of};
    use crate::transport::messages::Empty;

    /// `workflow.WorkflowData`.
    #[derive(Clone, PartialEq, prost::Message)]
    struct WorkflowData {
        #[prost(bytes = "bytes", tag = "1")]
        data: Bytes,
    }

    impl Workflows {
        /// The endpoint for tonic: add it to the server that listens at the callback's address.
        #[must_use]
        pub fn grpc_service(&self) -> WorkflowService {
            WorkflowService { workflows: self.clone() }
        }
    }

    /// The gRPC service `workflow.Workflow`. Made by [`Workflows::grpc_service`].
    #[derive(Debug, Clone)]
    pub struct WorkflowService {
        workflows: Workflows,
    }

    impl NamedService for WorkflowService {
        const NAME: &'static str = "workflow.Workflow";
    }

    impl<B> Service<http::Request<B>> for WorkflowService
    where
        B: HttpBody + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<Self::Response, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: http::Request<B>) -> Self::Future {
            let workflows = self.workflows.clone();
            Box::pin(async move {
                if request.uri().path() != "/workflow.Workflow/Execute" {
                    return Ok(Status::unimplemented("there is only Execute").into_http());
                }
                let codec = ::tonic_prost::ProstCodec::<Empty, WorkflowData>::default();
                Ok(Grpc::new(codec).unary(Execute(workflows), request).await)
            })
        }
    }

    struct Execute(Workflows);

    impl UnaryService<WorkflowData> for Execute {
        type Response = Empty;
        type Future = BoxFuture<Response<Empty>, Status>;

        fn call(&mut self, request: Request<WorkflowData>) -> Self::Future {
            let workflows = self.0.clone();
            Box::pin(async move {
                let branch = branch_of(&request)?;
                let data = request.into_inner().data;
                let ended = workflows.resume(branch.op().as_str(), branch.gid(), data).await;
                ended.or_status()?;
                Ok(Response::new(Empty {}))
            })
        }
    }
}
