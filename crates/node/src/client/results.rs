//! Results and printed output of jobs: lists them, fetches them, and writes them to files.

use super::parts::{self, Folders, Part};
use super::{Client, Grid, local};
use crate::ClientError;
use crate::grants::Grants;
use hedge_model::data::PRINTED_BYTES_MAX;
use hedge_model::msg::{PrintedView, Reply, Request};
use hedge_model::view::{LogView, OutputView, ResultFile};
use hedge_model::{Data, Hash, JobId, Source};
use hedge_net::{DataStore, FetchError, Fetcher};
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The most files that are synced together. One sync serves many small files. All of them are open, twice while they
/// are synced.
const TOGETHER_MAX: usize = 512;
/// File descriptors left for everything else.
const DESCRIPTORS_KEPT: usize = 64;
/// The most blobs that are fetched before the first of their files is written.
const FETCHED_TOGETHER: usize = 2048;
/// The most blobs that are requested again at the same time.
const FETCHES_MAX: usize = 16;
/// After this many blobs that no source delivers, the others are not tried.
const UNFETCHED_MAX: usize = 8;
/// How long the grid is asked for new holders of a blob: longer than a failover takes.
const ASKED_AGAIN_FOR: Duration = Duration::from_secs(5);
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The results of an ended job, or outputs of single tasks: the list of files, and how to fetch them.
#[derive(Debug)]
pub struct Results {
    job: JobId,
    /// The requested tasks; empty means all results.
    tasks: Vec<String>,
    pages: Vec<Page>,
    /// Labels of tasks that should have left results and did not, at most
    /// [`MISSING_MAX`](hedge_model::view::MISSING_MAX).
    pub missing: Vec<String>,
    /// How many such tasks there are.
    pub missing_count: u32,
}

#[derive(Debug)]
struct Page {
    from: u64,
    files: Vec<ResultFile>,
    access: Arc<Access>,
}

/// The sources of blobs, and the grants to read them.
#[derive(Debug)]
pub(super) struct Access {
    sources: Vec<Source>,
    grants: Grants,
}

/// The outcome of writing files.
#[derive(Debug, Default)]
pub struct Written {
    /// The complete files, in order.
    pub paths: Vec<PathBuf>,
    /// The others.
    pub failed: Vec<Unwritten>,
}

/// A file that was not written.
#[derive(Debug)]
pub struct Unwritten {
    /// Its position among the results.
    pub at: usize,
    /// The path that it should have.
    pub place: PathBuf,
    /// Why it was not written.
    pub why: String,
}

/// The printed output of a task.
#[derive(Debug)]
pub struct Printed {
    /// Which attempt printed it, and how that ended.
    pub view: LogView,
    /// What was kept of the standard output.
    pub stdout: Vec<u8>,
    /// What was kept of the standard error.
    pub stderr: Vec<u8>,
}

impl Printed {
    /// Returns the same for programs.
    pub fn output(&self) -> OutputView {
        let view = &self.view;
        let log = view.log.as_ref();
        let totals = log.map_or([0, 0], |log| [log.stdout_total, log.stderr_total]);
        let made = (view.attempt, view.worker);
        let streams = [&*self.stdout, &*self.stderr];
        OutputView::new(&view.task, made, Some(view), streams, totals)
    }
}

impl Results {
    /// The job.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// Returns the request for the page that begins at this position.
    fn request(&self, from: u64) -> Request {
        let job = self.job;
        match self.tasks.is_empty() {
            true => Request::Results { job, from },
            false => Request::Outputs {
                job,
                tasks: self.tasks.clone(),
                from,
            },
        }
    }

    /// The files, in the order of their tasks.
    pub fn files(&self) -> impl Iterator<Item = &ResultFile> {
        self.pages.iter().flat_map(|page| &page.files)
    }
}

impl Results {
    /// Returns the first file with this hash, with what is needed to fetch it.
    pub(super) fn find(&self, hash: Hash) -> Option<(&ResultFile, Arc<Access>, Request)> {
        self.pages.iter().find_map(|page| {
            let file = page.files.iter().find(|file| file.hash == hash)?;
            Some((file, page.access.clone(), self.request(page.from)))
        })
    }
}

