//! gRPC, in and out.
