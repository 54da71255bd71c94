//! The state that all requests share: the client of the grid, events, uploads, connections, and limits.

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

/// The most requests at once that take much memory.
const LARGE_MAX: usize = 8;
/// The most plans simulated at once, because each takes a processor.
const PLANS_MAX: usize = 1;

/// The configuration of a gateway.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The address at which it listens.
    pub listen: Listen,
    /// The token that requests over TCP must show.
    pub token: Token,
    /// The role of its ticket.
    pub role: Role,
    /// The gateway ends once it has had no connection for this long.
    pub exit_when_idle: Option<Duration>,
    /// The file of the events. Each ticket has its own file, because it holds what that ticket may see.
    pub events: PathBuf,
}

/// The state that all requests share; cheap to clone.
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
    /// Opens the folder for uploads and the file of the events.
    ///
    /// # Errors
    /// The folder or the file cannot be written.
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
        // A name that no other stream of events has.
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

    /// The client that sends requests to the grid.
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

    /// The uploaded files.
    pub fn uploads(&self) -> &Uploads {
        &self.0.uploads
    }

    /// The connections of the gateway.
    pub fn connections(&self) -> &Connections {
        &self.0.connections
    }

    /// The answers that pages share.
    pub fn answers(&self) -> &SharedAnswers {
        &self.0.answers
    }

    /// Sends a request to the grid and returns the reply. A refusal is a problem.
    ///
    /// # Errors
    /// The grid cannot be reached, or refuses.
    pub async fn ask(&self, request: Request) -> Result<Reply, Problem> {
        Ok(self.0.client.ask(request).await?)
    }

    /// Sends a request whose reply only confirms it. Returns the status for that.
    ///
    /// # Errors
    /// The grid cannot be reached, or refuses.
    pub async fn tell(&self, request: Request) -> Result<StatusCode, Problem> {
        match self.ask(request).await? {
            Reply::Ok => Ok(StatusCode::NO_CONTENT),
            _ => Err(Problem::unexpected()),
        }
    }

    /// Waits for the permission to use much memory for a request.
    ///
    /// # Errors
    /// The gateway ends.
    pub async fn large_request(&self) -> Result<SemaphorePermit<'_>, Problem> {
        permit(&self.0.large).await
    }

    /// Waits for the permission to simulate a plan.
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