impl Printed {
    /// Returns how many bytes of standard output and standard error were written and not kept.
    pub fn cut(&self) -> (u64, u64) {
        let log = self.view.log.as_ref();
        let (out, err) = log.map_or((0, 0), |log| (log.stdout_total, log.stderr_total));
        (
            out.saturating_sub(self.stdout.len() as u64),
            err.saturating_sub(self.stderr.len() as u64),
        )
    }
}

impl Written {
    /// Adds this outcome to that of the `before` preceding files.
    fn add_to(self, all: &mut Written, before: usize) {
        all.paths.extend(self.paths);
        let failed = self.failed.into_iter();
        all.failed.extend(failed.map(|file| Unwritten {
            at: before + file.at,
            ..file
        }));
    }
}

impl Access {
    pub(super) fn new(sources: Vec<Source>, sealed: &[u8]) -> Self {
        let grants = Grants::open(sealed);
        Self { sources, grants }
    }
}

impl Client {
    /// Lists the results of an ended job.
    pub async fn results(&self, job: JobId) -> Result<Results, ClientError> {
        self.outputs(job, &[]).await
    }

    /// Lists the outputs of single tasks of a job, also while it runs. Without tasks, lists the results of the ended
    /// job.
    pub async fn outputs(&self, job: JobId, tasks: &[String]) -> Result<Results, ClientError> {
        let (mut results, mut next) = self.outputs_page(job, tasks, 0).await?;
        while let Some(from) = next {
            let more;
            (more, next) = self.outputs_page(job, tasks, from).await?;
            results.pages.extend(more.pages);
        }
        Ok(results)
    }

    /// Returns a page of that list, and where the next one begins. The first begins at 0.
    pub async fn outputs_page(
        &self,
        job: JobId,
        tasks: &[String],
        from: u64,
    ) -> Result<(Results, Option<u64>), ClientError> {
        let mut results = Results {
            job,
            tasks: tasks.to_vec(),
            pages: Vec::new(),
            missing: Vec::new(),
            missing_count: 0,
        };
        let Reply::Results(view, grants) = self.ask(results.request(from)).await? else {
            return Err(unexpected_reply());
        };
        let access = Arc::new(Access::new(view.sources, &grants));
        (results.missing, results.missing_count) = (view.missing, view.missing_count);
        results.pages.push(Page {
            from,
            files: view.files,
            access,
        });
        Ok((results, view.next.filter(|next| *next > from)))
    }

    /// Writes each file of the results to its place; there must be as many places as files. It creates missing
    /// directories and replaces files of the same name. A file appears under its name once it is complete. If this
    /// future is dropped, no incomplete file stays.
    pub async fn write(&self, results: &Results, places: &[PathBuf]) -> Written {
        let mut written = Written::default();
        let mut folders = Folders::default();
        let (mut at, mut unfetched) = (0, 0);
        for page in &results.pages {
            let again = results.request(page.from);
            for fetched in page.files.chunks(FETCHED_TOGETHER) {
                let contents = fetched.iter().filter_map(|made| blob(&made.file.data));
                let lacking = match unfetched < UNFETCHED_MAX {
                    true => self.bring_all(contents, &page.access, &again).await,
                    false => not_tried(contents),
                };
                unfetched += lacking.len();
                for files in fetched.chunks(together()) {
                    let places = places.get(at..).unwrap_or_default();
                    self.write_together(files, places, &lacking, &mut folders)
                        .await
                        .add_to(&mut written, at);
                    at += files.len();
                }
            }
        }
        written
    }

    /// Moves files that could not be written out of the store of the supervisor in this process, which is about to
    /// end, into `folder` under these names. Returns those that could not be moved.
    pub async fn rescue(
        &self,
        results: &Results,
        failed: Vec<Unwritten>,
        names: &[String],
        folder: &Path,
    ) -> Vec<Unwritten> {
        let mut lost = Vec::new();
        let files: Vec<&ResultFile> = results.files().collect();
        for mut file in failed {
            let place = folder.join(&names[file.at]);
            if let Err(why) = self.move_out(files[file.at], &place).await {
                file.why = why;
                lost.push(file);
            }
        }
        lost
    }

    /// Returns how a task's last attempt ended and the inline part of its printed output.
    pub async fn log(&self, job: JobId, task: &str) -> Result<LogView, ClientError> {
        match self.ask(Request::Logs(job, task.to_owned())).await? {
            Reply::Log(view, _) => Ok(*view),
            _ => Err(unexpected_reply()),
        }
    }

