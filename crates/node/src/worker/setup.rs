//! What a worker is made of when it starts.

use super::trees::TreeCache;
use super::{Input, WorkerConfig, owner, screensaver};
use crate::NodeError;
use crate::folders::make_private;
use crate::known::Known;
use crate::transport::Threads;
use hedge_exec::{Runner, ScratchPool, SpawnerConfig};
use hedge_net::{DataServer, DataStore, Net, NetConfig, SecretKey, Trust};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Serves screensavers with what runs here, if the machine has an owner.
pub(super) fn show(config: &WorkerConfig, inputs: &mpsc::Sender<Input>) -> screensaver::Shown {
    let (shown, view) = screensaver::Shown::new();
    if config.owner.is_some()
        && let Err(error) = screensaver::listen(&config.dir, inputs.clone(), view)
    {
        tracing::warn!(%error, "no screensaver will be told what runs here");
    }
    shown
}

pub(super) fn port(
    config: &WorkerConfig,
    key: SecretKey,
    known: &Known,
    data: Option<(DataServer, Handle)>,
) -> NetConfig {
    let mut port = NetConfig::new(key, config.listen);
    port.relays = known.load_relays();
    port.ticket = Some(config.ticket.secret_hash());
    port.mdns = config.mdns;
    port.data = data;
    port
}

/// Opens the store of blobs, and the port that serves them. Transport and content have threads of their own.
pub(super) async fn bind(
    config: &WorkerConfig,
    key: SecretKey,
    known: &Known,
    trust: Trust,
    (transport, content): (&Threads, &Threads),
) -> Result<(Net, DataStore), NodeError> {
    let store = open_store(config).await?;
    let server = DataServer::new(store.clone(), trust);
    let port = port(config, key, known, Some((server, content.handle())));
    Ok((transport.run(Net::bind(port)).await??, store))
}

async fn open_store(config: &WorkerConfig) -> Result<DataStore, NodeError> {
    let store = DataStore::open(&config.dir.join("content")).await?;
    if let Some(peers) = &config.neighbours {
        store.join_neighbours(peers);
    }
    Ok(store)
}

pub(super) fn new_core(config: &WorkerConfig) -> hedge_core::worker::Worker {
    let core = hedge_core::worker::Worker::new(config.resources.clone());
    match &config.owner {
        Some(owner) => core.with_owner(owner.rules.clone()),
        None => core,
    }
}

/// Opens the cache of trees, which may hold some hundred thousand files.
pub(super) async fn open_trees(config: &WorkerConfig) -> Result<TreeCache, NodeError> {
    let (folder, most) = (config.dir.join("trees"), config.tree_cache);
    let path = folder.clone();
    let open = move || {
        make_private(&folder)?;
        TreeCache::open(&folder, most)
            .map_err(|source| NodeError::io("open the trees in", &folder, source))
    };
    let opened = tokio::task::spawn_blocking(open).await;
    opened.unwrap_or_else(|error| Err(NodeError::io("open the trees in", &path, error.into())))
}

pub(super) async fn start_runner(config: &WorkerConfig) -> Result<Runner, NodeError> {
    let scratch = ScratchPool::open(config.dir.join("scratch"))?;
    let mut spawner = SpawnerConfig::new(scratch.base());
    spawner.hidden = vec![config.dir.clone()];
    spawner.read_only = std::env::current_exe().into_iter().collect();
    spawner.sandbox = config.sandbox;
    spawner.accept_weak = config.accept_weak_sandbox;
    spawner.memory_max = Some(config.resources.memory).filter(|bytes| *bytes > 0);
    spawner.disk_max = Some(config.resources.disk).filter(|bytes| *bytes > 0);
    spawner.network = config.network;
    let shares = config.shares.iter();
    spawner.shares = shares.map(|(_, folder)| folder.clone()).collect();
    spawner.priority = config.priority;
    let owner = config.owner.as_ref();
    spawner.free_memory = owner.is_some_and(|owner| owner.free_memory);
    let runner = Runner::start_up(scratch, spawner).await?;
    if let Some(owner) = owner {
        owner::tell_how(owner, &runner);
    }
    Ok(runner)
}
