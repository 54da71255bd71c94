//! Measures a link: both sides send over a separate TCP connection as fast as possible, for less than a second, and count
//! what arrives. TCP without encryption measures the link, not how fast the machines encrypt.

use crate::tripwire;
use crate::{NetError, Nonce};
use rustix::net::sockopt::set_socket_send_buffer_size;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// The longest time for which both sides send.
const FOR: Duration = Duration::from_millis(800);
/// The shortest time for which they send, however long the start took.
const FOR_MIN: Duration = Duration::from_millis(300);
/// The time limit for the other side to begin, and for each round trip.
const BEGINS_WITHIN: Duration = Duration::from_millis(500);
/// The most bytes sent in each direction.
const BYTES_MAX: u64 = 256 << 20;
/// Round trips that are timed before other data is sent. The shortest counts.
const PINGS: u8 = 2;
const CHUNK_BYTES: usize = 64 << 10;
/// The interval at which arrived bytes are counted.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// At the beginning the interval is shorter: the time so far divided by this.
const LOOK_SHARE: u32 = 64;
/// The most counts that are stored: more than a measurement makes.
const LOOKS_MAX: usize = 4_096;

/// A connection over which a link is measured.
#[derive(Debug)]
pub struct Probe(TcpStream);

/// What one side measured of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Bytes per second that arrived in the second half of the measurement, after the burst that a link may let pass at
    /// first.
    pub arrived: u64,
    /// The shortest of a few round trips; none on the side that did not time them.
    pub round_trip: Option<Duration>,
}

impl Probe {
    pub(crate) fn new(stream: tokio::net::TcpStream) -> io::Result<Probe> {
        let stream = stream.into_std()?;
        stream.set_nodelay(true)?;
        Ok(Probe(stream))
    }

    /// Connects to a peer at one of these addresses and shows it the nonce.
    ///
    /// # Errors
    /// No address answers: there is no direct path for TCP.
    pub async fn connect(
        ips: impl IntoIterator<Item = IpAddr>,
        port: u16,
        nonce: Nonce,
    ) -> io::Result<Probe> {
        Probe::new(tripwire::connect(ips, port, nonce).await?)
    }

    /// Measures: sends up to `bytes`, at most `window` of them in flight (0 leaves that to the system), and counts what
    /// arrives. Blocks for at most a second, or `within` if that is shorter. The side that `asks` times the round trip first.
    ///
    /// # Errors
    /// The connection ends before anything came.
    pub fn run(
        mut self,
        bytes: u64,
        window: u32,
        asks: bool,
        within: Duration,
    ) -> Result<Probed, NetError> {
        let by = Instant::now() + within;
        if window > 0 {
            let size = set_socket_send_buffer_size(&self.0, window as usize);
            size.map_err(|error| NetError::Probe(error.into()))?;
        }
        self.measure(bytes.min(BYTES_MAX), asks, by)
            .map_err(NetError::Probe)
    }

    fn measure(&mut self, bytes: u64, asks: bool, by: Instant) -> io::Result<Probed> {
        self.0.set_nonblocking(false)?;
        self.0.set_read_timeout(Some(BEGINS_WITHIN))?;
        self.0.set_write_timeout(Some(BEGINS_WITHIN))?;
        let mut round_trip = None;
        let mut ping = [0];
        for _ in 0..PINGS {
            if asks {
                let since = Instant::now();
                self.0.write_all(&[1])?;
                self.0.read_exact(&mut ping)?;
                let took = since.elapsed();
                round_trip = Some(round_trip.map_or(took, |known: Duration| known.min(took)));
            } else {
                self.0.read_exact(&mut ping)?;
                self.0.write_all(&ping)?;
            }
        }
        let left = by.saturating_duration_since(Instant::now());
        let arrived = self.pump(bytes, FOR.min(left).max(FOR_MIN))?;
        Ok(Probed {
            arrived,
            round_trip,
        })
    }

    /// Sends and receives at the same time until the time is over or both sides have everything.
    fn pump(&mut self, bytes: u64, limit: Duration) -> io::Result<u64> {
        self.0.set_nonblocking(true)?;
        // What is not sent in time is dropped.
        _ = rustix::net::sockopt::set_socket_linger(&self.0, Some(Duration::ZERO));
        let (since, mut sent, mut received) = (Instant::now(), 0, 0);
        let mut buffer = vec![0x5a; CHUNK_BYTES];
        let mut arrivals = Arrivals::default();
        loop {
            let now = since.elapsed();
            arrivals.look(now, &self.0);
            if now >= limit {
                break;
            }
            if sent >= bytes && received >= bytes && unacknowledged(&self.0) == 0 {
                break;
            }
            let part =
                usize::try_from(bytes - sent).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            let wrote = match part {
                0 => 0,
                part => none_yet(self.0.write(&buffer[..part]))
                    .unwrap_or(None)
                    .unwrap_or(0),
            };
            sent += wrote as u64;
            let read = match none_yet(self.0.read(&mut buffer)) {
                Ok(Some(0)) => break,
                Ok(read) => read.unwrap_or(0),
                // The other side has finished.
                Err(_) if received > 0 => break,
                Err(error) => return Err(error),
            };
            received += read as u64;
            if wrote == 0 && read == 0 {
                wait(&self.0, sent < bytes);
            }
        }
        let end = since.elapsed();
        arrivals.looked = Duration::ZERO;
        arrivals.look(end, &self.0);
        Ok(arrivals.steady(end, limit))
    }
}

