//! What is done again and again until a test has seen what it leads to.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two times.
const EVERY: Duration = Duration::from_millis(100);

/// Something that is done again and again until this is dropped: on a slow machine the supervisor is asked too seldom
/// to see what lasts but a moment.
pub struct Again {
    stop: Option<Sender<()>>,
    hand: Option<JoinHandle<()>>,
}

impl Again {
    /// Does it for the first time at once; is told how often it was done before.
    pub fn start(mut act: impl FnMut(usize) + Send + 'static) -> Again {
        let (stop, stopped) = channel();
        let hand = std::thread::spawn(move || {
            for turn in 0.. {
                act(turn);
                if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Again {
            stop: Some(stop),
            hand: Some(hand),
        }
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.hand.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.into_iter().for_each(|ended| ended.unwrap());
        }
    }
}
