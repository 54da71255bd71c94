//! `hedge supervisor`: accepts jobs and assigns their tasks.

use super::interrupt::Interrupts;
use super::worker::{note_options, start_options};
use super::{Context, access, block_on, scrape};
use crate::args::Supervisor;
use crate::exit::{Exit, Failure};
use crate::show;
use hedge_gateway::Scraped;
use hedge_model::msg::Role;
use hedge_node::supervisor::{self, SupervisorConfig, Timing};
use hedge_node::{ClientError, StartOptions};
use serde_json::json;

fn config(
    context: &Context,
    args: &Supervisor,
) -> Result<(SupervisorConfig, StartOptions), Failure> {
    let mut config = SupervisorConfig::new(&context.folders);
    let given = StartOptions {
        listen: args.listen,
        mdns: args.mdns,
        fast: args.fast,
        standby: args.standby,
    };
    let options = start_options(given, &config.dir)?;
    let founds = args.join.is_none() && !config.dir.join("journal").exists();
    if founds && args.standby == Some(true) {
        let why = "--standby needs a group: name it with --join FILE; nothing was started";
        return Err(Failure::Arguments(why.to_owned()));
    }
    config.listen = options.listen.unwrap_or(config.listen);
    if let Some(join) = &args.join {
        config.join = Some(access::read(join, "--join", &[Role::Supervisor])?);
    }
    config.mdns = options.mdns.unwrap_or_default();
    config.vote = !options.standby.unwrap_or_default();
    config.durable = !args.in_memory;
    config.recover = args.recover;
    if options.fast.unwrap_or_default() {
        config.timing = Timing::fast();
    }
    Ok((config, options))
}

/// Runs until it is told to end.
///
/// # Errors
/// It cannot start.
pub fn run(context: &Context, args: Supervisor) -> Result<Exit, Failure> {
    show::events::show("warn,hedge_node=info,openraft=error");
    block_on(async {
        let (config, options) = config(context, &args)?;
        let mut scrapers = scrape::open(args.metrics)?;
        let metrics = config.metrics.clone();
        let mut interrupts = Interrupts::new()?;
        let dir = config.dir.clone();
        let mut told = Ok(());
        let started = |supervisor: &supervisor::Supervisor| {
            if !args.in_memory {
                note_options(&options, &dir);
            }
            let addr = supervisor.addr();
            let addrs: Vec<String> = addr.addrs.iter().map(ToString::to_string).collect();
            if addrs.is_empty() {
                show::note(
                    "no network interface of this machine has an address: no peer can reach this supervisor until \
                     one has",
                );
            }
            let scraped = Scraped::Supervisor(metrics.clone(), supervisor.clone());
            scrape::answer(scrapers.take(), scraped);
            let value = json!({ "peer": addr.peer.to_string(), "addrs": addrs, "dir": dir });
            told = context.look.print(&value, || {
                format!(
                    "supervisor {} listens at {}\n`hedge ticket worker` prints what other machines need to join; \
                     on this one `hedge worker` and `hedge submit` find it by themselves\n",
                    addr.peer.short(),
                    addrs.join(", ")
                )
            });
        };
        let stop = async {
            interrupts.next().await;
            show::note("stopping; once more quits at once");
            interrupts.quit_on_next(Exit::Done);
        };
        let ran = supervisor::run(config, started, stop).await;
        ran.map_err(ClientError::from)?;
        told?;
        Ok(Exit::Done)
    })
}
