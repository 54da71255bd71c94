//! To be filled.
pub struct JobSpec; // placeholder
