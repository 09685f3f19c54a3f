//! A named test for every defect of DTM (spec 07) that touches the server and can be shown over
//! the wire. `docs/compatibility.md` has the whole list, with the tests of other levels.

mod operations;
mod progress;
mod retries;
mod security;
mod submits;
