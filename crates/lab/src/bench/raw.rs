//! The limits: a plain loop that starts processes and waits for them, and plain datagrams.

use crate::failure::Failure;
use serde::Serialize;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// As long as the longest heartbeat.
const DATAGRAM_BYTES: usize = 1_200;
/// Without a datagram for so long, none comes any more.
const SILENT_MAX: Duration = Duration::from_secs(1);

/// Plain datagrams, paced like heartbeats.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Datagrams {
    /// Sent.
    pub sent: u64,
    /// The part of them that arrived.
    pub delivered_share: f64,
    /// CPU time of the receiving thread as a part of the time that passed.
    pub receiver_cpu_share: f64,
    /// The same for each, microseconds.
    pub cpu_us_each: f64,
}

/// Sends a datagram for each of `senders` every `interval`, and counts what arrives.
///
/// # Errors
/// There is no socket.
pub fn datagrams(senders: u16, interval: Duration, seconds: u32) -> Result<Datagrams, Failure> {
    let failed = |error: std::io::Error| Failure::Local(format!("no plain datagrams: {error}"));
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
    receiver
        .set_read_timeout(Some(SILENT_MAX))
        .map_err(failed)?;
    let to = receiver.local_addr().map_err(failed)?;
    let counting = std::thread::spawn(move || {
        let (mut count, mut buffer) = (0_u64, [0; 2 * DATAGRAM_BYTES]);
        while receiver.recv(&mut buffer).is_ok() {
            count += 1;
        }
        (count, own_cpu())
    });
    let sockets: Result<Vec<_>, _> = (0..senders)
        .map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)))
        .collect();
    let sockets = sockets.map_err(failed)?;
    let (since, mut sent) = (Instant::now(), 0_u64);
    let mut next = since;
    while since.elapsed() < Duration::from_secs(seconds.into()) {
        for socket in &sockets {
            sent += u64::from(socket.send_to(&[0; DATAGRAM_BYTES], to).is_ok());
        }
        next += interval;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let took = since.elapsed().as_secs_f64();
    let counted = counting.join();
    let (count, cpu) = counted.map_err(|_| Failure::Local("the receiver ended".to_owned()))?;
    let cpu = cpu.as_secs_f64();
    Ok(Datagrams {
        sent,
        delivered_share: count as f64 / sent.max(1) as f64,
        receiver_cpu_share: cpu / took,
        cpu_us_each: cpu * 1e6 / count.max(1) as f64,
    })
}

/// CPU time of this thread.
fn own_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let used = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(used.unwrap_or(0))
}

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
