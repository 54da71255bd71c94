//! `hedge gateway`: the grid over HTTP, for programs on this machine.

use super::access::{self, Right};
use super::interrupt::Interrupts;
use super::{Context, block_on, close, patiently};
use crate::args::{Gateway, Grid};
use crate::exit::{Exit, Failure};
use crate::show;
use hedge_gateway::{GatewayConfig, GatewayError, Listen, Reached, Token};
use hedge_node::Client;
use serde_json::json;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::oneshot;

/// Runs until it is told to end.
///
/// # Errors
/// It cannot listen, or the grid cannot be reached or refuses this peer.
pub fn run(context: &Context, args: &Gateway) -> Result<Exit, Failure> {
    let folder = context.folders.gateway();
    let Some(address) = args.listen else {
        let path = args.socket.clone();
        let path = path.unwrap_or_else(|| folder.join("gateway.sock"));
        // The socket needs none.
        let token = draw_token(&folder)?;
        let listen = Listen::Socket(path);
        return serve(
            context,
            &args.grid,
            (listen, args.exit_when_idle),
            token,
            |reached| tell(context, reached, None),
        );
    };
    let path = args.token_file.clone();
    let path = path.unwrap_or_else(|| folder.join("token"));
    make(&folder)?;
    let token = Token::of_file(&path).map_err(|error| file("use the token in", &path, error))?;
    serve(
        context,
        &args.grid,
        (Listen::Loopback(address), args.exit_when_idle),
        token,
        |reached| tell(context, reached, Some(&path)),
    )
}

/// Draws a token that nobody knows yet.
///
/// # Errors
/// The system gives no random bytes.
pub fn draw_token(folder: &Path) -> Result<Token, Failure> {
    Token::draw().map_err(|error| file("draw a token for", folder, error))
}

/// Serves a grid until the process is told to end, or there has been no connection for as long as is given; `started` is
/// told where, and if it fails nothing is served.
///
/// # Errors
/// It cannot listen, or the grid cannot be reached or refuses this peer.
pub fn serve(
    context: &Context,
    grid: &Grid,
    (listen, exit_when_idle): (Listen, Option<Duration>),
    token: Token,
    started: impl FnOnce(&Reached) -> Result<(), Failure>,
) -> Result<Exit, Failure> {
    show::events::show("warn,hedge_gateway=info");
    let ticket = access::ticket(&context.folders, grid, Right::Client)?;
    let folder = context.folders.gateway();
    make(&folder)?;
    let config = GatewayConfig {
        listen,
        token,
        role: ticket.role,
        exit_when_idle,
        events: folder.join(format!("events-{}", ticket.secret_hash().short())),
    };
    block_on(async {
        let connecting = Client::connect(&context.folders, &ticket);
        let client = patiently("no supervisor has answered yet; still trying", connecting).await?;
        let connected = client.clone();
        let mut interrupts = Interrupts::new()?;
        let mut told = Ok(());
        let (in_vain, nobody_knows) = oneshot::channel();
        let stop = async {
            tokio::select! {
                () = interrupts.next() => interrupts.quit_on_next(Exit::Done),
                Ok(()) = nobody_knows => {}
            }
        };
        let started = |reached: &Reached| {
            told = started(reached);
            if told.is_err() {
                // The receiver is in `stop`.
                _ = in_vain.send(());
            }
        };
        let served = hedge_gateway::serve(client, config, started, stop).await;
        close(connected).await;
        served.map_err(failed)?;
        told.map(|()| Exit::Done)
    })
}

fn make(folder: &Path) -> Result<(), Failure> {
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.map_err(|error| file("make the folder", folder, error))
}

/// A file or folder that cannot be used.
pub fn file(what: &'static str, path: &Path, error: std::io::Error) -> Failure {
    let path: PathBuf = path.to_owned();
    failed(GatewayError::File { what, path, error })
}

fn failed(error: GatewayError) -> Failure {
    match &error {
        GatewayError::Listen(_) => Failure::Arguments(error.to_string()),
        GatewayError::File { .. } => Failure::Local(error.to_string()),
    }
}

fn tell(context: &Context, reached: &Reached, token_file: Option<&Path>) -> Result<(), Failure> {
    let told = match reached {
        Reached::Socket(path) => context.look.print(&json!({ "socket": path }), || {
            let path = path.display();
            format!("the gateway listens at {path}\n")
        }),
        Reached::Loopback(address) => {
            let url = format!("http://{address}");
            let value = json!({ "url": url, "token_file": token_file });
            context.look.print(&value, || {
                let token_file =
                    token_file.map_or(String::new(), |path| path.display().to_string());
                format!("the gateway listens at {url}; requests show the token in {token_file}\n")
            })
        }
    };
    match told {
        // Its clients know the address from how it was started.
        Err(Failure::OutputClosed) => Ok(()),
        told => told,
    }
}
