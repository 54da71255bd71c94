//! Waiting, in a way that can be ended from outside.

use rustix::event::{PollFd, PollFlags, Timespec};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// The end of a pipe that becomes readable when the other is dropped.
#[derive(Clone)]
pub(crate) struct Stop(Arc<OwnedFd>);

/// Dropping it ends everything that waits with its [`Stop`].
pub(crate) struct Stopper(#[expect(dead_code, reason = "held for its drop")] OwnedFd);

impl Stop {
    /// A descriptor of one's own that becomes readable with it.
    pub fn descriptor(&self) -> std::io::Result<OwnedFd> {
        self.0.try_clone()
    }
}

/// Makes a pair of them.
pub(crate) fn stop() -> std::io::Result<(Stopper, Stop)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((Stopper(write), Stop(Arc::new(read))))
}

/// Waits until one of the descriptors is readable, or so long; `false` once it is to stop.
pub(crate) fn wait(stop: &Stop, fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> bool {
    let mut polled = Vec::with_capacity(fds.len() + 1);
    polled.push(PollFd::from_borrowed_fd(stop.0.as_fd(), PollFlags::IN));
    polled.extend(
        fds.iter()
            .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)),
    );
    let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
    // An interrupted wait is a wait that ended early.
    _ = rustix::event::poll(&mut polled, timeout.as_ref());
    polled[0].revents().is_empty()
}
