//! One stream of numbered events for all clients of the gateway: what changes in the grid. The gateway polls the grid
//! while at least one client follows, and equally often for many.

mod incidents;
mod log;
mod picture;

pub use incidents::{Incident, IncidentKind};
pub use log::Notice;
pub use picture::{Change, GridState, JobGone, WorkerGone};

use crate::sse;
use hedge_model::msg::{Reply, Request};
use hedge_node::{Client, ClientError};
use incidents::Observer;
use log::{Cursor, EventLog};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// The most clients that follow at once, because each is sent every event.
pub const FOLLOWERS_MAX: usize = 64;
/// The interval at which the grid is polled.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The interval grows by this for each worker, up to [`LOOK_LATER_MAX`]: the leader sends the views of all workers.
const LOOK_LATER_PER_WORKER: Duration = Duration::from_micros(100);
const LOOK_LATER_MAX: Duration = Duration::from_millis(150);
/// The interval at which ended jobs are polled. Other clients may retry or forget them.
const LOOK_AT_ALL_EVERY: Duration = Duration::from_secs(10);
/// A grid that does not reply for this long counts as unreachable.
const ANSWERS_WITHIN: Duration = Duration::from_millis(1000);
/// Polling goes on for this long after the last client left. A page that is reloaded follows again within it.
const LINGER: Duration = Duration::from_secs(30);
/// How long a new client waits for the first poll.
const FIRST_LOOK_WITHIN: Duration = Duration::from_secs(2);

/// The stream of events; cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    log: Mutex<EventLog>,
    /// Counts publications, and polls of the grid.
    published: watch::Sender<u64>,
    looks: watch::Sender<u64>,
    followers: watch::Sender<usize>,
    observer: Mutex<Observer>,
}

impl Feed {
    /// Continues with the events in a file. Must be called within a runtime.
    pub fn open(client: Client, path: &Path, stream: String) -> Self {
        Self::of(client, EventLog::open(path, stream))
    }

    /// Creates a stream without a file, which cannot be continued later. Must be called within a runtime.
    pub fn in_memory(client: Client) -> Self {
        Self::of(client, EventLog::new(String::new()))
    }

    fn of(client: Client, log: EventLog) -> Self {
        let feed = Self(Arc::new(Shared {
            log: Mutex::new(log),
            published: watch::Sender::new(0),
            looks: watch::Sender::new(0),
            followers: watch::Sender::new(0),
            observer: Mutex::default(),
        }));
        tokio::spawn(look(client, feed.clone()));
        feed
    }

    /// Adds a client that continues behind the event with this id, or starts anew. Returns none if there are too many.
    pub fn follow(&self, last_id: Option<&str>) -> Option<Follower> {
        let mut room = false;
        self.0.followers.send_if_modified(|count| {
            room = *count < FOLLOWERS_MAX;
            *count += usize::from(room);
            room
        });
        if !room {
            return None;
        }
        let cursor = last_id.map_or(Cursor::Start, |id| self.lock().cursor(id));
        Some(Follower {
            published: self.0.published.subscribe(),
            looks: self.0.looks.subscribe(),
            feed: self.clone(),
            cursor,
            looked: false,
        })
    }

    fn publish(&self, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.lock().publish(Instant::now(), changes);
            self.0.published.send_modify(|count| *count += 1);
        }
    }

    /// Shows the observer something, and publishes the incidents that it finds.
    fn observe(&self, see: impl FnOnce(&mut Observer)) {
        let observer = self.0.observer.lock();
        let mut observer = observer.unwrap_or_else(PoisonError::into_inner);
        see(&mut observer);
        let next = self.lock().picture().next_incident();
        let found = observer.take(next);
        self.publish(found.into_iter().map(Change::Incident).collect());
    }

    /// Returns the time until the next poll of the grid.
    fn pause(&self) -> Duration {
        let workers = self.lock().picture().workers_known() as u32;
        LOOK_EVERY + (LOOK_LATER_PER_WORKER * workers).min(LOOK_LATER_MAX)
    }

    fn set_reachable(&self, why: Option<String>) {
        self.observe(|observer| observer.reachable(why.as_deref()));
        let state = GridState {
            reachable: why.is_none(),
            why,
        };
        let change = self.lock().picture().grid(state);
        self.publish(change.into_iter().collect());
    }

    fn lock(&self) -> MutexGuard<'_, EventLog> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client that follows.
