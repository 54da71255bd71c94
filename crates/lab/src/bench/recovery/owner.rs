//! A key is pressed at a worker's machine: from then until what runs there stands still, and until it runs on
//! another worker. Each worker has a desktop of its own, and the key goes through the X server as any other.

use super::tasks::{
    ARGS, Started, WORKERS, all_idle, clear, failed, listen, one_task, started, workers,
};
use super::worker::{SETTLE, descendants};
use crate::bench::block_on;
use crate::bench::grid::{Grid, Plan};
use crate::bench::{lines, quantile, rounded};
use crate::failure::Failure;
use crate::output::Output;
use hedge_model::JobSpec;
use hedge_model::view::WorkerView;
use hedge_node::client::new_key;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{KEY_PRESS_EVENT, KEY_RELEASE_EVENT};
use x11rb::protocol::xtest::ConnectionExt as _;
use x11rb::rust_connection::RustConnection;

/// The key marked A, on any keyboard as X numbers them.
const KEY: u8 = 38;
/// It keeps its core busy, so that standing still shows.
const TASK: &str = "echo \"$HEDGE_ATTEMPT\" > \"$BENCH_PIPE\"; while :; do :; done";
/// Owners of this measurement are soon gone again.
const RULES: &str = "[when]\nresume_after = \"500ms\"\n[sources]\nwithout = [\"evdev\", \"processes\", \
                     \"sessions\", \"logind\", \"screensaver\", \"mutter\", \"wayland\", \"microphone\", \"voice\", \"power\", \
                     \"network\"]\n";
/// Between two looks at whether a task stands still, and how long that may take at most.
const LOOK_EVERY: Duration = Duration::from_micros(200);
const STILL_MAX: Duration = Duration::from_secs(20);
/// Runs that may be repeated because a copy was there already, on mere suspicion.
const REPEATS_MAX: u32 = 1_000;

#[derive(Debug, Serialize)]
struct OwnerFigures {
    kind: &'static str,
    runs: u32,
    /// Runs in which a copy was there before the key was pressed.
    repeated: u32,
    workers: u16,
    frozen_ms_p50: f64,
    frozen_ms_p95: f64,
    frozen_ms_max: f64,
    recovery_ms_p50: f64,
    recovery_ms_p95: f64,
    recovery_ms_max: f64,
    recovery_ms: Vec<f64>,
}

/// Measures and prints.
///
/// # Errors
/// There is no X server to start, the grid cannot be started, or does not recover.
pub fn run(output: Output, runs: u32) -> Result<(), Failure> {
    let figures = block_on(measure(runs))?;
    output.print(&figures, || {
        lines(&[
            format!(
                "key pressed to the task standing still     {:>8.2} ms, p95 {:.2} ms, at most {:.2} ms",
                figures.frozen_ms_p50, figures.frozen_ms_p95, figures.frozen_ms_max
            ),
            format!(
                "key pressed to its task running elsewhere  {:>8.2} ms, p95 {:.2} ms, at most {:.2} ms",
                figures.recovery_ms_p50, figures.recovery_ms_p95, figures.recovery_ms_max
            ),
        ])
    })?;
    Ok(())
}

async fn measure(runs: u32) -> Result<OwnerFigures, Failure> {
    let dir = tempfile::Builder::new().prefix("hedge-owners-").tempdir();
    let dir = dir.map_err(|error| failed(&format!("no folder for the owners: {error}")))?;
    let desktops = (0..WORKERS).map(|number| Desktop::start(dir.path(), number, RULES));
    let desktops = desktops.collect::<Result<Vec<_>, _>>()?;
    let plan = Plan {
        args: ARGS,
        owners: Some(dir.path()),
        ..Plan::new(WORKERS, 1)
    };
    let grid = Grid::start(plan).await?;
    all_idle(&grid, WORKERS).await?;
    let pipe = grid.dir.path().join("pipe");
    let starts = listen(&pipe)?;
    let spec = one_task(&pipe, TASK)?;
    let (mut still, mut again) = (Vec::new(), Vec::new());
    let mut repeated = 0;
    while again.len() < runs as usize {
        match once(&grid, &desktops, &spec, &starts).await? {
            Some((stopped, copied)) => {
                still.push(stopped.as_secs_f64() * 1e3);
                again.push(copied.as_secs_f64() * 1e3);
            }
            None if repeated < REPEATS_MAX => repeated += 1,
            None => return Err(failed("workers are suspected all the time")),
        }
    }
    let each = again.iter().copied().map(rounded).collect();
    Ok(OwnerFigures {
        kind: "owner",
        runs,
        repeated,
        workers: WORKERS,
        frozen_ms_p50: rounded(quantile(&mut still, 0.5)),
        frozen_ms_p95: rounded(quantile(&mut still, 0.95)),
        frozen_ms_max: rounded(quantile(&mut still, 1.0)),
        recovery_ms_p50: rounded(quantile(&mut again, 0.5)),
        recovery_ms_p95: rounded(quantile(&mut again, 0.95)),
        recovery_ms_max: rounded(quantile(&mut again, 1.0)),
        recovery_ms: each,
    })
}

