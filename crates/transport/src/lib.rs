//! Placeholder until its first code arrives.
