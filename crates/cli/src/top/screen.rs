//! What the screen knows and shows, and what keys do to it.

use hedge_gateway::{Change, GridState, Incident, Notice};
use hedge_model::JobId;
use hedge_model::view::{AttemptLine, GroupLine, JobView, WorkerView};
use ratatui::termion::event::Key;
use ratatui::widgets::TableState;
use std::collections::{BTreeMap, VecDeque};
use tokio::time::Instant;

/// Incidents that are kept.
const INCIDENTS_MAX: usize = 1000;
/// Rows that a page key moves by.
const PAGE: u16 = 15;

/// A view of the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// All jobs.
    #[default]
    Jobs,
    /// All machines.
    Machines,
    /// Faults, owners and leaders.
    Faults,
    /// One job.
    Job(JobId),
}

/// What is asked for about the job that is shown.
#[derive(Clone, Debug)]
pub struct Detail {
    /// The job.
    pub job: JobId,
    /// Its groups.
    pub groups: Vec<GroupLine>,
    /// Attempts that run or ended lately.
    pub attempts: Vec<AttemptLine>,
    /// The job's time, milliseconds, when this was asked.
    pub now_ms: f64,
    /// When this was asked.
    pub at: Instant,
}

/// What the screen knows.
#[derive(Debug, Default)]
pub struct Screen {
    /// The view that is shown.
    pub view: View,
    /// All jobs.
    pub jobs: BTreeMap<JobId, JobView>,
    /// When each job's view came, for those whose time goes on.
    pub seen: BTreeMap<JobId, Instant>,
    /// All workers.
    pub workers: BTreeMap<String, WorkerView>,
    /// Incidents, the newest last.
    pub incidents: VecDeque<Incident>,
    /// Whether a supervisor answers; nothing before the first look.
    pub grid: Option<GridState>,
    /// Whether everything was told once.
    pub ready: bool,
    /// About the job that is shown.
    pub detail: Option<Detail>,
    /// Where the cursor is in the table that is shown.
    pub cursor: TableState,
    /// Rows of that table when it was drawn last.
    pub rows: usize,
    /// When it was drawn last.
    pub drawn_at: Option<Instant>,
}

impl Screen {
    /// Takes in what the feed says.
    pub fn take(&mut self, notice: Notice) {
        match notice {
            Notice::Reset => {
                self.jobs.clear();
                self.workers.clear();
                self.incidents.clear();
            }
            Notice::Ready => self.ready = true,
            Notice::Change(change) => self.change(change),
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Job(view) => {
                self.seen.insert(view.id, Instant::now());
                self.jobs.insert(view.id, *view);
            }
            Change::JobGone(gone) => {
                self.jobs.remove(&gone.id);
                self.seen.remove(&gone.id);
            }
            Change::Worker(view) => drop(self.workers.insert(view.peer.clone(), *view)),
            Change::WorkerGone(gone) => drop(self.workers.remove(&gone.peer)),
            Change::Grid(state) => self.grid = Some(state),
            Change::Incident(incident) => {
                self.incidents.push_back(incident);
                if self.incidents.len() > INCIDENTS_MAX {
                    self.incidents.pop_front();
                }
            }
        }
    }

    /// Does what a key says; whether the command goes on.
    pub fn press(&mut self, key: Key) -> bool {
        match key {
            Key::Char('q') | Key::Ctrl('c' | 'd') => return false,
            Key::Char('1') => self.go(View::Jobs),
            Key::Char('2') => self.go(View::Machines),
            Key::Char('3') => self.go(View::Faults),
            Key::Esc | Key::Backspace | Key::Left | Key::Char('h') => {
                if let View::Job(job) = self.view {
                    self.go(View::Jobs);
                    let at = self.jobs.keys().rev().position(|known| *known == job);
                    self.cursor.select(at.or(Some(0)));
                }
            }
            Key::Char('\n') | Key::Right | Key::Char('l') if self.view == View::Jobs => {
                let at = self.cursor.selected().unwrap_or(0);
                if let Some(job) = self.jobs.keys().rev().nth(at).copied() {
                    self.go(View::Job(job));
                }
            }
            Key::Down | Key::Char('j') => self.move_by(1),
            Key::Up | Key::Char('k') => self.move_by(-1),
            Key::PageDown | Key::Char(' ') => self.move_by(PAGE.into()),
            Key::PageUp => self.move_by(-i64::from(PAGE)),
            Key::Home | Key::Char('g') => self.cursor.select(Some(0)),
            Key::End | Key::Char('G') => self.cursor.select(Some(self.rows.saturating_sub(1))),
            _ => {}
        }
        true
    }

    fn go(&mut self, view: View) {
        if self.view != view {
            self.view = view;
            self.cursor = TableState::default().with_selected(0);
            self.detail = None;
        }
    }

    fn move_by(&mut self, rows: i64) {
        let at = self.cursor.selected().unwrap_or(0) as i64 + rows;
        let last = self.rows.saturating_sub(1) as i64;
        self.cursor.select(Some(at.clamp(0, last.max(0)) as usize));
    }

    /// The job that is shown, if one is.
    pub fn shown_job(&self) -> Option<JobId> {
        match self.view {
            View::Job(job) => Some(job),
            _ => None,
        }
    }

    /// How many tasks the job has that is shown.
    pub fn tasks_of_shown(&self) -> u32 {
        let job = self.shown_job().and_then(|job| self.jobs.get(&job));
        job.map_or(0, |job| job.tasks)
    }

    /// For how long a job has run, or ran, milliseconds.
    pub fn elapsed_ms(&self, job: &JobView) -> f64 {
        let since = self.seen.get(&job.id).filter(|_| !job.state.ended());
        job.elapsed_ms + since.map_or(0.0, |at| at.elapsed().as_secs_f64() * 1e3)
    }

    /// The machine of a worker, by the beginning of its id.
    pub fn host(&self, worker: &str) -> String {
        let known = self.workers.range(worker.to_owned()..).next();
        let known = known.filter(|(peer, _)| peer.starts_with(worker));
        known.map_or_else(|| worker.to_owned(), |(_, view)| view.host.clone())
    }
}
