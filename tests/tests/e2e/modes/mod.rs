//! Every mode, over the wire.

mod json_rpc;
mod msg;
mod saga;
mod tcc;
mod workflow;
mod xa;
