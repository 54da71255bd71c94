//! Thin loops around Hedgerow's state machines, one for each role.