/// One task's worker gets its owner back: when the task stood still, and when it ran elsewhere; nothing where it
/// ran elsewhere already.
async fn once(
    grid: &Grid,
    desktops: &[Desktop],
    spec: &JobSpec,
    starts: &Receiver<Started>,
) -> Result<Option<(Duration, Duration)>, Failure> {
    while starts.try_recv().is_ok() {}
    let job = grid.client.submit(new_key()?, spec).await?;
    started(starts)?;
    tokio::time::sleep(SETTLE).await;
    let mut busy = workers(grid).await?;
    busy.retain(|worker: &WorkerView| worker.in_hand > 0);
    let pid = busy.first().map_or(0, |worker| worker.pid);
    let at = grid.workers.iter().position(|worker| worker.pid() == pid);
    let copied = starts.try_recv().is_ok();
    let (1, Some(at), false) = (busy.len(), at, copied) else {
        clear(grid, job).await?;
        return Ok(None);
    };
    let task = processes(pid, &grid.dir.path().join("pipe"));
    if task.is_empty() {
        return Err(failed("the task's processes were not found"));
    }
    let still = when_still(task);
    let since = desktops[at].press()?;
    let (again, _) = started(starts)?;
    let stopped = still.recv_timeout(STILL_MAX);
    let stopped = stopped.map_err(|_| failed("the task was not stopped"))?;
    clear(grid, job).await?;
    let span = |moment: Instant| moment.saturating_duration_since(since);
    Ok(Some((span(stopped), span(again))))
}

/// Those below a worker that have the pipe in their environment.
fn processes(worker: u32, pipe: &Path) -> Vec<u32> {
    let mark = format!("BENCH_PIPE={}", pipe.display()).into_bytes();
    let of_task = |pid: &u32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|word| word == mark)
    };
    descendants(worker).into_iter().filter(of_task).collect()
}

/// The moment at which all of these are seen to stand still.
fn when_still(pids: Vec<u32>) -> Receiver<Instant> {
    let (said, still) = sync_channel(1);
    std::thread::spawn(move || {
        let since = Instant::now();
        while !pids.iter().all(|pid| hedge_exec::is_stopped(*pid)) {
            if since.elapsed() > STILL_MAX {
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        _ = said.send(Instant::now());
    });
    still
}

/// An X server with a virtual keyboard, and the owner who presses its keys.
pub struct Desktop {
    server: Child,
    keyboard: RustConnection,
    root: u32,
}

impl Drop for Desktop {
    fn drop(&mut self) {
        _ = self.server.kill();
        _ = self.server.wait();
    }
}

impl Desktop {
    /// Starts it, and writes the rules of the worker with this number, which end within `[sources]`.
    ///
    /// # Errors
    /// There is none to start.
    pub fn start(dir: &Path, number: u16, rules: &str) -> Result<Desktop, Failure> {
        let cannot = |error: std::io::Error| {
            failed(&format!(
                "no X server can be started: Xvfb: {error}; nothing was measured; install it (Debian: xvfb)"
            ))
        };
        let (read, write) = std::io::pipe().map_err(cannot)?;
        // A copy that the server inherits: it says there which display it has chosen.
        let handed = rustix::io::dup(&write).map_err(|error| cannot(error.into()))?;
        let server = Command::new("Xvfb")
            .args(["-displayfd", &handed.as_raw_fd().to_string()])
            .args(["-screen", "0", "320x200x24", "-nolisten", "tcp"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(cannot)?;
        drop((write, handed));
        let mut name = String::new();
        let said = File::from(OwnedFd::from(read));
        BufReader::new(said).read_line(&mut name).map_err(cannot)?;
        let display = format!(":{}", name.trim());
        let (keyboard, screen) = RustConnection::connect(Some(&display))
            .map_err(|error| failed(&format!("X display {display}: {error}")))?;
        let root = keyboard.setup().roots[screen].root;
        let rules = format!("{rules}display = {display:?}\n");
        fs::write(dir.join(format!("{number}.toml")), rules).map_err(cannot)?;
        Ok(Desktop {
            server,
            keyboard,
            root,
        })
    }

    /// Presses a key and lets it go; the moment before.
    fn press(&self) -> Result<Instant, Failure> {
        let lost =
            |error: &dyn std::fmt::Display| failed(&format!("the X server is gone: {error}"));
        let since = Instant::now();
        for what in [KEY_PRESS_EVENT, KEY_RELEASE_EVENT] {
            let sent = self
                .keyboard
                .xtest_fake_input(what, KEY, 0, self.root, 0, 0, 0);
            sent.map_err(|error| lost(&error))?;
        }
        self.keyboard.flush().map_err(|error| lost(&error))?;
        Ok(since)
    }
}
