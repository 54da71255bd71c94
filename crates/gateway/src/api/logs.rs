//! What tasks print: all of it so far, or as it comes.

use super::jobs::job_of;
use crate::app::App;
use crate::parts::{Json, PathParams, Query};
use crate::problem::Problem;
use crate::sse;
use axum::extract::State;
use axum::response::Response;
use hedge_model::msg::Offsets;
use hedge_model::view::{OutputEnd, OutputPart, OutputView};
use hedge_model::{AttemptId, Epoch, JobId, PeerId, TaskId};
use hedge_node::client::{News, Patience, PollDelay, Tail, TailState};
use hyper::HeaderMap;
use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

/// Show what a task printed, or has printed so far
#[utoipa::path(
    get,
    path = "/v1/jobs/{job}/tasks/{task}/log",
    tag = "tasks",
    params(
        ("job" = u64, Path, description = "Number of the job."),
        ("task" = String, Path, description = "The task's number or label, like `frame.12`."),
    ),
    responses(
        (status = 200, description = "What was kept of it; bytes that are no UTF-8 are replaced.", body = OutputView),
        Problem,
    ),
)]
pub async fn show_log(
    State(app): State<App>,
    path: PathParams,
) -> Result<Json<OutputView>, Problem> {
    let (job, task) = (job_of(&path)?, path.text("task"));
    let _large = app.large_request().await?;
    let mut tail = app.client().tail(job, task);
    let mut patience = Patience::default();
    let mut streams = [Vec::new(), Vec::new()];
    let (mut totals, mut limit) = ([0, 0], None);
    loop {
        let news = patience.next(&mut tail).await?;
        for (at, part) in [&news.stdout, &news.stderr].into_iter().enumerate() {
            streams[at].extend_from_slice(&part.bytes);
            totals[at] = part.until;
        }
        let read: u64 = totals.iter().sum();
        let [out, err] = &streams;
        let view = |worker, end: Option<&_>| {
            Ok(Json(OutputView::new(
                task,
                (news.attempt, worker),
                end,
                [out, err],
                totals,
            )))
        };
        match &news.state {
            TailState::Over { log, .. } => return view(log.worker, Some(log)),
            TailState::Runs { worker, left, .. } => {
                let limit = *limit.get_or_insert(read + left);
                if *left == 0 || read >= limit {
                    return view(Some(*worker), None);
                }
            }
            TailState::Waits(_) | TailState::Nothing(_) => break,
        }
    }
    let printed = app.client().printed(job, task).await?;
    Ok(Json(printed.output()))
}

/// Follow what a task prints
///
/// Sends the event `output` with an `OutputPart` when the task prints, `end` with an `OutputEnd` when an attempt is over,
/// `waits` while nothing can be read, and closes behind the last. The output of another attempt begins anew. A client that
/// shows the last `id` goes on behind it.
#[utoipa::path(
    get,
    path = "/v1/jobs/{job}/tasks/{task}/log/events",
    tag = "tasks",
    params(
        ("job" = u64, Path, description = "Number of the job."),
        ("task" = String, Path, description = "The task's number or label, like `frame.12`."),
        ("last-event-id" = Option<String>, Header, description = "Where to go on."),
    ),
    responses(
        (status = 200, description = "Server-sent events.", body = sse::Event, content_type = "text/event-stream"),
        Problem,
    ),
)]
pub async fn follow_log(
    State(app): State<App>,
    path: PathParams,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    query.only(&[])?;
    let (job, task) = (job_of(&path)?, path.text("task").to_owned());
    let mut tail = app.client().tail(job, &task);
    if let Some((attempt, to)) = sse::last_id(&headers).and_then(|id| position(job, id)) {
        tail.rewind(attempt, to);
    }
    // A task that there is not is refused before the stream begins.
    let news = tail.next().await?;
    let (job_ends, job_end) = watch::channel(false);
    Ok(sse::respond(Following {
        task,
        tail,
        patience: Patience::default(),
        delay: PollDelay::default(),
        _job_ends: job_ends,
        job_end,
        first: Some(news),
        held: Default::default(),
        made: (None, None),
        waits: None,
        over: false,
    }))
}

/// Why nothing can be read.
#[derive(Serialize, ToSchema)]
struct Waits<'a> {
    why: &'a str,
}

/// A task whose output is read as it comes.
struct Following {
    task: String,
    tail: Tail,
    patience: Patience,
    delay: PollDelay,
    _job_ends: watch::Sender<bool>,
    job_end: watch::Receiver<bool>,
    first: Option<News>,
    /// The beginnings of characters whose rest has not been read, of both streams.
    held: [Vec<u8>; 2],
    /// The attempt that is read, and its worker.
    made: (Option<AttemptId>, Option<PeerId>),
    /// What was last said of why nothing can be read.
    waits: Option<String>,
    over: bool,
}

impl sse::Source for Following {
    async fn next(&mut self) -> Option<Vec<u8>> {
        while !self.over {
            let news = match self.first.take() {
                Some(news) => Ok(news),
                None => self.patience.next(&mut self.tail).await,
            };
            let mut events = Vec::new();
            match news {
                Ok(news) => self.take(news, &mut events),
                Err(error) => {
                    self.over = true;
                    sse::event(&mut events, "problem", None, &Problem::from(error));
                }
            }
            if !events.is_empty() {
                return Some(events);
            }
            self.delay.wait(&mut self.job_end).await;
        }
        None
    }
}

