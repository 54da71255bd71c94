//! The limit: a plain loop that starts processes and waits for them.

use crate::exit::Failure;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Starts `count` times `/usr/bin/true` with `in_flight` at once, at the priority that tasks have.
///
/// # Errors
/// The program cannot be started.
pub fn spawn_and_wait(count: u32, in_flight: usize) -> Result<Duration, Failure> {
    let each = (count as usize).div_ceil(in_flight);
    let since = Instant::now();
    let all = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..in_flight)
            .map(|_| scope.spawn(move || one_by_one(each)))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    });
    all.map_err(|error| Failure::Local(format!("cannot start /usr/bin/true: {error}")))?;
    Ok(since.elapsed())
}

/// The time of one start and wait, in milliseconds, `count` times.
///
/// # Errors
/// The program cannot be started.
pub fn each_alone(count: u32) -> Result<Vec<f64>, Failure> {
    let mut all = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let since = Instant::now();
        start()
            .and_then(|mut child| child.wait())
            .map_err(|error| Failure::Local(format!("cannot start /usr/bin/true: {error}")))?;
        all.push(since.elapsed().as_secs_f64() * 1e3);
    }
    Ok(all)
}

fn one_by_one(count: usize) -> std::io::Result<()> {
    hedge_exec::lower_priority();
    for _ in 0..count {
        start()?.wait()?;
    }
    Ok(())
}

fn start() -> std::io::Result<Child> {
    Command::new("/usr/bin/true")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}
