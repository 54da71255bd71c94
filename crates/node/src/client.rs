//! A client of a grid: sends requests, submits and watches jobs, and fetches results.

mod connections;
mod inputs;
mod open;
mod parts;
mod results;
mod tail;
mod transcript;

use crate::folders::make_private;
use crate::known::Known;
use crate::supervisor::Supervisor;
use crate::supervisor::{Input, ReplyTo};
use crate::temporary::Temporary;
use crate::{ClientError, Folders};
use connections::{Connection, Connections, NEWS_MAX};
use hedge_model::data::INLINE_BYTES_MAX;
use hedge_model::msg::{
    Extended, JOBS_MAX, Refusal, RefusalKind, Reply, Request, Role, TASK_NAMES_MAX,
};
use hedge_model::record::RecordError;
use hedge_model::spec::Extension;
use hedge_model::view::{EndsView, JobView};
use hedge_model::{Data, Hash, InputServer, JobId, JobSpec, PeerAddr, PeerId, SubmitKey};
pub use hedge_net::Digest;
use hedge_net::{
    DataServer, DataStore, Fetcher, Hello, Net, NetConfig, NetError, SecretKey, Ticket, Trust,
};
pub use inputs::{HashedFile, InputFiles};
use inputs::{InUse, Uses};
pub use open::OpenFile;
use results::unexpected_reply;
pub use results::{Printed, Results, Unwritten, Written};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
pub use tail::{News, Part, Patience, PollDelay, Tail, TailState};
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, mpsc};
use tokio::time::Instant;
pub use transcript::{Differs, Repetition, Transcript};

/// The delay before a lost watch is opened again. A former leader needs a moment to notice that it no longer leads.
const WATCH_AGAIN: Duration = Duration::from_millis(20);
/// How long a watch waits for the next leader before it ends.
const LEADER_WAIT_MAX: Duration = Duration::from_secs(3);

/// A client; cheap to clone. The connections close with the last clone.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    grid: Grid,
}

#[derive(Debug)]
enum Grid {
    /// The supervisor is in this process. Requests go to it in this role.
    Here(Supervisor, Role),
    Remote(Box<Remote>),
}

#[derive(Debug)]
struct Remote {
    net: Net,
    key: SecretKey,
    /// The hash of the ticket's secret.
    ticket: Hash,
    connections: Connections,
    blobs: OnceCell<Arc<ClientBlobs>>,
}

/// The client's own blob store, with what serves and fetches blobs. Its directory is removed with it.
#[derive(Debug)]
struct ClientBlobs {
    store: DataStore,
    fetcher: Fetcher,
    server: InputServer,
    uses: Uses,
    _net: Net,
    _dir: Temporary,
}

impl Client {
    /// Connects to a grid in the ticket's role, as this user's client or administrator on this machine.
    pub async fn connect(folders: &Folders, ticket: &Ticket) -> Result<Self, ClientError> {
        // The grid decides whether the ticket is still valid: a member needs none.
        Self::join(&folders.client(ticket.role), ticket).await
    }

    /// Connects in the ticket's role, as the peer whose directory this is.
    pub(crate) async fn join(dir: &Path, ticket: &Ticket) -> Result<Self, ClientError> {
        make_private(dir)?;
        let key = hedge_net::load_or_create_identity(dir).map_err(crate::NodeError::from)?;
        let known = Known::of_ticket(dir, ticket);
        let remote = Remote::connect(key, ticket, known).await?;
        let grid = Grid::Remote(Box::new(remote));
        Ok(Self(Arc::new(Inner { grid })))
    }

    /// Returns a client of the supervisor in this process, in this role.
    pub(crate) fn here(supervisor: Supervisor, role: Role) -> Self {
        let grid = Grid::Here(supervisor, role);
        Self(Arc::new(Inner { grid }))
    }

    /// Sends a request and returns the reply.
    pub async fn ask(&self, request: Request) -> Result<Reply, ClientError> {
        let reply = match &self.0.grid {
            Grid::Here(supervisor, role) => {
                let (local, answer) = Input::ask(*role, request);
                supervisor.input(local).await?;
                answer.await.map_err(|_| ended())?
            }
            Grid::Remote(remote) => remote.connections.ask(request).await?,
        };
        match reply {
            Reply::No(refusal) => Err(refusal.into()),
            reply => Ok(reply),
        }
    }