    /// Returns a task's printed output, as far as it was kept.
    pub async fn printed(&self, job: JobId, task: &str) -> Result<Printed, ClientError> {
        let again = Request::Logs(job, task.to_owned());
        let Reply::Log(view, grants) = self.ask(again.clone()).await? else {
            return Err(unexpected_reply());
        };
        let access = Arc::new(Access::new(view.sources.clone(), &grants));
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        if let Some(log) = &view.log {
            stdout = self.read(&log.stdout, &access, &again).await?;
            stderr = self.read(&log.stderr, &access, &again).await?;
        }
        Ok(Printed {
            view: *view,
            stdout,
            stderr,
        })
    }

    /// Writes files that are synced together.
    async fn write_together(
        &self,
        files: &[ResultFile],
        places: &[PathBuf],
        lacking: &HashMap<Hash, String>,
        folders: &mut Folders,
    ) -> Written {
        let mut written = Written::default();
        let mut parts = Vec::with_capacity(files.len());
        for (at, made) in files.iter().enumerate() {
            let place = places.get(at).cloned().unwrap_or_default();
            let here = match made.file.data.hash().and_then(|hash| lacking.get(&hash)) {
                Some(why) => Err(why.clone()),
                None => self.write_part(made, &place, folders).await,
            };
            match here {
                Ok(part) => parts.push((at, part)),
                Err(why) => written.failed.push(Unwritten { at, place, why }),
            }
        }
        for (at, finished) in parts::finish(parts).await {
            match finished {
                Ok(path) => written.paths.push(path),
                Err(error) => written.failed.push(Unwritten {
                    at,
                    place: places[at].clone(),
                    why: error.to_string(),
                }),
            }
        }
        written
    }

    pub(super) async fn read(
        &self,
        data: &Data,
        access: &Arc<Access>,
        again: &Request,
    ) -> Result<Vec<u8>, ClientError> {
        let (hash, size) = match data {
            Data::Inline(bytes) => return Ok(bytes.to_vec()),
            Data::Blob { hash, size } => (*hash, *size),
        };
        let _in_use = self.use_blob(hash).await?;
        self.bring(hash, size, access.clone(), again.clone())
            .await?;
        let (store, _) = self.blob_tools().await?;
        let bytes = store.read(hash, PRINTED_BYTES_MAX as usize).await;
        Ok(bytes.map_err(local)?.to_vec())
    }

    async fn write_part(
        &self,
        made: &ResultFile,
        place: &Path,
        folders: &mut Folders,
    ) -> Result<Part, String> {
        let file = &made.file;
        hedge_model::spec::check_path(&file.path).map_err(|why| format!("its name {why}"))?;
        let said = |error: io::Error| error.to_string();
        let mut part = folders.part(place, file.executable).map_err(said)?;
        part.check_room(file.data.size()).map_err(said)?;
        match &file.data {
            Data::Inline(bytes) => part.write_all(bytes).map_err(said)?,
            Data::Blob { hash, .. } => {
                let (store, _) = self.blob_tools().await.map_err(|e| e.to_string())?;
                let copied = store.copy(*hash, &mut part).await;
                copied.map_err(|error| error.to_string())?.map_err(said)?;
            }
        }
        Ok(part)
    }

    async fn move_out(&self, made: &ResultFile, place: &Path) -> Result<(), String> {
        let said = |error: io::Error| error.to_string();
        let mut folders = Folders::default();
        let hash = match &made.file.data {
            Data::Blob { hash, .. } => *hash,
            Data::Inline(_) => {
                let part = self.write_part(made, place, &mut folders).await?;
                let finished = parts::finish(vec![((), part)]).await;
                return finished
                    .into_iter()
                    .try_for_each(|(_, done)| done.map(drop).map_err(said));
            }
        };
        std::fs::create_dir_all(place.parent().unwrap_or(place)).map_err(said)?;
        let (store, _) = self.blob_tools().await.map_err(|e| e.to_string())?;
        let moved = store.move_out(hash, place, made.file.executable).await;
        moved.map_err(|error| error.to_string())
    }