#[derive(Debug)]
pub struct Follower {
    feed: Feed,
    published: watch::Receiver<u64>,
    looks: watch::Receiver<u64>,
    cursor: Cursor,
    /// Whether the grid was polled since it began to follow.
    looked: bool,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.feed.0.followers.send_modify(|count| *count -= 1);
    }
}

impl Follower {
    /// Waits for the next notices and returns at least one; none at the end. It may be dropped and called again.
    pub async fn notices(&mut self) -> Option<Vec<Notice>> {
        self.await_look().await;
        loop {
            self.published.mark_unchanged();
            let notices = self.feed.lock().notices(&mut self.cursor);
            if !notices.is_empty() {
                return Some(notices);
            }
            self.published.changed().await.ok()?;
        }
    }

    /// Waits for a poll, so that a new client does not first receive an outdated state.
    async fn await_look(&mut self) {
        if !self.looked {
            // The sender is in `feed`.
            _ = timeout(FIRST_LOOK_WITHIN, self.looks.changed()).await;
            self.looked = true;
        }
    }
}

impl sse::Source for Follower {
    async fn next(&mut self) -> Option<Vec<u8>> {
        self.await_look().await;
        loop {
            self.published.mark_unchanged();
            let bytes = self.feed.lock().next(&mut self.cursor);
            if bytes.is_some() {
                return bytes;
            }
            self.published.changed().await.ok()?;
        }
    }
}

/// Polls the grid while a client follows, and a little longer.
async fn look(client: Client, feed: Feed) {
    let mut followers = feed.0.followers.subscribe();
    let mut all_at = None;
    let mut until = Instant::now();
    loop {
        if *followers.borrow_and_update() > 0 {
            until = Instant::now() + LINGER;
        } else if until <= Instant::now() {
            feed.observe(|observer| observer.watch(false));
            if followers.wait_for(|count| *count > 0).await.is_err() {
                return;
            }
        }
        feed.observe(|observer| observer.watch(true));
        let all = all_at.is_none_or(|at: Instant| at.elapsed() >= LOOK_AT_ALL_EVERY);
        let mut looking = std::pin::pin!(look_once(&client, &feed, all));
        let looked = match timeout(ANSWERS_WITHIN, &mut looking).await {
            Ok(looked) => looked,
            Err(_) => {
                let why = "no supervisor has answered for a second; what was accepted is kept";
                feed.set_reachable(Some(why.to_owned()));
                looking.await
            }
        };
        match looked {
            Ok(()) => {
                feed.set_reachable(None);
                let leader = client.leader().map(|leader| leader.to_string());
                feed.observe(|observer| observer.leader(leader));
                if all {
                    all_at = Some(Instant::now());
                }
            }
            Err(error) => feed.set_reachable(Some(error.to_string())),
        }
        feed.0.looks.send_modify(|count| *count += 1);
        sleep(feed.pause()).await;
    }
}

async fn look_once(client: &Client, feed: &Feed, all: bool) -> Result<(), ClientError> {
    let Reply::Workers(workers) = client.ask(Request::Workers).await? else {
        return Err(does_not_fit());
    };
    feed.observe(|observer| observer.workers(&workers));
    let changes = feed.lock().picture().workers(Instant::now(), workers);
    feed.publish(changes);
    let after = match all {
        true => None,
        false => feed.lock().picture().changing_after(),
    };
    let jobs = client.jobs_after(after).await?;
    let changes = feed.lock().picture().jobs(Instant::now(), after, jobs);
    feed.publish(changes);
    Ok(())
}

fn does_not_fit() -> ClientError {
    ClientError::Local("the supervisor gave an answer that does not fit".into())
}