    /// The supervisor that leads, where that is known.
    pub fn leader(&self) -> Option<PeerId> {
        match &self.0.grid {
            Grid::Here(supervisor, _) => Some(supervisor.addr().peer),
            Grid::Remote(remote) => remote.connections.leads(),
        }
    }

    /// Returns all jobs that this client may see, by id. It requests them in pages that fit into a message.
    pub async fn jobs(&self) -> Result<Vec<JobView>, ClientError> {
        self.jobs_after(None).await
    }

    /// Returns those of [`Client::jobs`] after this one.
    pub async fn jobs_after(&self, after: Option<JobId>) -> Result<Vec<JobView>, ClientError> {
        let (mut all, mut after) = (Vec::new(), after);
        loop {
            let Reply::Jobs(more) = self.ask(Request::Jobs(after)).await? else {
                return Err(unexpected_reply());
            };
            // Stop if the supervisor repeats itself, or the loop would not end.
            let next = more.first().map(|job| job.id);
            if next.is_none() || next <= after {
                return Ok(all);
            }
            let full = more.len() >= JOBS_MAX;
            after = more.last().map(|job| job.id);
            all.extend(more);
            if !full {
                return Ok(all);
            }
        }
    }

    /// Watches a job: receives a view at each change, until the job has ended. If another supervisor takes over, the
    /// watch continues there. If none does, the channel closes before the job has ended.
    pub async fn watch(&self, job: JobId) -> Result<mpsc::Receiver<JobView>, ClientError> {
        let deadline = Connections::patience();
        let (first, mut connection, mut replies) = loop {
            let (connection, mut replies) = self.open_watch(job, deadline).await?;
            match replies.recv().await {
                Some(Reply::Job(view)) => break (*view, connection, replies),
                Some(Reply::No(refusal)) if refusal.kind != RefusalKind::NotLeading => {
                    return Err(refusal.into());
                }
                _ if Instant::now() < deadline => self.back_off_after_lost_leader(connection).await,
                _ => return Err(ended()),
            }
        };
        let (news, watched) = mpsc::channel(NEWS_MAX);
        let client = self.clone();
        tokio::spawn(async move {
            let mut over = first.state.ended();
            let mut open = news.send(first).await.is_ok();
            while open && !over {
                let view = match replies.recv().await {
                    Some(Reply::Job(view)) => view,
                    // Another supervisor leads, or soon will.
                    None | Some(Reply::No(_)) => {
                        client.back_off_after_lost_leader(connection.take()).await;
                        let deadline = Instant::now() + LEADER_WAIT_MAX;
                        match client.open_watch(job, deadline).await {
                            Ok(more) => (connection, replies) = more,
                            Err(_) => break,
                        }
                        open = !news.is_closed();
                        continue;
                    }
                    Some(_) => break,
                };
                over = view.state.ended();
                open = news.send(*view).await.is_ok();
            }
        });
        Ok(watched)
    }

    /// Forgets the leader at the end of a connection that no longer leads or is gone, and waits before the next try.
    async fn back_off_after_lost_leader(&self, connection: Option<Connection>) {
        if let (Grid::Remote(remote), Some(connection)) = (&self.0.grid, connection) {
            remote.connections.leads_no_longer(&connection);
        }
        tokio::time::sleep(WATCH_AGAIN).await;
    }

    async fn open_watch(
        &self,
        job: JobId,
        deadline: Instant,
    ) -> Result<(Option<Connection>, mpsc::Receiver<Reply>), ClientError> {
        let request = Request::Watch(job);
        match &self.0.grid {
            Grid::Here(supervisor, role) => {
                let (replies, answers) = mpsc::channel(NEWS_MAX);
                let watch = Input::Local {
                    role: *role,
                    request,
                    reply_to: ReplyTo::Watch(replies),
                };
                supervisor.input(watch).await?;
                Ok((None, answers))
            }
            Grid::Remote(remote) => {
                let opened = remote.connections.open(&request, deadline).await;
                opened.map(|(connection, answers)| (Some(connection), answers))
            }
        }
    }

    /// Submits a job without input files; see [`Client::submit_with`].
    pub async fn submit(&self, key: SubmitKey, spec: &JobSpec) -> Result<JobId, ClientError> {
        self.submit_with(key, spec, &InputFiles::default()).await
    }

