//! `hedge logs -f`: output as it comes.

use super::sink::{Form, Sink};
use super::{Seen, has_begun, show_ended, tasks};
use crate::commands::{ask, unexpected};
use crate::exit::Failure;
use crate::show::{escape, note};
use hedge_model::JobId;
use hedge_model::msg::{Reply, Request};
use hedge_model::view::TaskFilter;
use hedge_node::client::{Client, Patience, PollDelay, Tail, TailState};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;

/// Tasks that are followed at once: each look at one is a request. Further ones are shown when others have ended.
const FOLLOWED_MAX: usize = 64;
/// Parts of one task that are read before the next task has its turn.
const PARTS_AT_ONCE: usize = 8;
/// Pages of tasks that are looked through for those that have ended, between two looks at those that run.
const PAGES_AT_ONCE: usize = 20;

/// Follows one task until it has ended; whether all that it printed was kept.
pub async fn one(client: &Client, job: JobId, task: &str, json: bool) -> Result<bool, Failure> {
    let form = if json { Form::Events } else { Form::Plain };
    let mut followed = Followed::new(client, job, task, form);
    let (_job, mut never) = watch::channel(false);
    let mut delay = PollDelay::default();
    loop {
        match followed.step().await? {
            Step::Over => return followed.sink.close().await,
            Step::More => delay.shorten(),
            Step::Quiet => delay.wait(&mut never).await,
        }
    }
}

/// Follows all tasks of a job until it has ended; whether all that they printed was kept.
pub async fn all(client: &Client, job: JobId, json: bool) -> Result<bool, Failure> {
    let mut tasks = Tasks::new(client, job, json);
    let (_job, mut never) = watch::channel(false);
    let mut delay = PollDelay::default();
    loop {
        let Reply::Job(view) = ask(client, Request::Job(job)).await? else {
            return Err(unexpected());
        };
        if view.tasks == 1
            && let Some(only) = super::tasks(client, job, TaskFilter::All, 0)
                .await?
                .tasks
                .first()
        {
            return one(client, job, &only.task, json).await;
        }
        tasks.find_running().await?;
        let found = tasks.show_ended(view.state.ended(), view.done).await?;
        let printed = tasks.step().await?;
        if found == Found::All && tasks.followed.is_empty() && view.state.ended() {
            return Ok(tasks.whole);
        }
        if printed || found == Found::More {
            delay.shorten();
        }
        delay.wait(&mut never).await;
    }
}

/// A task that is followed.
struct Followed {
    tail: Tail,
    sink: Sink,
    patience: Patience,
    name: String,
    json: bool,
    /// An attempt was shown.
    begun: bool,
    /// What it waits for was told.
    told: bool,
}

/// What a look at a task gave.
enum Step {
    /// It printed something.
    More,
    /// Nothing new.
    Quiet,
    /// It has ended and is shown.
    Over,
}

impl Followed {
    fn new(client: &Client, job: JobId, task: &str, form: Form) -> Self {
        Self {
            tail: client.tail(job, task),
            sink: Sink::new(task, form),
            patience: Patience::default(),
            name: escape::line(task).into_owned(),
            json: form == Form::Events,
            begun: false,
            told: false,
        }
    }

    async fn step(&mut self) -> Result<Step, Failure> {
        let news = self.patience.next(&mut self.tail).await?;
        if let Some(attempt) = news.attempt.filter(|_| news.begins) {
            if self.begun {
                self.tell(&format!(
                    "attempt {attempt} is another output, from its beginning:"
                ));
            }
            self.begun = true;
        }
        self.sink.part(&news).await?;
        let printed = !news.stdout.bytes.is_empty() || !news.stderr.bytes.is_empty();
        match news.state {
            TailState::Runs { .. } => {}
            TailState::Over { log, last } => {
                self.sink.end(&log, last).await?;
                if last {
                    if self.sink.read() == 0 {
                        self.tell(&format!("{}; nothing was printed", escape::line(&log.end)));
                    }
                    return Ok(Step::Over);
                }
                let attempt = log.attempt.map_or_else(String::new, |id| id.to_string());
                let end = escape::line(&log.end);
                self.tell(&format!("the output of attempt {attempt} ends here: {end}"));
            }
            TailState::Waits(why) if !self.begun && !self.told => {
                self.told = true;
                self.tell(&format!("{}; its output follows", escape::line(&why)));
            }
            TailState::Waits(_) => {}
            TailState::Nothing(why) => {
                self.tell(&format!("{}; nothing was printed", escape::line(&why)));
                return Ok(Step::Over);
            }
        }
        Ok(if printed { Step::More } else { Step::Quiet })
    }

