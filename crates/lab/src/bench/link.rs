//! `hedge-lab bench link`: a worker's link as the supervisor measures it when the worker comes.

use super::grid::{Grid, Plan, wait};
use super::{lines, rounded};
use crate::bench::block_on;
use crate::failure::Failure;
use crate::output::Output;
use hedge_model::msg::{Reply, Request};
use hedge_model::view::WorkerView;
use serde::Serialize;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

/// Sent over the plain connection.
const RAW_BYTES: u64 = 256 << 20;

#[derive(Debug, Serialize)]
struct LinkFigures {
    network: &'static str,
    rate: String,
    down_mbit_per_second: f64,
    up_mbit_per_second: f64,
    round_trip_ms: Option<f64>,
    judged_after_ms: f64,
    admission: String,
    raw_tcp_mbit_per_second: f64,
}

/// Measures and prints.
///
/// # Errors
/// The grid cannot be started, or the rate is none.
pub fn run(output: Output, rate: &str) -> Result<(), Failure> {
    let figures = block_on(measure(rate))?;
    output.print(&figures, || {
        let round_trip = figures.round_trip_ms.unwrap_or_default();
        lines(&[
            format!(
                "to the worker     {:>8.0} Mbit/s",
                figures.down_mbit_per_second
            ),
            format!(
                "from the worker   {:>8.0} Mbit/s",
                figures.up_mbit_per_second
            ),
            format!("there and back    {round_trip:>8.3} ms"),
            format!(
                "judged after      {:>8.0} ms: {}",
                figures.judged_after_ms, figures.admission
            ),
            format!(
                "plain TCP         {:>8.0} Mbit/s",
                figures.raw_tcp_mbit_per_second
            ),
        ])
    })?;
    Ok(())
}

async fn measure(rate: &str) -> Result<LinkFigures, Failure> {
    let plan = Plan {
        args: &["--no-sandbox"],
        ..Plan::new(1, 1)
    };
    let mut grid = Grid::start(plan).await?;
    grid.set("min_link", rate).await?;
    let pid = wait(async || worker(&grid).await, "the worker").await?.pid;
    grid.restart(pid)?;
    let back = async || worker(&grid).await.filter(|worker| worker.pid != pid);
    wait(back, "the worker to come back").await?;
    let since = Instant::now();
    let judged = async || {
        let worker = worker(&grid).await.filter(|worker| worker.pid != pid)?;
        (!worker.admission.contains("being measured")).then_some(worker)
    };
    let view = wait(judged, "its link to be judged").await?;
    let took = since.elapsed();
    let raw = tokio::task::spawn_blocking(raw).await;
    let raw = raw.map_err(std::io::Error::other).flatten();
    let raw = raw.map_err(|error| Failure::Local(format!("no plain connection: {error}")))?;
    let link = view.link;
    let mbit = |bits: Option<u64>| rounded(bits.unwrap_or(0) as f64 / 1e6);
    Ok(LinkFigures {
        network: "loopback",
        rate: rate.to_owned(),
        down_mbit_per_second: mbit(link.and_then(|link| link.down_bits_per_second)),
        up_mbit_per_second: mbit(link.map(|link| link.up_bits_per_second)),
        round_trip_ms: link.and_then(|link| link.round_trip_ms).map(rounded),
        judged_after_ms: rounded(took.as_secs_f64() * 1e3),
        admission: view.admission,
        raw_tcp_mbit_per_second: rounded(raw),
    })
}

async fn worker(grid: &Grid) -> Option<WorkerView> {
    match grid.client.ask(Request::Workers).await {
        Ok(Reply::Workers(all)) => all.into_iter().find(|worker| worker.liveness != "dead"),
        _ => None,
    }
}

/// Millions of bits a second over a plain TCP connection on loopback.
fn raw() -> std::io::Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut sending = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiving, _) = listener.accept()?;
    let since = Instant::now();
    let sender = std::thread::spawn(move || {
        let chunk = vec![0x5a; 64 << 10];
        let chunks = RAW_BYTES / chunk.len() as u64;
        (0..chunks).try_for_each(|_| sending.write_all(&chunk))
    });
    let mut buffer = vec![0; 64 << 10];
    let mut received = 0;
    loop {
        match receiving.read(&mut buffer)? {
            0 => break,
            read => received += read as u64,
        }
    }
    let took = since.elapsed();
    sender
        .join()
        .map_err(|_| std::io::Error::other("the sender ended"))??;
    Ok(received as f64 * 8.0 / 1e6 / took.as_secs_f64())
}
