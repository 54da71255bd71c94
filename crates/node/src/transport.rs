//! Separate threads for the transport and for blobs. The transport's thread has a raised priority if that is allowed,
//! so that heartbeats wait neither for the core nor for blobs or tasks. Hashing and encryption of blobs would delay
//! everything else. Heartbeats are made and checked on threads of their own (`worker/heartbeats.rs`,
//! `supervisor/watch.rs`).

use crate::NodeError;
use std::sync::Arc;
use tokio::runtime::{Builder, Handle, Runtime};

/// Niceness of the transport's thread and of the threads that make and check heartbeats, if this user may set it.
/// `hedge-store` has the same for the journal's thread.
const NICE: i32 = -10;
/// Transfers are bound by encryption. More threads would take cores from tasks.
const CONTENT_THREADS: usize = 2;

/// A runtime with its own threads. Clones share it. It ends with the last clone, from any thread.
#[derive(Clone, Debug)]
pub(crate) struct Threads(Arc<Ending>);

#[derive(Debug)]
struct Ending(Option<Runtime>);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Threads {
    /// Starts one thread for the transport.
    pub fn transport() -> Result<Self, NodeError> {
        Self::start(
            Builder::new_multi_thread()
                .worker_threads(1)
                .on_thread_start(raise_priority),
            "transport",
        )
    }

    /// Starts the threads for blobs; a relay's server runs on such threads too.
    pub fn content() -> Result<Self, NodeError> {
        Self::start(
            Builder::new_multi_thread().worker_threads(CONTENT_THREADS),
            "content",
        )
    }

    fn start(builder: &mut Builder, name: &str) -> Result<Self, NodeError> {
        let runtime = builder
            .thread_name(name)
            .enable_all()
            .build()
            .map_err(|error| {
                NodeError::Other(format!("cannot start the {name} threads: {error}"))
            })?;
        Ok(Self(Arc::new(Ending(Some(runtime)))))
    }

    /// Returns a handle to spawn tasks there.
    pub fn handle(&self) -> Handle {
        let runtime = self.0.0.as_ref().map(|runtime| runtime.handle().clone());
        runtime.unwrap_or_else(|| unreachable!("the runtime is taken at drop only"))
    }

    /// Runs a future on these threads and waits for it from elsewhere.
    pub async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, NodeError> {
        let Some(runtime) = &self.0.0 else {
            return Err(stopped());
        };
        runtime.spawn(future).await.map_err(|_| stopped())
    }

    /// Spawns a task on these threads.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0.0 {
            runtime.spawn(future);
        }
    }
}

fn stopped() -> NodeError {
    NodeError::Other("the transport has stopped".into())
}

/// Returns whether this process may raise a thread's priority. It tries on a thread that exits at once.
pub fn priority_can_be_raised() -> bool {
    std::thread::spawn(|| {
        raise_priority();
        // SAFETY: a plain system call without pointers.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) == NICE }
    })
    .join()
    .unwrap_or(false)
}

/// Raises the calling thread's priority, if that is allowed, and makes its sleeps end on time.
pub(crate) fn raise_priority() {
    // SAFETY: a plain system call without pointers. On Linux it affects only the calling thread, and a refusal
    // changes nothing.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
        libc::prctl(libc::PR_SET_TIMERSLACK, 1_usize);
    }
}
