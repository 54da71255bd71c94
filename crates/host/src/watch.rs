//! All sources together.

use crate::poll::{self, Stop, Stopper};
use crate::source::{Ended, Hand, Notice, Open, Options, Outlet, State};
use crate::{
    evdev, load, logind, microphone, mutter, network, power, screensaver, sessions, voice, wayland,
    x11,
};
use hedge_model::owner::{Activity, Signal};
use serde::Serialize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Waits before a source that is not there, or broke, is tried again; the last one is repeated.
const TRY_AGAIN: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(30),
];
/// Devices that come and go faster than this are waited for.
const CHANGES_SETTLE: Duration = Duration::from_millis(50);
/// How long a source may take to say whether it watches, when all are asked.
const OPENED_WITHIN: Duration = Duration::from_secs(3);

/// Of each source's thread; only what is used of it takes memory.
const STACK_BYTES: usize = 2 << 20;

/// Every source there is.
const SOURCES: &[(&str, Open)] = &[
    ("evdev", evdev::open),
    ("x11", x11::open),
    ("wayland", wayland::open),
    ("processes", load::open),
    ("sessions", sessions::open),
    ("logind", logind::open),
    ("screensaver", screensaver::open),
    ("mutter", mutter::open),
    ("microphone", microphone::open),
    ("voice", voice::open),
    ("power", power::open),
    ("network", network::open),
];

/// A source and how it stands.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Its name, as in [`Options::without`].
    pub source: &'static str,
    /// How it stands; `None` while that is being found out.
    #[serde(flatten)]
    pub state: Option<State>,
}

/// Sources at work; they end when this is dropped.
pub struct Watch {
    board: Arc<Board>,
    _stopper: Stopper,
}

struct Board {
    state: Mutex<BoardState>,
    changed: Condvar,
    hand: Hand,
}

struct BoardState {
    found: Vec<Found>,
    input: Option<bool>,
}

impl Watch {
    /// Starts all sources that the options leave. `hand` gets what they notice, on their threads, and may wait.
    ///
    /// # Errors
    /// The system has no more pipes or threads to give.
    pub fn start(
        options: Options,
        hand: impl Fn(Notice) + Send + Sync + 'static,
    ) -> std::io::Result<Watch> {
        let (stopper, stop) = poll::stop()?;
        let wanted: Vec<_> = SOURCES
            .iter()
            .filter(|(name, _)| options.without.iter().all(|without| without != name))
            .collect();
        let found = wanted.iter().map(|(source, _)| Found {
            source,
            state: None,
        });
        let state = BoardState {
            found: found.collect(),
            input: None,
        };
        let board = Arc::new(Board {
            state: Mutex::new(state),
            changed: Condvar::new(),
            hand: Arc::new(hand),
        });
        for (source, open) in wanted {
            let (board, options, stop) = (board.clone(), options.clone(), stop.clone());
            std::thread::Builder::new()
                .name(format!("owner-{source}"))
                .stack_size(STACK_BYTES)
                .spawn(move || keep(source, *open, &options, &board, stop))?;
        }
        board.tell_input();
        Ok(Watch {
            board,
            _stopper: stopper,
        })
    }

    /// How each source stands, once all have been opened or could not be; waits for that at most a few seconds.
    pub fn found(&self) -> Vec<Found> {
        let until = Instant::now() + OPENED_WITHIN;
        let mut state = self.board.lock();
        while state.found.iter().any(|found| found.state.is_none()) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.board.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.found.clone()
    }
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, BoardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, source: &'static str, state: State) {
        let mut board = self.lock();
        if let Some(found) = board.found.iter_mut().find(|one| one.source == source) {
            if found.state.as_ref() == Some(&state) {
                return;
            }
            match &state {
                State::Watching { what, .. } => tracing::info!(source, what, "watching"),
                State::Absent { why, .. } => tracing::debug!(source, why, "not watching"),
                State::Denied { why, mend } => tracing::warn!(source, why, mend, "not watching"),
            }
            found.state = Some(state);
        }
        drop(board);
        self.changed.notify_all();
        self.tell_input();
    }

    /// Says whether any source of input watches, once that is known and whenever it changes.
    fn tell_input(&self) {
        let mut board = self.lock();
        let watches = |found: &Found| match &found.state {
            Some(State::Watching { kinds, .. }) => kinds.iter().any(|kind| kind.is_input()),
            _ => false,
        };
        let any = board.found.iter().any(watches);
        let open = board.found.iter().any(|found| found.state.is_none());
        if board.input == Some(any) || (open && !any) {
            return;
        }
        board.input = Some(any);
        // Under the lock, so that no older word overtakes a newer one.
        (self.hand)(Notice {
            source: "watch",
            signal: Signal::Watched(any),
            at: Instant::now(),
        });
    }
}

/// Keeps one source going.
fn keep(source: &'static str, open: Open, options: &Options, board: &Board, stop: Stop) {
    let mut out = Outlet::new(source, board.hand.clone(), stop.clone());
    let mut failed = 0;
    loop {
        let state = match open(options) {
            Ok(mut opened) => {
                let covers = opened.covers();
                board.set(
                    source,
                    State::Watching {
                        what: covers.what,
                        kinds: covers.kinds,
                    },
                );
                let since = Instant::now();
                let ended = opened.run(&mut out);
                out.over();
                if since.elapsed() > TRY_AGAIN[TRY_AGAIN.len() - 1] {
                    failed = 0;
                }
                match ended {
                    Ended::Stopped => return,
                    Ended::Changed => {
                        if !poll::wait(&stop, &[], Some(CHANGES_SETTLE)) {
                            return;
                        }
                        continue;
                    }
                    Ended::Broken(why) => State::Absent { why, mend: None },
                }
            }
            Err(trouble) => trouble.into(),
        };
        board.set(source, state);
        let pause = TRY_AGAIN[failed.min(TRY_AGAIN.len() - 1)];
        failed += 1;
        if !poll::wait(&stop, &[], Some(pause)) {
            return;
        }
    }
}

/// The sources that notice a kind of activity.
pub fn covering(found: &[Found], kind: Activity) -> Vec<&'static str> {
    let covers = |found: &&Found| match &found.state {
        Some(State::Watching { kinds, .. }) => kinds.contains(&kind),
        _ => false,
    };
    found.iter().filter(covers).map(|one| one.source).collect()
}