    /// Fetches blobs, many with one request. Returns the reasons for those that could not be fetched.
    async fn bring_all(
        &self,
        contents: impl Iterator<Item = (Hash, u64)>,
        access: &Arc<Access>,
        again: &Request,
    ) -> HashMap<Hash, String> {
        let contents: Vec<(Hash, u64)> = contents.collect();
        let store = match self.blob_tools().await {
            Ok((store, fetcher)) => {
                // The errors are reported for each blob below.
                let sources = &access.sources;
                drop(access.grants.fetch(fetcher, &contents, sources).await);
                Some(store)
            }
            Err(_) => None,
        };
        let held = |hash| store.is_some_and(|store| store.has(hash));
        let mut waiting = contents.into_iter().filter(|(hash, _)| !held(*hash));
        let mut under_way = JoinSet::new();
        let mut lacking = HashMap::new();
        loop {
            if lacking.len() >= UNFETCHED_MAX {
                lacking.extend(not_tried(waiting.by_ref()));
            }
            while under_way.len() < FETCHES_MAX
                && let Some((hash, size)) = waiting.next()
            {
                let (client, access, again) = (self.clone(), access.clone(), again.clone());
                under_way.spawn(async move {
                    let brought = client.bring(hash, size, access, again).await;
                    (hash, brought)
                });
            }
            match under_way.join_next().await {
                Some(Ok((hash, Err(error)))) => drop(lacking.insert(hash, error.to_string())),
                Some(_) => {}
                None => return lacking,
            }
        }
    }

    /// Fetches a blob. If no source delivers it, the grid is asked for new sources: a holder may have handed it on,
    /// or another supervisor leads.
    pub(super) async fn bring(
        &self,
        hash: Hash,
        size: u64,
        mut access: Arc<Access>,
        again: Request,
    ) -> Result<(), ClientError> {
        let (store, fetcher) = self.blob_tools().await?;
        let until = Instant::now() + ASKED_AGAIN_FOR;
        let mut asked_again = false;
        loop {
            if store.has(hash) {
                return Ok(());
            }
            let blob = [(hash, size)];
            let failed = access.grants.fetch(fetcher, &blob, &access.sources).await;
            let why = match failed.into_iter().next() {
                None => return Ok(()),
                Some(why @ (FetchError::Sources { .. } | FetchError::NoSource { .. })) => why,
                Some(error) => return Err(self.cannot_keep(&error)),
            };
            if asked_again && Instant::now() >= until {
                return Err(ClientError::Unreachable(why.to_string()));
            }
            asked_again = true;
            tokio::time::sleep(ASKED_AGAIN_AFTER).await;
            access = Arc::new(match self.ask(again.clone()).await? {
                Reply::Results(view, grants) => Access::new(view.sources, &grants),
                Reply::Log(view, grants) => Access::new(view.sources, &grants),
                Reply::Printed(PrintedView::Over { log, grants, .. }) => {
                    Access::new(log.sources, &grants)
                }
                _ => return Err(unexpected_reply()),
            });
        }
    }

    /// Returns the error for a blob that cannot be stored here. What a client fetches passes through a temporary
    /// directory.
    fn cannot_keep(&self, error: &FetchError) -> ClientError {
        let way = match self.0.grid {
            Grid::Here(..) => String::new(),
            Grid::Remote(_) => format!(
                "; it goes through {}, which TMPDIR decides",
                std::env::temp_dir().display()
            ),
        };
        ClientError::Local(format!("{error}{way}"))
    }

    /// Returns the store that blobs are fetched into, and the fetcher.
    pub(super) async fn blob_tools(&self) -> Result<(&DataStore, &Fetcher), ClientError> {
        match &self.0.grid {
            Grid::Here(supervisor, _) => Ok((&supervisor.store, &supervisor.fetcher)),
            Grid::Remote(remote) => {
                let blobs = remote.blobs().await?;
                Ok((&blobs.store, &blobs.fetcher))
            }
        }
    }
}

/// Returns how many files may be open until they are synced.
fn together() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| limit as usize);
    (limit.saturating_sub(DESCRIPTORS_KEPT) / 2).clamp(1, TOGETHER_MAX)
}

fn blob(data: &Data) -> Option<(Hash, u64)> {
    Some((data.hash()?, data.size()))
}

fn not_tried(contents: impl Iterator<Item = (Hash, u64)>) -> HashMap<Hash, String> {
    let why = |(hash, _)| {
        (
            hash,
            "not tried after others could not be fetched".to_owned(),
        )
    };
    contents.map(why).collect()
}

pub(super) fn unexpected_reply() -> ClientError {
    ClientError::Local("the supervisor gave an answer that does not fit".into())
}
