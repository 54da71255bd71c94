//! The transport's own runtime: its threads do nothing but the network's work, at raised priority where that
//! is allowed, so that heartbeats do not wait behind the core, content or tasks.

use crate::NodeError;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

/// Niceness of the transport's threads, where this user may set it.
const NICE: i32 = -10;

/// A runtime for the transport alone; clones share it, and it ends with the last of them, from wherever.
#[derive(Clone, Debug)]
pub(crate) struct Transport(Arc<Ending>);

#[derive(Debug)]
struct Ending(Option<Runtime>);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Transport {
    pub fn start() -> Result<Self, NodeError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("transport")
            .on_thread_start(raise_priority)
            .enable_all()
            .build()
            .map_err(|error| {
                NodeError::Other(format!("cannot start the transport's threads: {error}"))
            })?;
        Ok(Self(Arc::new(Ending(Some(runtime)))))
    }

    /// Runs a future on the transport's threads and waits for it from elsewhere.
    pub async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, NodeError> {
        let Some(runtime) = &self.0.0 else {
            return Err(stopped());
        };
        runtime.spawn(future).await.map_err(|_| stopped())
    }

    /// Starts a task on the transport's threads.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0.0 {
            runtime.spawn(future);
        }
    }
}

fn stopped() -> NodeError {
    NodeError::Other("the transport has stopped".into())
}

/// Whether this process may raise a thread's priority; tried on a thread that ends at once.
pub fn priority_can_be_raised() -> bool {
    std::thread::spawn(|| {
        raise_priority();
        // SAFETY: a plain system call without pointers.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) == NICE }
    })
    .join()
    .unwrap_or(false)
}

fn raise_priority() {
    // SAFETY: a plain system call without pointers; on Linux it concerns the calling thread alone, and
    // being refused changes nothing.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}
