//! `hedge screensaver`: a hedge at night, which grows with every task that this machine has done for its grid, and
//! a firefly for each that runs.
//!
//! It is the screen of a worker and no part of it: it hears from it over a local socket, and while it is connected
//! the worker knows that its owner is away. However it ends, the worker takes that as the owner's return.

mod draw;

use crate::args::Screensaver;
use crate::exit::{Exit, Failure};
use draw::Screen;
use hedge_node::worker::{SaverView, saver_socket};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two pictures.
const FRAME_EVERY: Duration = Duration::from_millis(66);
/// Between two tries to reach the worker.
const CALL_EVERY: Duration = Duration::from_secs(1);
/// Longest line that is taken from the worker, bytes.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// Draws until its window is gone or it is ended.
///
/// # Errors
/// There is no display or window to draw on.
pub fn run(context: &crate::commands::Context, args: &Screensaver) -> Result<Exit, Failure> {
    let window = args
        .window_id
        .clone()
        .or_else(|| std::env::var("XSCREENSAVER_WINDOW").ok());
    let mut screen = Screen::open(window.as_deref(), args.root).map_err(Failure::Local)?;
    let view = Arc::new(Mutex::new(None));
    let (socket, told) = (saver_socket(&context.folders.worker()), view.clone());
    std::thread::spawn(move || listen(&socket, &told));
    let since = Instant::now();
    loop {
        let now = view.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if !screen.show(now.as_ref(), since.elapsed().as_secs_f64()) {
            return Ok(Exit::Done);
        }
        std::thread::sleep(FRAME_EVERY);
    }
}

/// Keeps what the worker says last; nothing while it does not answer.
fn listen(socket: &PathBuf, told: &Mutex<Option<SaverView>>) {
    let tell = |view| *told.lock().unwrap_or_else(PoisonError::into_inner) = view;
    loop {
        if let Ok(stream) = UnixStream::connect(socket) {
            let mut stream = BufReader::new(stream);
            loop {
                let mut line = String::new();
                let read = std::io::Read::take(&mut stream, LINE_BYTES_MAX).read_line(&mut line);
                if !read.is_ok_and(|read| read > 0) {
                    break;
                }
                if let Ok(view) = serde_json::from_str(&line) {
                    tell(Some(view));
                }
            }
        }
        tell(None);
        std::thread::sleep(CALL_EVERY);
    }
}
