//! Runs one attempt of a task: scratch folder, sandbox, limits, captured output.
