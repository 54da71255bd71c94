//! Workers reduced to their heartbeats, many on the same few threads. They measure how many heartbeats a supervisor
//! can take where there are too few processors for as many whole workers.

use super::heartbeats::HeartbeatSender;
use super::link::Links;
use super::setup::port;
use super::{INPUTS_MAX, Input, inventory};
use crate::NodeError;
use crate::folders::make_private;
use crate::frames::send;
use crate::known::Known;
use crate::transport::Threads;
use crate::worker::WorkerConfig;
use hedge_model::Resources;
use hedge_model::msg::{FromWorker, ToWorker, WorkerInfo};
use hedge_net::{LinkSender, Net};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc;

/// The heartbeats of some workers. Each has its own identity, port, connections and heartbeat thread, like a worker,
/// and takes no tasks. They stop when this is dropped.
#[derive(Debug)]
pub struct Senders {
    _transport: Threads,
}

impl Senders {
    /// Starts one for each configuration; resources, labels and owners are ignored.
    ///
    /// # Errors
    /// A directory cannot be created, or a port cannot be opened.
    pub async fn start(all: Vec<WorkerConfig>) -> Result<Self, NodeError> {
        let transport = Threads::transport()?;
        for config in all {
            make_private(&config.dir)?;
            let key = hedge_net::load_or_create_identity(&config.dir)?;
            let known = Known::of_ticket(&config.dir, &config.ticket);
            let net = transport
                .run(Net::bind(port(&config, key, &known, None)))
                .await??;
            let mut info = inventory::info(&config, None, net.local_addr());
            info.resources = Resources::default();
            let (inputs, queue) = mpsc::channel(INPUTS_MAX);
            let heartbeats = HeartbeatSender::start()?;
            let links = Links::start(
                net,
                &config.ticket,
                known,
                inputs,
                heartbeats.clone(),
                transport.handle(),
            );
            transport.spawn(attach(info, heartbeats, links, queue));
        }
        let _transport = transport;
        Ok(Self { _transport })
    }
}

/// Attaches to each new leader. The links keep the connections.
async fn attach(
    info: WorkerInfo,
    heartbeats: HeartbeatSender,
    links: Links,
    mut queue: mpsc::Receiver<Input>,
) {
    let mut warm: HashMap<u64, (LinkSender, Duration)> = HashMap::new();
    while let Some(input) = queue.recv().await {
        match input {
            Input::Linked {
                sender,
                conn,
                welcome,
            } => drop(warm.insert(conn, (sender, welcome.heartbeat_interval))),
            Input::Unlinked { conn } => drop(warm.remove(&conn)),
            Input::Orders { conn, orders } => {
                let leads = orders.iter().any(|it| matches!(it, ToWorker::Lead(_)));
                if let Some((sender, every)) = warm.get(&conn).filter(|_| leads) {
                    heartbeats.connect(conn, sender.clone(), *every);
                    let addr = links.local_addr();
                    let info = WorkerInfo {
                        addr,
                        ..info.clone()
                    };
                    send(sender, &[FromWorker::Attach(Box::new(info))]);
                }
            }
            _ => {}
        }
    }
}