impl Following {
    fn take(&mut self, news: News, events: &mut Vec<u8>) {
        if let Some(attempt) = news.attempt {
            self.made = (Some(attempt), news.worker());
        }
        if news.begins {
            self.held = Default::default();
        }
        self.part(&news, events);
        match news.state {
            TailState::Runs { .. } => self.waits = None,
            TailState::Over { log, last } => {
                self.over = last;
                sse::event(events, "end", None, &OutputEnd::new(&self.task, &log, last));
            }
            TailState::Nothing(why) => {
                self.over = true;
                sse::event(events, "waits", None, &Waits { why: &why });
            }
            TailState::Waits(why) if self.waits.as_ref() == Some(&why) => {}
            TailState::Waits(why) => {
                sse::event(events, "waits", None, &Waits { why: &why });
                self.waits = Some(why);
            }
        }
    }

    fn part(&mut self, news: &News, events: &mut Vec<u8>) {
        // Nothing follows what an attempt that is over printed.
        let last = matches!(news.state, TailState::Over { .. });
        let parts = [&news.stdout, &news.stderr];
        let mut texts = [String::new(), String::new()];
        for ((text, held), part) in texts.iter_mut().zip(&mut self.held).zip(parts) {
            if part.cut > 0 {
                held.clear();
            }
            held.extend_from_slice(&part.bytes);
            *text = whole(held, last);
        }
        let [stdout, stderr] = texts;
        let missing = [news.stdout.cut, news.stderr.cut];
        if stdout.is_empty() && stderr.is_empty() && missing == [0; 2] {
            return;
        }
        self.delay.shorten();
        let read = [0, 1].map(|at| parts[at].until - self.held[at].len() as u64);
        let id = self.made.0.map(|attempt| id_of(attempt, read));
        let part = OutputPart::new(&self.task, self.made, [stdout, stderr], missing);
        sse::event(events, "output", id.as_deref(), &part);
    }
}

/// Takes whole characters out of `held`; where nothing follows, all.
fn whole(held: &mut Vec<u8>, last: bool) -> String {
    let begun = match std::str::from_utf8(held) {
        // No character is longer than four bytes.
        Err(error) if error.error_len().is_none() => held.len() - error.valid_up_to(),
        _ => {
            let tail = held.len().saturating_sub(3);
            let begun = (tail..held.len()).find(|at| {
                std::str::from_utf8(&held[*at..])
                    .is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
            });
            begun.map_or(0, |at| held.len() - at)
        }
    };
    let kept = if last { 0 } else { begun };
    let taken: Vec<u8> = held.drain(..held.len() - kept).collect();
    String::from_utf8_lossy(&taken).into_owned()
}

/// Where a client has read to, as the id of an event.
fn id_of(attempt: AttemptId, read: [u64; 2]) -> String {
    let AttemptId {
        task,
        generation,
        epoch,
        number,
    } = attempt;
    let [out, err] = read;
    format!(
        "{}.{generation}.{}.{number}.{out}.{err}",
        task.number, epoch.0
    )
}

/// The position that an id names.
fn position(job: JobId, id: &str) -> Option<(AttemptId, Offsets)> {
    let numbers = id.split('.').map(|number| number.parse::<u64>().ok());
    let numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
    let [task, generation, epoch, number, stdout, stderr] = numbers[..] else {
        return None;
    };
    let small = |number: u64| u32::try_from(number).ok();
    let attempt = AttemptId {
        task: TaskId {
            job,
            number: small(task)?,
        },
        generation: small(generation)?,
        epoch: Epoch(epoch),
        number: small(number)?,
    };
    Some((attempt, Offsets { stdout, stderr }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_not_cut() {
        let text = "aä€😀b";
        for cut in 0..=text.len() {
            let mut held = text.as_bytes()[..cut].to_vec();
            let mut shown = whole(&mut held, false);
            held.extend_from_slice(&text.as_bytes()[cut..]);
            shown += &whole(&mut held, true);
            assert_eq!(shown, text, "{cut}");
        }
        assert_eq!(whole(&mut b"\xffx\xe2\x82".to_vec(), false), "\u{fffd}x");
        assert_eq!(whole(&mut b"x\xe2\x82".to_vec(), true), "x\u{fffd}");
    }

    #[test]
    fn ids_name_positions() {
        let attempt = AttemptId {
            task: TaskId {
                job: JobId(7),
                number: 3,
            },
            generation: 1,
            epoch: Epoch(9),
            number: 2,
        };
        let (again, offsets) = position(JobId(7), &id_of(attempt, [10, 20])).unwrap();
        assert_eq!((again, offsets.stdout, offsets.stderr), (attempt, 10, 20));
        for odd in ["", "1.2.3", "1.2.3.4.5.x", "99999999999.0.0.0.0.0"] {
            assert!(position(JobId(7), odd).is_none(), "{odd}");
        }
    }
}
