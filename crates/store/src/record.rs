//! The versioned form in which globals are written.