/// How much had arrived at which time, in segments. The kernel also counts segments that overtook a lost one.
#[derive(Debug, Default)]
struct Arrivals {
    looked: Duration,
    all: Vec<(Duration, u32)>,
    /// The largest ratio of bytes in order to segments.
    segment: f64,
}

impl Arrivals {
    /// Counts what has arrived if that is due; the interval grows with the time.
    fn look(&mut self, now: Duration, stream: &TcpStream) {
        let every = LOOK_EVERY.min(now / LOOK_SHARE);
        if now.saturating_sub(self.looked) < every || self.all.len() >= LOOKS_MAX {
            return;
        }
        self.looked = now;
        let Some((segments, bytes)) = arrived(stream).filter(|(segments, _)| *segments > 0) else {
            return;
        };
        self.segment = self.segment.max(bytes as f64 / f64::from(segments));
        self.all.push((now, segments));
    }

    /// Returns the bytes per second in the second half of the time since the first arrival. By then the link's initial burst
    /// is over, and the sender has found its rate.
    fn steady(&self, end: Duration, limit: Duration) -> u64 {
        let (Some((begun, _)), Some((_, all))) = (self.all.first(), self.all.last()) else {
            return 0;
        };
        // If everything arrived, the time after the last arrival does not count.
        let last = self.all.iter().find(|(_, segments)| segments == all);
        let end = match last {
            Some((last, _)) if end < limit * 9 / 10 => *last,
            _ => end,
        };
        let half = *begun + end.saturating_sub(*begun) / 2;
        let before = self.all.iter().rev().find(|(at, _)| *at <= half);
        let (from, before) = before.copied().unwrap_or((*begun, 0));
        let span = end.saturating_sub(from).as_secs_f64();
        if span <= 0.0 {
            return 0;
        }
        (f64::from(all - before) * self.segment / span) as u64
    }
}

fn none_yet(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Waits until the socket can be read or written, for a moment at most.
fn wait(stream: &TcpStream, to_send: bool) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut flags = PollFlags::IN;
    flags.set(PollFlags::OUT, to_send);
    let limit = Timespec {
        tv_sec: 0,
        tv_nsec: i64::from(LOOK_EVERY.subsec_nanos()),
    };
    _ = poll(&mut [PollFd::new(stream, flags)], Some(&limit));
}

/// Returns the bytes that the other side has not acknowledged yet.
fn unacknowledged(stream: &TcpStream) -> i32 {
    let mut left = 0;
    // SAFETY: the number is valid for the call; refused, it stays 0.
    unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut left) };
    left
}

/// Returns the number of data segments that have arrived, and the bytes that arrived in order.
fn arrived(stream: &TcpStream) -> Option<(u32, u64)> {
    // SAFETY: all zeroes is a valid value; it and its length are valid for the call, which writes no more.
    unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        let done = libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        );
        (done == 0).then_some((info.tcpi_data_segs_in, info.tcpi_bytes_received))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TcpPort;
    use std::net::Ipv4Addr;

    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn arrivals(all: &[(u64, u32)]) -> Arrivals {
        let all = all
            .iter()
            .map(|(ms, count)| (Duration::from_millis(*ms), *count));
        Arrivals {
            looked: Duration::ZERO,
            all: all.collect(),
            segment: 1_000.0,
        }
    }

    #[test]
    fn what_a_link_lets_pass_at_once_does_not_count() {
        // 16 kB at once, then 10 kB/s.
        let mut all = vec![(0, 16)];
        all.extend((1..=8).map(|at| (at * 100, 16 + at as u32)));
        assert_eq!(arrivals(&all).steady(FOR, FOR), 10_000);
    }

    #[test]
    fn waiting_for_the_end_does_not_count_where_all_came() {
        let all: Vec<_> = (1..=100).map(|at| (at, at as u32 * 10)).collect();
        let rate = arrivals(&all).steady(Duration::from_millis(300), FOR);
        assert!((9_900_000..=10_200_000).contains(&rate), "{rate}");
        assert_eq!(arrivals(&[]).steady(FOR, FOR), 0);
    }

    #[tokio::test]
    async fn both_sides_measure_a_link() {
        let wires = TcpPort::bind((LOCALHOST, 0).into()).await.unwrap();
        let mut tries = 0;
        let (mine, theirs) = loop {
            let expected = wires.expect_probe([3; 16]);
            let theirs = Probe::connect([LOCALHOST], wires.port(), [3; 16])
                .await
                .unwrap();
            let mine = expected.await.expect("the nonce is shown");
            let theirs = tokio::task::spawn_blocking(move || theirs.run(8 << 20, 0, false, FOR));
            let mine = tokio::task::spawn_blocking(move || mine.run(8 << 20, 0, true, FOR));
            match (mine.await.unwrap(), theirs.await.unwrap()) {
                (Ok(mine), Ok(theirs)) if mine.arrived.min(theirs.arrived) > 0 => {
                    break (mine, theirs);
                }
                // On a busy machine one side may not come to its turn in time.
                failed => assert!(tries < 20, "{failed:?}"),
            }
            tries += 1;
        };
        assert!(mine.round_trip.is_some() && theirs.round_trip.is_none());
    }
}