    /// Submits a job. Returns once the job is accepted and the grid holds its inputs. Repeating it with the same key
    /// has no further effect.
    pub async fn submit_with(
        &self,
        key: SubmitKey,
        spec: &JobSpec,
        inputs: &InputFiles,
    ) -> Result<JobId, ClientError> {
        spec.check_size().map_err(|error| {
            ClientError::Refused(Refusal {
                kind: RefusalKind::Bad,
                why: format!("{error}. Nothing was submitted"),
            })
        })?;
        let ask = |spec, from| Request::Submit { key, spec, from };
        match self.offer(spec.encode(), inputs, ask).await? {
            Reply::Accepted(job) => Ok(job),
            _ => Err(unexpected_reply()),
        }
    }

    /// Adds groups to an open job. Returns once they are added and the grid holds their inputs. Many groups in one
    /// extension cost little more than one. Repeating it with the same key has no further effect.
    pub async fn extend(
        &self,
        job: JobId,
        key: SubmitKey,
        extension: &Extension,
        inputs: &InputFiles,
    ) -> Result<Extended, ClientError> {
        let ask = |extension, from| Request::Extend {
            job,
            key,
            extension,
            from,
        };
        match self.offer(extension.encode(), inputs, ask).await? {
            Reply::Extended(extended) => Ok(extended),
            _ => Err(unexpected_reply()),
        }
    }

    /// Closes an open job: it ends once its tasks have.
    pub async fn close_job(&self, job: JobId) -> Result<(), ClientError> {
        self.ask(Request::Close(job)).await.map(drop)
    }

    /// Tasks of an open job that ended behind the `after` ends that the caller knows. Waits for the next one where there
    /// is none yet.
    pub async fn ends(&self, job: JobId, after: u64) -> Result<EndsView, ClientError> {
        match self.ask(Request::Ends { job, after }).await? {
            Reply::Ends(view) => Ok(*view),
            _ => Err(unexpected_reply()),
        }
    }

    /// Gives up tasks that have not ended: tasks by number or label, or arrays by their id.
    pub async fn cancel_tasks(&self, job: JobId, tasks: &[String]) -> Result<(), ClientError> {
        self.ask_in_parts(tasks, |tasks| Request::CancelTasks { job, tasks })
            .await
    }

    /// Releases outputs of tasks of an open job. Tasks are given by number or label, arrays by their id.
    pub async fn release(&self, job: JobId, tasks: &[String]) -> Result<(), ClientError> {
        self.ask_in_parts(tasks, |tasks| Request::Release { job, tasks })
            .await
    }

    /// Makes requests that name tasks, as many in each as one may name.
    async fn ask_in_parts(
        &self,
        tasks: &[String],
        request: impl Fn(Vec<String>) -> Request,
    ) -> Result<(), ClientError> {
        for part in tasks.chunks(TASK_NAMES_MAX) {
            self.ask(request(part.to_vec())).await?;
        }
        Ok(())
    }

    /// Sends a request with an encoded specification, and serves its input files and, if it is long, the
    /// specification itself.
    async fn offer(
        &self,
        bytes: Result<Vec<u8>, RecordError>,
        inputs: &InputFiles,
        request: impl FnOnce(Data, InputServer) -> Request,
    ) -> Result<Reply, ClientError> {
        let bytes = bytes.map_err(|error| ClientError::Local(error.to_string()))?;
        // Served until the reply arrives.
        let mut in_use = None;
        let (data, from) = match &self.0.grid {
            Grid::Here(supervisor, _) => {
                let references = inputs.references();
                supervisor.store.add_references(references).map_err(local)?;
                let from = InputServer {
                    addr: supervisor.addr.clone(),
                    consent: Vec::new(),
                };
                (Data::Inline(bytes.into()), from)
            }
            Grid::Remote(remote) if bytes.len() <= INLINE_BYTES_MAX && inputs.is_empty() => {
                (Data::Inline(bytes.into()), remote.serves_nothing())
            }
            Grid::Remote(remote) => {
                let blobs = remote.blobs().await?;
                let (data, used) = blobs.serve(bytes, inputs).await?;
                in_use = Some(used);
                (data, blobs.server.clone())
            }
        };
        let answer = self.ask(request(data, from)).await;
        if answer.is_err() {
            self.check_unchanged(inputs)?;
        }
        drop(in_use);
        answer
    }