    fn tell(&self, what: &str) {
        if !self.json {
            note(&format!("{}: {what}", self.name));
        }
    }
}

/// Whether all tasks that have ended are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    All,
    /// Not all of them were looked at.
    More,
}

/// The tasks of a job, as far as they are shown.
struct Tasks<'a> {
    client: &'a Client,
    job: JobId,
    json: bool,
    followed: BTreeMap<u32, Followed>,
    /// Those that are shown to their end; all below `below`.
    shown: BTreeSet<u32>,
    below: u32,
    /// Where looking for those that have ended goes on.
    at: u32,
    /// How many tasks were done when all were looked at last.
    looked_at: Option<u32>,
    whole: bool,
}

impl<'a> Tasks<'a> {
    fn new(client: &'a Client, job: JobId, json: bool) -> Self {
        Self {
            client,
            job,
            json,
            followed: BTreeMap::new(),
            shown: BTreeSet::new(),
            below: 0,
            at: 0,
            looked_at: None,
            whole: true,
        }
    }

    fn is_shown(&self, number: u32) -> bool {
        number < self.below || self.shown.contains(&number)
    }

    fn set_shown(&mut self, number: u32) {
        self.shown.insert(number);
        while self.shown.remove(&self.below) {
            self.below += 1;
        }
    }

    /// Follows tasks that run, as many as may be.
    async fn find_running(&mut self) -> Result<(), Failure> {
        if self.followed.len() >= FOLLOWED_MAX {
            return Ok(());
        }
        let page = tasks(self.client, self.job, TaskFilter::Running, 0).await?;
        let form = if self.json { Form::Events } else { Form::Named };
        for task in page.tasks {
            if self.followed.len() >= FOLLOWED_MAX {
                break;
            }
            if !self.is_shown(task.number) && !self.followed.contains_key(&task.number) {
                let followed = Followed::new(self.client, self.job, &task.task, form);
                self.followed.insert(task.number, followed);
            }
        }
        Ok(())
    }

    /// Shows tasks that have ended and were not followed, in the order of their numbers.
    async fn show_ended(&mut self, job_ended: bool, done: u32) -> Result<Found, Failure> {
        if self.looked_at == Some(done) && !job_ended {
            return Ok(Found::All);
        }
        for _ in 0..PAGES_AT_ONCE {
            let from = self.at.max(self.below);
            let page = tasks(self.client, self.job, TaskFilter::All, from).await?;
            for task in &page.tasks {
                let over = task.state == "done" || job_ended && has_begun(task);
                if !over || self.is_shown(task.number) || self.followed.contains_key(&task.number) {
                    continue;
                }
                self.show_whole(&task.task).await?;
                self.set_shown(task.number);
            }
            match page.next {
                Some(next) if next > from => self.at = next,
                _ => {
                    self.at = 0;
                    self.looked_at = Some(done);
                    return Ok(Found::All);
                }
            }
        }
        Ok(Found::More)
    }

    async fn show_whole(&mut self, task: &str) -> Result<(), Failure> {
        let Seen { whole, .. } = if self.json {
            let form = Form::Events;
            let printed = self.client.printed(self.job, task).await?;
            let whole = show_ended(&printed, form)?;
            Seen { whole, runs: false }
        } else {
            super::one(self.client, self.job, task, Form::Named).await?
        };
        self.whole &= whole;
        Ok(())
    }

    /// Looks at each task that is followed; whether one printed something.
    async fn step(&mut self) -> Result<bool, Failure> {
        let (mut printed, mut over) = (false, Vec::new());
        for (number, followed) in &mut self.followed {
            for _ in 0..PARTS_AT_ONCE {
                match followed.step().await? {
                    Step::More => printed = true,
                    Step::Quiet => break,
                    Step::Over => {
                        self.whole &= followed.sink.close().await?;
                        over.push(*number);
                        break;
                    }
                }
            }
        }
        for number in over {
            self.followed.remove(&number);
            self.set_shown(number);
        }
        Ok(printed)
    }
}
