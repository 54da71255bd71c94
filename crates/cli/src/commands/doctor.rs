//! `hedge doctor`
use super::Context;
use crate::exit::{Exit, Failure};

/// doctor
pub fn run(_context: &Context) -> Result<Exit, Failure> {
    Ok(Exit::Done)
}
