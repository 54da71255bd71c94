//! The terminal: its own screen while it is used, keys as they come, and as it was afterwards, however that comes.

use crate::exit::Failure;
use ratatui::Frame;
use ratatui::backend::TermionBackend;
use ratatui::termion::event::Key;
use ratatui::termion::input::TermRead;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};
use std::io::{self, Stdout, Write, stdin, stdout};
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;

/// Keys that wait to be taken; more are dropped by waiting, as they would be by a busy program.
const KEYS_MAX: usize = 64;
/// Enters a screen of its own, without a cursor.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[2J";
/// Leaves it.
const LEAVE: &[u8] = b"\x1b[0m\x1b[?25h\x1b[?1049l";

/// How the terminal was before; none while it is that way.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Whether this can be shown at all.
///
/// # Errors
/// There is no terminal.
pub fn check() -> Result<(), Failure> {
    if isatty(stdin()) && isatty(stdout()) {
        return Ok(());
    }
    Err(Failure::Arguments(
        "this needs a terminal; nothing was done: `hedge watch` prints the same as lines of JSON, and `hedge jobs` and \
         `hedge workers` print it once"
            .to_owned(),
    ))
}

/// A terminal in use.
pub struct Terminal {
    drawn: ratatui::Terminal<TermionBackend<Stdout>>,
    keys: mpsc::Receiver<Key>,
}

impl Terminal {
    /// Takes the terminal over. A panic gives it back before it is reported.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open() -> Result<Self, Failure> {
        let mut raw = tcgetattr(stdin()).map_err(|error| failed(error.into()))?;
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(raw.clone());
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back();
            report(info);
        }));
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Flush, &raw).map_err(|error| failed(error.into()))?;
        write(ENTER).map_err(failed)?;
        let drawn = ratatui::Terminal::new(TermionBackend::new(stdout())).map_err(failed)?;
        let (sender, keys) = mpsc::channel(KEYS_MAX);
        std::thread::spawn(move || {
            // The end of the terminal ends the keys, and so the command.
            for key in stdin().keys() {
                let Ok(key) = key else { return };
                if sender.blocking_send(key).is_err() {
                    return;
                }
            }
        });
        Ok(Self { drawn, keys })
    }

    /// Draws anew what has changed.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame)) -> Result<(), Failure> {
        self.drawn.draw(draw).map(drop).map_err(failed)
    }

    /// The next key; none once the terminal is gone.
    pub async fn key(&mut self) -> Option<Key> {
        self.keys.recv().await
    }

    /// Gives the terminal back.
    pub fn close(&mut self) {
        give_back();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

/// Makes the terminal as it was, once.
fn give_back() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before {
        // A terminal that is gone needs nothing.
        _ = write(LEAVE);
        _ = tcsetattr(stdin(), OptionalActions::Flush, &before);
    }
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

fn failed(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Local(format!(
            "the terminal cannot be used: {error}; nothing was changed"
        )),
    }
}
