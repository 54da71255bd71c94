//! A virtual grid around the real scheduling core.