    /// After a failed submission: returns an error that names the file whose content changed before the grid read it.
    fn check_unchanged(&self, inputs: &InputFiles) -> Result<(), ClientError> {
        let store = match &self.0.grid {
            Grid::Here(supervisor, _) => &supervisor.store,
            Grid::Remote(remote) => match remote.blobs.get() {
                Some(blobs) => &blobs.store,
                None => return Ok(()),
            },
        };
        match inputs.changed(|hash| store.has(hash)) {
            None => Ok(()),
            Some(path) => Err(ClientError::Local(format!(
                "{} changed while it was being submitted; nothing was accepted; submit again",
                path.display()
            ))),
        }
    }

    /// Closes the connections gracefully, for all clones of this client.
    pub async fn close(self) {
        if let Grid::Remote(remote) = &self.0.grid {
            remote.connections.close();
            remote.net.close().await;
        }
    }
}

impl Remote {
    async fn connect(key: SecretKey, ticket: &Ticket, known: Known) -> Result<Self, ClientError> {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let mut config = NetConfig::new(key.clone(), any);
        config.relays = known.load_relays();
        config.ticket = Some(ticket.secret_hash());
        let net = Net::bind(config).await.map_err(local)?;
        let hello = Hello {
            role: ticket.role,
            proof: Some(ticket.secret),
            payload: Vec::new(),
        };
        let connections = Connections::connect(net.clone(), hello, known).await?;
        Ok(Self {
            net,
            key,
            ticket: ticket.secret_hash(),
            connections,
            blobs: OnceCell::new(),
        })
    }

    /// Returns the input server of a submission without inputs.
    fn serves_nothing(&self) -> InputServer {
        let addr = PeerAddr {
            peer: hedge_net::peer_id(&self.key),
            addrs: Vec::new(),
        };
        InputServer {
            addr,
            consent: Vec::new(),
        }
    }

    /// Returns the client's blob store. It is created, with its own port, when first needed.
    async fn blobs(&self) -> Result<&Arc<ClientBlobs>, ClientError> {
        let open = || async {
            let dir = Temporary::private("hedge-client-");
            let dir =
                dir.map_err(|error| ClientError::Local(format!("no folder for content: {error}")))?;
            let store = DataStore::open(dir.path()).await.map_err(local)?;
            let trust = Trust::new(self.connections.supervisors());
            let server = DataServer::new(store.clone(), trust);
            let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            // A separate identity: a peer that knows the client from its control connection would dial that port,
            // where no blobs are served.
            let key = SecretKey::generate();
            let mut config = NetConfig::new(key.clone(), any);
            config.data = Some((server, Handle::current()));
            config.relays = self.net.relays();
            config.ticket = Some(self.ticket);
            let net = Net::bind(config).await.map_err(local)?;
            let fetcher = Fetcher::new(self.net.clone(), store.clone(), Handle::current());
            let client = hedge_net::peer_id(&self.key);
            Ok(Arc::new(ClientBlobs {
                store,
                fetcher,
                server: hedge_net::serve_for(client, &key, net.local_addr()),
                uses: Uses::default(),
                _net: net,
                _dir: dir,
            }))
        };
        self.blobs.get_or_try_init(open).await
    }
}

impl ClientBlobs {
    /// Serves the input files and, if it is long, the specification. Returns the specification as a submission
    /// contains it.
    async fn serve(
        self: &Arc<Self>,
        spec: Vec<u8>,
        inputs: &InputFiles,
    ) -> Result<(Data, InUse), ClientError> {
        let mut hashes = inputs.hashes();
        let small = spec.len() <= INLINE_BYTES_MAX;
        if !small {
            hashes.push(Hash(*blake3::hash(&spec).as_bytes()));
        }
        let in_use = InUse::new(self, hashes);
        let references = inputs.references();
        self.store.add_references(references).map_err(local)?;
        if small {
            return Ok((Data::Inline(spec.into()), in_use));
        }
        let size = spec.len() as u64;
        let hash = self.store.add_bytes(spec).await.map_err(local)?;
        Ok((Data::Blob { hash, size }, in_use))
    }
}

fn local(error: NetError) -> ClientError {
    ClientError::Local(error.to_string())
}

fn ended() -> ClientError {
    ClientError::Unreachable("the supervisor has stopped".into())
}

/// Returns a new random submission key.
pub fn new_key() -> Result<SubmitKey, ClientError> {
    let mut key = [0; 16];
    getrandom::fill(&mut key)
        .map_err(|error| ClientError::Local(format!("no random bytes: {error}")))?;
    Ok(SubmitKey(key))
}
