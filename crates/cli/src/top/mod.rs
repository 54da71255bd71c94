//! `hedge top`: the grid on a terminal, as it changes.

mod draw;
mod screen;
mod terminal;
#[cfg(test)]
mod tests;

use crate::args::Top;
use crate::commands::interrupt::Interrupts;
use crate::commands::{Context, unexpected};
use crate::exit::{Exit, Failure};
use hedge_gateway::Feed;
use hedge_model::JobId;
use hedge_model::msg::{Reply, Request};
use hedge_model::view::{AttemptLine, AttemptsView, GroupLine};
use hedge_node::ClientError;
use hedge_node::client::Client;
use screen::{Detail, Screen};
use std::time::Duration;
use terminal::Terminal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// The screen is drawn at most this often; slow connections are not flooded.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// Between two requests for what the event stream does not bring: groups and attempts of the job that is shown.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// The same for each task of the job, as large ones cost the leader more.
const ASK_EVERY_PER_TASK: Duration = Duration::from_micros(20);
/// Attempts that ended are listed for so long.
const ENDED_SHOWN: Duration = Duration::from_secs(30);
/// Pages of attempts and groups that are asked for at once.
const PAGES_MAX: usize = 20;

/// Shows the grid until the user leaves.
///
/// # Errors
/// There is no terminal, or the grid cannot be reached at the beginning.
pub fn run(context: &Context, args: &Top) -> Result<Exit, Failure> {
    terminal::check()?;
    context.on_grid(&args.grid, async |client| {
        let mut interrupts = Interrupts::new()?;
        let mut terminal = Terminal::open()?;
        let shown = show(client, &mut terminal);
        let shown = tokio::select! {
            shown = shown => shown,
            () = interrupts.next() => Ok(()),
        };
        terminal.close();
        shown.map(|()| Exit::Done)
    })
}

async fn show(client: &Client, terminal: &mut Terminal) -> Result<(), Failure> {
    let feed = Feed::in_memory(client.clone());
    let mut follower = feed.follow(None).ok_or_else(unexpected)?;
    let mut resized = signal(SignalKind::window_change())
        .map_err(|error| Failure::Local(format!("cannot listen to signals: {error}")))?;
    let mut screen = Screen::default();
    let mut draw = interval(DRAW_EVERY);
    draw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changed = true;
    let mut ask_at = Instant::now();
    let mut asking = std::pin::pin!(None);
    loop {
        if asking.is_none()
            && let Some(job) = screen.shown_job()
            && Instant::now() >= ask_at
        {
            asking.set(Some(detail(client, job)));
        }
        tokio::select! {
            notices = follower.notices() => {
                let Some(notices) = notices else { return Ok(()) };
                notices.into_iter().for_each(|notice| screen.take(notice));
                changed = true;
            }
            key = terminal.key() => {
                let Some(key) = key else { return Ok(()) };
                if !screen.press(key) {
                    return Ok(());
                }
                ask_at = ask_at.min(Instant::now());
                changed = true;
                terminal.draw(|frame| draw::draw(frame, &mut screen))?;
            }
            found = answered(asking.as_mut()) => {
                asking.set(None);
                let tasks = screen.tasks_of_shown();
                ask_at = Instant::now() + ASK_EVERY.max(ASK_EVERY_PER_TASK * tasks);
                // Without an answer the feed says what is wrong.
                if let Ok(found) = found {
                    screen.detail = Some(found);
                    changed = true;
                }
            }
            _ = resized.recv() => changed = true,
            now = draw.tick() => {
                // What grows by itself, like a running job's time, is drawn once a second.
                if std::mem::take(&mut changed) || screen.drawn_at.is_none_or(|at| now.duration_since(at) >= Duration::from_secs(1)) {
                    screen.drawn_at = Some(now);
                    terminal.draw(|frame| draw::draw(frame, &mut screen))?;
                }
            }
        }
    }
}

/// Waits for the answer to what is asked; for ever where nothing is.
async fn answered<T>(asking: std::pin::Pin<&mut Option<impl Future<Output = T>>>) -> T {
    match asking.as_pin_mut() {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

/// Groups of a job, and its attempts that run or ended lately.
async fn detail(client: &Client, job: JobId) -> Result<Detail, ClientError> {
    let (mut groups, mut from) = (Vec::<GroupLine>::new(), 0);
    for _ in 0..PAGES_MAX {
        let Reply::Groups(page) = client.ask(Request::Groups { job, from }).await? else {
            break;
        };
        groups.extend(page.groups);
        let Some(next) = page.next else { break };
        from = next;
    }
    // The first answer says how old the job is.
    let now_ms = attempts(client, job, 0, Duration::MAX / 4).await?.now_ms;
    let now = Duration::try_from_secs_f64(now_ms / 1e3).unwrap_or_default();
    let (mut found, mut from) = (Vec::<AttemptLine>::new(), 0);
    for _ in 0..PAGES_MAX {
        let page = attempts(client, job, from, now.saturating_sub(ENDED_SHOWN)).await?;
        found.extend(page.attempts);
        let Some(next) = page.next else { break };
        from = next;
    }
    Ok(Detail {
        job,
        groups,
        attempts: found,
        now_ms,
        at: Instant::now(),
    })
}

async fn attempts(
    client: &Client,
    job: JobId,
    from: u32,
    since: Duration,
) -> Result<AttemptsView, ClientError> {
    match client.ask(Request::Attempts { job, from, since }).await? {
        Reply::Attempts(page) => Ok(*page),
        _ => Err(ClientError::Local(
            "the supervisor gave an answer that does not fit".into(),
        )),
    }
}
