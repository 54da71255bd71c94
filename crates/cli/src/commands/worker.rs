//! `hedge worker`: runs tasks for the grid.

use super::interrupt::Interrupts;
use super::{Context, access, block_on, scrape};
use crate::args::{Priority, Share, Worker};
use crate::exit::{Exit, Failure};
use crate::owner;
use crate::show;
use hedge_exec::{Report, SharedFolder};
use hedge_gateway::Scraped;
use hedge_model::msg::Role;
use hedge_net::Ticket;
use hedge_node::supervisor::{self, SupervisorConfig};
use hedge_node::worker::{self, Drain, OwnerConfig, WorkerConfig};
use hedge_node::{ClientError, StartOptions};
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;

/// Runs until it is drained, told to end, or not let in.
///
/// # Errors
/// It cannot start or join.
pub fn run(context: &Context, args: Worker) -> Result<Exit, Failure> {
    if args.show_owner {
        print!("{}", owner::DEFAULTS);
        return Ok(Exit::Done);
    }
    let kept = args.leash;
    show::events::show(if kept {
        "error"
    } else {
        "warn,hedge_node=info,openraft=error"
    });
    let ticket = match &args.join {
        None => access::local_worker(&context.folders)?,
        Some(join) => access::read(join, "--join", &[Role::Worker])?,
    };
    let dir = context.folders.worker();
    let given = StartOptions {
        listen: args.listen,
        mdns: args.mdns,
        ..StartOptions::default()
    };
    let options = start_options(given, &dir)?;
    if let Some(standby) = &args.standby {
        stand_by(context, &options, standby)?;
    }
    let owner = owner_config(context, &args, kept)?;
    block_on(async {
        let scrapers = scrape::open(args.metrics)?;
        let config = WorkerConfig {
            owner,
            shares: shared(&args.rules.share)?,
            ..config(context, args, ticket, &options)
        };
        let mut interrupts = Interrupts::new()?;
        if kept {
            // Ctrl-C and a hangup reach every process of a terminal, but it is the starter's to decide.
            interrupts.ignore_terminal();
            end_with_stdin();
        }
        let offers = offers(&config);
        let metrics = config.metrics.clone();
        let started = |drain: Drain, sandbox: &Report| {
            note_options(&options, &dir);
            scrape::answer(scrapers, Scraped::Worker(metrics));
            if !kept {
                show::note(&format!("worker in {} offers {offers}", dir.display()));
                show::note(&format!("sandbox: {}", show::sandbox::line(sandbox)));
                for weakness in &sandbox.weaknesses {
                    show::note(&format!("accepted: {}", weakness.text()));
                }
            }
            tokio::spawn(async move {
                interrupts.next().await;
                if !kept {
                    show::note(
                        "no new tasks; leaving when the running ones are done, once more leaves at once",
                    );
                }
                drain.start().await;
                interrupts.next().await;
                std::process::exit(i32::from(Exit::Cancelled.code()));
            });
        };
        worker::run(config, started)
            .await
            .map_err(ClientError::from)?;
        Ok(Exit::Done)
    })
}

fn config(context: &Context, args: Worker, ticket: Ticket, options: &StartOptions) -> WorkerConfig {
    let mut config = WorkerConfig::new(&context.folders, ticket);
    let offers = &mut config.resources;
    offers.cpus_milli = args.cpus.unwrap_or(offers.cpus_milli);
    offers.memory = args.memory.unwrap_or(offers.memory);
    offers.disk = args.disk.unwrap_or(offers.disk);
    let gpus = args.gpus.map(|most| most.min(offers.named("gpus")));
    let gpus = gpus.map(|most| ("gpus".to_owned(), most));
    for (name, amount) in args.resource.into_iter().chain(gpus) {
        offers.named.retain(|(known, _)| **known != *name);
        if amount > 0 {
            offers.named.push((name.into(), amount));
        }
    }
    offers.named.sort();
    config.tree_cache = args.tree_cache.unwrap_or(config.tree_cache);
    config.labels = args.label;
    config.listen = options.listen.unwrap_or(config.listen);
    config.mdns = options.mdns.unwrap_or_default();
    config.neighbours = args.neighbours;
    config.sandbox = !args.rules.no_sandbox;
    config.accept_weak_sandbox = args.rules.accept_weak_sandbox;
    config.network = args.rules.allow_network;
    config.priority = match args.rules.task_priority {
        Priority::Idle => hedge_exec::Priority::Idle,
        Priority::Normal => hedge_exec::Priority::Normal,
    };
    config
}

