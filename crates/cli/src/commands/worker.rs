//! `hedge worker`: runs tasks for the grid.

use super::interrupt::Interrupts;
use super::{Context, block_on};
use crate::args::{Priority, Worker};
use crate::exit::{Exit, Failure};
use crate::owner;
use crate::show;
use hedge_model::msg::Role;
use hedge_net::Ticket;
use hedge_node::ClientError;
use hedge_node::supervisor::{self, SupervisorConfig};
use hedge_node::worker::{self, Drain, OwnerConfig, WorkerConfig};
use std::io::{BufRead, Read};
use std::net::SocketAddr;

/// Longest ticket that is read.
const TICKET_BYTES_MAX: u64 = 64 << 10;

/// Runs until it is drained, told to end, or not let in.
///
/// # Errors
/// It cannot start or join.
pub fn run(context: &Context, args: Worker) -> Result<Exit, Failure> {
    if args.show_owner {
        print!("{}", owner::DEFAULTS);
        return Ok(Exit::Done);
    }
    let kept = args.join.as_deref() == Some("-");
    show::events::show(if kept {
        "error"
    } else {
        "warn,hedge_node=info,openraft=error"
    });
    let local = match &args.join {
        None => Some(local_ticket(context)?),
        Some(_) => None,
    };
    let ticket = ticket(args.join.as_deref(), Role::Worker, || local)?;
    if let Some(standby) = &args.standby {
        stand_by(context, &args, standby)?;
    }
    let owner = owner_config(context, &args, kept)?;
    block_on(async {
        let config = WorkerConfig {
            owner,
            ..config(context, args, ticket)
        };
        let mut interrupts = Interrupts::new()?;
        if kept {
            // Ctrl-C and a hangup reach every process of a terminal, but it is the starter's to decide.
            interrupts.ignore_terminal();
            end_with_stdin();
        }
        let dir = config.dir.clone();
        let offers = config.resources.to_string();
        let started = |drain: Drain| {
            if !kept {
                show::note(&format!("worker in {} offers {offers}", dir.display()));
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
                std::process::exit(Exit::Cancelled as i32);
            });
        };
        worker::run(config, started)
            .await
            .map_err(ClientError::from)?;
        Ok(Exit::Done)
    })
}

fn config(context: &Context, args: Worker, ticket: Ticket) -> WorkerConfig {
    let mut config = WorkerConfig::new(&context.folders, ticket);
    let offers = &mut config.resources;
    offers.cpus_milli = args.cpus.unwrap_or(offers.cpus_milli);
    offers.memory = args.memory.unwrap_or(offers.memory);
    offers.disk = args.disk.unwrap_or(offers.disk);
    for (name, amount) in args.resource {
        offers.named.retain(|(known, _)| **known != *name);
        if amount > 0 {
            offers.named.push((name.into(), amount));
        }
    }
    offers.named.sort();
    config.labels = args.label;
    config.listen = args.listen.unwrap_or(config.listen);
    config.mdns = args.mdns;
    config.sandbox = !args.rules.no_sandbox;
    config.network = args.rules.allow_network;
    config.priority = match args.rules.task_priority {
        Priority::Idle => hedge_exec::Priority::Idle,
        Priority::Normal => hedge_exec::Priority::Normal,
    };
    config
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
fn stand_by(context: &Context, args: &Worker, standby: &str) -> Result<(), Failure> {
    let mut config = SupervisorConfig::new(&context.folders);
    config.dir = context.folders.standby();
    config.join = Some(ticket(Some(standby), Role::Supervisor, || None)?);
    (config.vote, config.write_tickets) = (false, false);
    config.mdns = args.mdns;
    if let Some(listen) = args.listen {
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

/// The ticket that was given, on the command line or, for `-`, on standard input; else what `local` finds.
///
/// # Errors
/// There is none, it cannot be read, or it is for another role.
pub fn ticket(
    join: Option<&str>,
    role: Role,
    local: impl FnOnce() -> Option<String>,
) -> Result<Ticket, Failure> {
    let text = match join {
        Some("-") => {
            let mut line = String::new();
            let stdin = std::io::stdin().lock();
            let read = stdin.take(TICKET_BYTES_MAX).read_line(&mut line);
            read.map_err(|error| {
                Failure::Arguments(format!("no ticket on standard input: {error}"))
            })?;
            line
        }
        Some(text) => match text.strip_prefix('@') {
            Some(file) => std::fs::read_to_string(file)
                .map_err(|error| Failure::Arguments(format!("no ticket in {file}: {error}")))?,
            None => text.to_owned(),
        },
        None => local().ok_or_else(|| {
            Failure::Arguments(format!(
                "which grid? Give --join TICKET, which `hedge ticket {role}` prints there"
            ))
        })?,
    };
    let not_allowed = |why: String| Failure::from(ClientError::NotAllowed(why));
    let ticket: Ticket = text
        .trim()
        .parse()
        .map_err(|error| not_allowed(format!("{error}")))?;
    if ticket.role != role {
        let why = format!(
            "this ticket is for a {}, not a {role}; ask for one with `hedge ticket {role}`",
            ticket.role
        );
        return Err(not_allowed(why));
    }
    Ok(ticket)
}

/// The ticket that a supervisor on this machine has left for workers.
fn local_ticket(context: &Context) -> Result<String, Failure> {
    let path = context.folders.worker_ticket();
    std::fs::read_to_string(&path).map_err(|_| {
        Failure::Arguments(format!(
            "which grid? There is no supervisor on this machine (no {}): give --join TICKET, which \
             `hedge ticket worker` prints there",
            path.display()
        ))
    })
}

/// Ends this process when its standard input closes: however its starter ends, so does it.
fn end_with_stdin() {
    std::thread::spawn(|| {
        let mut rest = [0; 256];
        let mut stdin = std::io::stdin().lock();
        while stdin.read(&mut rest).is_ok_and(|count| count > 0) {}
        std::process::exit(Exit::Done as i32);
    });
}
