//! The spawner's process as the worker sees it: its setup, start and end.

use crate::wire::{self, Reply, Setup};
use crate::{ExecError, Permissions, Report, SpawnerConfig};
use hedge_model::spec::Network;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::net::UnixStream;

/// The time limit for a spawner to set itself up.
const START_MAX: Duration = Duration::from_secs(20);
/// The time limit for the attempts of a dead spawner to end. Then they are reported as lost all the same.
const DYING_MAX: Duration = Duration::from_secs(2);

/// Checks the configuration and turns it into what the spawner needs.
pub(crate) fn setup(config: &SpawnerConfig) -> Result<Setup, ExecError> {
    let real = |path: &Path| {
        std::fs::canonicalize(path).map_err(|error| ExecError::io("find", path, error))
    };
    let scratch = real(&config.scratch)?;
    let read_only = config
        .read_only
        .iter()
        .map(|path| real(path))
        .collect::<Result<Vec<_>, _>>()?;
    if config.sandbox {
        let hidden = config
            .hidden
            .iter()
            .map(|path| real(path))
            .collect::<Result<Vec<_>, _>>()?;
        let shares = config.shares.iter().map(|share| &share.path);
        for (share, hidden) in shares.flat_map(|share| hidden.iter().map(move |one| (share, one))) {
            if share.starts_with(hidden) || hidden.starts_with(share) {
                let why = format!("the worker's own files are in {}", hidden.display());
                let path = share.clone();
                return Err(ExecError::Share { path, why });
            }
        }
        let own = ["/dev", "/proc", "/sys"].map(PathBuf::from);
        let system = crate::spawner::system_folders();
        for hidden in hidden.iter().chain([&scratch]) {
            for visible in system.iter().chain(&own).chain(&read_only) {
                if hidden.starts_with(visible) {
                    let (hidden, visible) = (hidden.clone(), visible.clone());
                    return Err(ExecError::Exposed { hidden, visible });
                }
            }
        }
    }
    Ok(Setup {
        disk_reserve: crate::reserve::reserve(&scratch),
        folder: scratch,
        slot: 0,
        processes_max: config.processes_max,
        memory_max: config.memory_max,
        sandbox: config.sandbox,
        permissions: Permissions::default(),
        network: match config.network || !config.sandbox {
            true => Network::Any,
            false => Network::Loopback,
        },
        priority: config.priority,
        read_only,
        env: config.env.clone(),
        worker: std::process::id(),
    })
}

/// A running spawner.
pub(crate) struct Started {
    pub stream: UnixStream,
    /// Its watcher.
    pub child: Child,
    pub report: Report,
}

/// Starts the process, sends its setup, and waits until it is ready.
pub(crate) async fn start(config: &SpawnerConfig, setup: &Setup) -> Result<Started, ExecError> {
    let failed = |why: String| ExecError::SpawnerStart { why };
    let said = |error: io::Error| failed(error.to_string());
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(said)?;
    ours.set_nonblocking(true).map_err(said)?;
    let stream = UnixStream::from_std(ours).map_err(said)?;
    let (program, args) = &config.program;
    // The standard library uses `posix_spawn` here, which does not copy the page tables of a large worker.
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| failed(format!("{}: {error}", program.display())))?;
    let mut frame = Vec::new();
    wire::encode(setup, &mut frame).map_err(|error| failed(error.0))?;
    let why = match tokio::time::timeout(START_MAX, introduce(&stream, &frame)).await {
        Ok(Ok(Reply::Ready(report))) if config.accept_weak || report.weaknesses.is_empty() => {
            return Ok(Started {
                stream,
                child,
                report,
            });
        }
        Ok(Ok(Reply::Ready(report))) => {
            drop(stream);
            wait(child).await;
            return Err(ExecError::WeakSandbox {
                weaknesses: report.weaknesses,
                why: report.reduced,
            });
        }
        Ok(Ok(Reply::Refused { why })) => {
            wait(child).await;
            return Err(ExecError::NoSandbox { why });
        }
        Ok(Ok(_)) => "it spoke out of turn".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it was not ready after {START_MAX:?}"),
    };
    let _ = child.kill();
    wait(child).await;
    Err(failed(why))
}

/// Sends the setup's frame and returns the first reply. A process that refuses replies why and exits.
async fn introduce(stream: &UnixStream, mut frame: &[u8]) -> io::Result<Reply> {
    while !frame.is_empty() {
        stream.writable().await?;
        frame = match stream.try_write(frame) {
            Ok(written) => &frame[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => frame,
            Err(error) => return Err(error),
        };
    }
    let mut inbox = Vec::new();
    let mut open = true;
    loop {
        // Also at the end of the stream, because the last reply may have arrived together with it.
        if let Some(reply) =
            wire::decode::<Reply>(&inbox, &mut 0).map_err(|error| io::Error::other(error.0))?
        {
            return Ok(reply);
        }
        if !open {
            return Err(io::Error::other("it ended at once"));
        }
        stream.readable().await?;
        open = receive(stream, &mut inbox)?;
    }
}

/// Waits for a watcher that has ended or is about to.
pub(crate) async fn wait(mut child: Child) {
    let _ =
        tokio::time::timeout(DYING_MAX, tokio::task::spawn_blocking(move || child.wait())).await;
}

/// Reads what is there. Returns false at the end of the stream.
pub(crate) fn receive(stream: &UnixStream, inbox: &mut Vec<u8>) -> io::Result<bool> {
    loop {
        inbox.reserve(64 << 10);
        match stream.try_read_buf(inbox) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}
