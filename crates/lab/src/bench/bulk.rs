//! `hedge-lab bench bulk`: a large file goes in, through a task, and out again.

use super::grid::{Grid, Plan, hedge};
use super::{lines, quantile, rounded};
use crate::bench::block_on;
use crate::failure::Failure;
use crate::output::Output;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Transfers between peers on the way of the file: client to supervisor to worker, and back.
const HOPS: f64 = 4.0;
const MEGABYTE: usize = 1_000_000;

#[derive(Debug, Serialize)]
struct BulkFigures {
    megabytes: u32,
    runs: u32,
    /// The file copied by `cp`, seconds.
    cp_s_p50: f64,
    /// The file's bytes through a TCP connection on loopback, seconds.
    tcp_s_p50: f64,
    /// `hedge submit --wait` with all peers on this machine, seconds.
    submit_s_p50: f64,
    /// What TCP would take for the same hops, as a part of that.
    submit_share_of_tcp: f64,
    /// `hedge run`, seconds.
    run_s_p50: f64,
}

/// Measures and prints.
///
/// # Errors
/// There is no room on the disk, the grid cannot be started, or a command fails.
pub fn run(output: Output, megabytes: u32, runs: u32) -> Result<(), Failure> {
    let figures = block_on(measure(megabytes, runs))?;
    output.print(&figures, || {
        lines(&[
            format!(
                "file of {} MB, medians of {}",
                figures.megabytes, figures.runs
            ),
            format!("cp                    {:>8.2} s", figures.cp_s_p50),
            format!(
                "TCP on loopback       {:>8.2} s for one hop",
                figures.tcp_s_p50
            ),
            format!(
                "hedge submit --wait   {:>8.2} s; {:.2} of TCP for {HOPS} hops",
                figures.submit_s_p50, figures.submit_share_of_tcp
            ),
            format!("hedge run             {:>8.2} s", figures.run_s_p50),
        ])
    })?;
    Ok(())
}

async fn measure(megabytes: u32, runs: u32) -> Result<BulkFigures, Failure> {
    let failed = |error: io::Error| Failure::Local(format!("the file cannot be made: {error}"));
    let grid = Grid::start(Plan::new(1, 2)).await?;
    let place = tempfile::tempdir().map_err(failed)?;
    let grid_dir = grid.dir.path().to_string_lossy().into_owned();
    let (mut cp, mut tcp) = (Vec::new(), Vec::new());
    let (mut submit, mut run) = (Vec::new(), Vec::new());
    for round in 0..runs {
        // Other bytes each time: the grid transfers no blob that it has.
        write_noise(&place.path().join("in"), megabytes, round).map_err(failed)?;
        tcp.push(through_tcp(&place.path().join("in")).map_err(failed)?);
        cp.push(timed(
            place.path(),
            Command::new("cp").args(["in", "copy"]),
        )?);
        let io = ["--input", "in", "--output", "out", "--out", "results"];
        let copy = ["--", "cp", "in", "out"];
        let whole = |args: &[&str]| {
            let mut command = Command::new(hedge()?);
            let took = timed(place.path(), command.args(args).args(io).args(copy))?;
            compare(place.path()).map_err(failed)?;
            Ok::<_, Failure>(took)
        };
        submit.push(whole(&["submit", "--wait", "--dir", &grid_dir])?);
        run.push(whole(&["run"])?);
    }
    let p50 = |values: &mut Vec<f64>| rounded(quantile(values, 0.5));
    let (tcp_s_p50, submit_s_p50) = (p50(&mut tcp), p50(&mut submit));
    Ok(BulkFigures {
        megabytes,
        runs,
        cp_s_p50: p50(&mut cp),
        tcp_s_p50,
        submit_s_p50,
        submit_share_of_tcp: rounded(HOPS * tcp_s_p50 / submit_s_p50),
        run_s_p50: p50(&mut run),
    })
}

/// Writes bytes that are not compressible and differ from round to round.
fn write_noise(path: &Path, megabytes: u32, round: u32) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (u64::from(round) << 32);
    let mut piece = vec![0; MEGABYTE];
    for _ in 0..megabytes {
        for word in piece.as_chunks_mut::<8>().0 {
            // Xorshift.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *word = state.to_le_bytes();
        }
        file.write_all(&piece)?;
    }
    Ok(())
}

fn through_tcp(path: &Path) -> io::Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let since = Instant::now();
    let received = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let (mut buffer, mut all) = (vec![0; MEGABYTE], 0);
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok::<u64, io::Error>(all),
                read => all += read as u64,
            }
        }
    });
    let mut stream = TcpStream::connect(address)?;
    let (mut file, mut buffer) = (File::open(path)?, vec![0; MEGABYTE]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => stream.write_all(&buffer[..read])?,
        }
    }
    drop(stream);
    let received = received.join();
    received.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
    Ok(since.elapsed().as_secs_f64())
}

/// Runs a command in a folder; its time in seconds.
fn timed(folder: &Path, command: &mut Command) -> Result<f64, Failure> {
    let since = Instant::now();
    let output = command
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::Local(format!("cannot start {command:?}: {error}")))?;
    let took = since.elapsed().as_secs_f64();
    if output.status.success() {
        return Ok(took);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::Local(format!("{command:?} failed: {said}")))
}

/// Checks that what came back is what went in, and removes it.
fn compare(place: &Path) -> io::Result<()> {
    let results = place.join("results");
    let (mut came, mut went) = (
        File::open(results.join("out"))?,
        File::open(place.join("in"))?,
    );
    let (mut one, mut other) = (vec![0; MEGABYTE], vec![0; MEGABYTE]);
    loop {
        let read = came.read(&mut one)?;
        went.read_exact(&mut other[..read])?;
        if one[..read] != other[..read] {
            return Err(io::Error::other("the result differs from the input"));
        }
        if read == 0 {
            break;
        }
    }
    match went.read(&mut other)? {
        0 => fs::remove_dir_all(results),
        _ => Err(io::Error::other("the result is shorter than the input")),
    }
}
