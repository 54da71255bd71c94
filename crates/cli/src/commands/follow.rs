//! Follows a job to its end.

use super::interrupt::Interrupts;
use crate::exit::{Exit, Failure};
use crate::show::note;
use crate::show::progress::Progress;
use hedge_model::JobId;
use hedge_model::msg::{Reply, Request};
use hedge_model::view::{JobState, JobView};
use hedge_node::ClientError;
use hedge_node::client::Client;
use std::time::{Duration, Instant};

/// The grid counts as unreachable once no supervisor has answered for this long. A supervisor can restart in that time.
const GIVE_UP_AFTER: Duration = Duration::from_secs(15);
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// The interval at which progress is redrawn without a change.
const REFRESH: Duration = Duration::from_millis(250);
/// The interval of requests for a job while none of its tasks runs: what it waits for may change without a notice.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How following ended.
pub enum Followed {
    /// The job ended.
    Ended(Box<JobView>),
    /// The user interrupted.
    Interrupted,
}

/// Follows a job until it has ended or the user interrupts.
///
/// # Errors
/// The grid cannot be reached any more; the job goes on.
pub async fn follow(
    client: &Client,
    job: JobId,
    progress: &mut Progress,
    interrupts: &mut Interrupts,
) -> Result<Followed, Failure> {
    let mut lost_at: Option<Instant> = None;
    loop {
        let why = match follow_once(client, job, progress, interrupts).await {
            Ok(Some(followed)) => return Ok(followed),
            Err(ClientError::Unreachable(why)) => Some(why),
            Err(error) => return Err(error.into()),
            // It was connected since the last failure.
            Ok(None) => {
                lost_at = None;
                None
            }
        };
        match (lost_at, why) {
            (Some(at), Some(why)) if at.elapsed() >= GIVE_UP_AFTER => {
                return Err(given_up(job, &why));
            }
            (Some(_), _) => {}
            (None, _) => {
                note("the connection to the supervisor was lost; trying again");
                lost_at = Some(Instant::now());
            }
        }
        tokio::select! {
            () = interrupts.next() => return Ok(Followed::Interrupted),
            () = tokio::time::sleep(RETRY_PAUSE) => {}
        }
    }
}

fn given_up(job: JobId, why: &str) -> Failure {
    let why = format!(
        "{why}; the supervisor had accepted job {job}: `hedge wait {job}` comes back to it once the supervisor answers"
    );
    ClientError::Unreachable(why).into()
}

/// Returns the exit code for a job that ended in this state.
pub fn exit(state: JobState) -> Exit {
    match state {
        JobState::Done | JobState::Running | JobState::Waiting => Exit::Done,
        JobState::Failed => Exit::Failed,
        JobState::Cancelled => Exit::Cancelled,
    }
}

async fn follow_once(
    client: &Client,
    job: JobId,
    progress: &mut Progress,
    interrupts: &mut Interrupts,
) -> Result<Option<Followed>, ClientError> {
    let mut views = tokio::select! {
        () = interrupts.next() => return Ok(Some(Followed::Interrupted)),
        views = client.watch(job) => views?,
    };
    let mut last: Option<JobView> = None;
    let mut asked = Instant::now();
    loop {
        tokio::select! {
            () = interrupts.next() => return Ok(Some(Followed::Interrupted)),
            view = views.recv() => {
                let Some(view) = view else { return Ok(None) };
                progress.update(&view);
                if view.state.ended() {
                    return Ok(Some(Followed::Ended(Box::new(view))));
                }
                last = Some(view);
            }
            () = tokio::time::sleep(REFRESH) => {}
        }
        let Some(view) = &mut last else { continue };
        if view.state == JobState::Waiting && asked.elapsed() >= ASK_AGAIN {
            asked = Instant::now();
            tokio::select! {
                () = interrupts.next() => return Ok(Some(Followed::Interrupted)),
                reply = client.ask(Request::Job(job)) => {
                    // The end comes with the views, and so does the loss of the connection.
                    if let Ok(Reply::Job(now)) = reply && !now.state.ended() {
                        *view = *now;
                    }
                }
            }
        }
        progress.update(view);
    }
}
