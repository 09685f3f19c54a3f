//! The HTTP interface as SDKs meet it (spec 02).

mod poison;
mod shapes;
mod tolerance;
