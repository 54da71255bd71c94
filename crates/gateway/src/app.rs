//! What all requests share.

use crate::GatewayError;
use crate::connections::Connections;
use crate::feed::Feed;
use crate::listen::Listen;
use crate::problem::Problem;
use crate::shared::SharedAnswers;
use crate::token::Token;
use crate::uploads::Uploads;
use hedge_model::msg::{Reply, Request, Role};
use hedge_node::Client;
use hyper::StatusCode;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Requests that take much memory, at a time.
const LARGE_MAX: usize = 8;
/// Plans that are simulated at a time: each takes a processor.
const PLANS_MAX: usize = 1;

/// How a gateway is to run.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Where it listens.
    pub listen: Listen,
    /// What requests over TCP show.
    pub token: Token,
    /// The role of its ticket.
    pub role: Role,
    /// It ends by itself once it has had no connection for so long.
    pub exit_when_idle: Option<Duration>,
    /// File for the events; each ticket has its own, because what it may see is in it.
    pub events: PathBuf,
}

/// What all requests share; cheap to clone.
#[derive(Clone, Debug)]
pub struct App(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    client: Client,
    feed: Feed,
    role: Role,
    uploads: Uploads,
    connections: Connections,
    large: Semaphore,
    plans: Semaphore,
    answers: SharedAnswers,
}

impl App {
    /// Makes what requests need.
    ///
    /// # Errors
    /// There is nowhere to write.
    pub async fn open(client: Client, config: &GatewayConfig) -> Result<Self, GatewayError> {
        let uploads = Uploads::open().map_err(|error| GatewayError::File {
            what: "use the folder for temporary files",
            path: std::env::temp_dir(),
            error,
        })?;
        let file = |error| GatewayError::File {
            what: "draw a name for the events of",
            path: config.events.clone(),
            error,
        };
        // Any text that nobody else has.
        let stream = Token::draw().map_err(file)?;
        let feed = Feed::open(
            client.clone(),
            &config.events,
            stream.text()[..12].to_owned(),
        );
        Ok(Self(Arc::new(Shared {
            client,
            feed,
            role: config.role,
            uploads,
            connections: Connections::default(),
            large: Semaphore::new(LARGE_MAX),
            plans: Semaphore::new(PLANS_MAX),
            answers: SharedAnswers::default(),
        })))
    }

    /// The client that asks the grid.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// The role of the gateway's ticket.
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// The stream of events.
    pub fn feed(&self) -> &Feed {
        &self.0.feed
    }

    /// Files that were uploaded.
    pub fn uploads(&self) -> &Uploads {
        &self.0.uploads
    }

    /// The connections of the gateway.
    pub fn connections(&self) -> &Connections {
        &self.0.connections
    }

    /// Answers that pages share.
    pub fn answers(&self) -> &SharedAnswers {
        &self.0.answers
    }

    /// Asks the grid; a refusal is a problem.
    ///
    /// # Errors
    /// The grid cannot be reached, or refuses.
    pub async fn ask(&self, request: Request) -> Result<Reply, Problem> {
        Ok(self.0.client.ask(request).await?)
    }

    /// Asks the grid for something that has no answer but that it is done, and gives the status that says so.
    ///
    /// # Errors
    /// The grid cannot be reached, or refuses.
    pub async fn tell(&self, request: Request) -> Result<StatusCode, Problem> {
        match self.ask(request).await? {
            Reply::Ok => Ok(StatusCode::NO_CONTENT),
            _ => Err(Problem::unexpected()),
        }
    }

    /// Waits until a request may take much memory.
    ///
    /// # Errors
    /// The gateway ends.
    pub async fn large_request(&self) -> Result<SemaphorePermit<'_>, Problem> {
        permit(&self.0.large).await
    }

    /// Waits until a plan may be made.
    ///
    /// # Errors
    /// The gateway ends.
    pub async fn plan(&self) -> Result<SemaphorePermit<'_>, Problem> {
        permit(&self.0.plans).await
    }
}

async fn permit(semaphore: &Semaphore) -> Result<SemaphorePermit<'_>, Problem> {
    let permit = semaphore.acquire().await;
    permit.map_err(|_| Problem::busy("the gateway ends; nothing was done"))
}