/// What the worker offers, as text.
fn offers(config: &WorkerConfig) -> String {
    let mut offers = config.resources.to_string();
    for (name, folder) in &config.shares {
        let mode = if folder.writable { "" } else { " to read" };
        offers.push_str(&format!(", {} as {name}{mode}", folder.path.display()));
    }
    offers
}

/// The folders that tasks may ask for.
///
/// # Errors
/// A name is given twice, or a folder cannot be shared.
fn shared(shares: &[Share]) -> Result<Vec<(String, SharedFolder)>, Failure> {
    let mut found: Vec<(String, SharedFolder)> = Vec::new();
    for share in shares {
        if found.iter().any(|(name, _)| *name == share.name) {
            let why = format!(
                "--share {} is given twice: a name is of one folder",
                share.name
            );
            return Err(Failure::Arguments(why));
        }
        let folder = SharedFolder::new(&share.path, share.writable);
        let folder = folder.map_err(|error| {
            Failure::Arguments(format!(
                "--share {}: {error}; the worker was not started",
                share.name
            ))
        })?;
        found.push((share.name.clone(), folder));
    }
    Ok(found)
}

/// Whose machine it is: the grid's alone where somebody says so, or started the worker for a job of his own.
fn owner_config(
    context: &Context,
    args: &Worker,
    kept: bool,
) -> Result<Option<OwnerConfig>, Failure> {
    let alone = || kept || std::env::var_os("HEDGE_DEDICATED").is_some();
    if args.dedicated || args.owner.is_none() && alone() {
        return Ok(None);
    }
    let usual = context.folders.worker().join("owner.toml");
    let file = args
        .owner
        .clone()
        .or_else(|| usual.is_file().then_some(usual));
    match file {
        None => Ok(Some(OwnerConfig::default())),
        Some(file) => owner::read(&file).map(Some).map_err(Failure::Arguments),
    }
}

/// Runs a supervisor beside the worker, on a thread of its own, which asks for no vote. The worker goes on
/// whatever becomes of it.
fn stand_by(context: &Context, options: &StartOptions, standby: &str) -> Result<(), Failure> {
    let mut config = SupervisorConfig::new(&context.folders);
    config.dir = context.folders.standby();
    config.join = Some(access::read(standby, "--standby", &[Role::Supervisor])?);
    (config.vote, config.write_tickets) = (false, false);
    config.mdns = options.mdns.unwrap_or_default();
    if let Some(listen) = options.listen {
        config.listen = SocketAddr::new(listen.ip(), 0);
    }
    let run = move || {
        let ran = block_on(async {
            let ran = supervisor::run(config, |_| (), std::future::pending()).await;
            Ok(ran.map_err(ClientError::from)?)
        });
        if let Err(failure) = ran {
            show::note(&format!("this worker stands by no longer: {failure}"));
        }
    };
    let started = std::thread::Builder::new()
        .name("standby".into())
        .spawn(run);
    let started = started.map(drop);
    started.map_err(|error| Failure::Local(format!("cannot start a thread: {error}")))
}

/// The options that hold for this start: those that are given, and of the others those of the last start, of which
/// the person is told.
///
/// # Errors
/// The file with them cannot be read.
pub fn start_options(given: StartOptions, dir: &Path) -> Result<StartOptions, Failure> {
    let last = StartOptions::load(dir).map_err(ClientError::from)?;
    let options = given.clone().or(&last);
    if options != given {
        show::note(&format!("as at the last start: {last}"));
    }
    Ok(options)
}

/// Has the next start use the same options.
pub fn note_options(options: &StartOptions, dir: &Path) {
    if let Err(error) = options.save(dir) {
        show::note(&format!(
            "the next start will not know these options: {error}"
        ));
    }
}

/// Ends this process when its standard input closes: however its starter ends, so does it.
fn end_with_stdin() {
    std::thread::spawn(|| {
        let mut rest = [0; 256];
        let mut stdin = std::io::stdin().lock();
        while stdin.read(&mut rest).is_ok_and(|count| count > 0) {}
        std::process::exit(i32::from(Exit::Done.code()));
    });
}
