//! In the works.
