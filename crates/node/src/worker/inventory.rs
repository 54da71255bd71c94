//! What this machine offers: resources and labels.

use super::WorkerConfig;
use super::attempt::Tools;
use hedge_model::msg::WorkerInfo;
use hedge_model::spec::{MOUNTS_LABEL, Network};
use hedge_model::{PeerAddr, Resources};
use std::path::Path;
use std::sync::Arc;

/// Returns everything that this machine has: CPUs, memory, disk where `dir` is or will be, and GPUs.
pub fn offer(dir: &Path) -> Resources {
    Resources {
        cpus_milli: u64::from(hedge_host::cores()) * 1000,
        memory: hedge_host::memory(),
        disk: free_disk(dir),
        named: match hedge_host::gpus(Path::new("/")).len() {
            0 => Vec::new(),
            count => vec![("gpus".into(), count as u64)],
        },
    }
}

/// Returns what a worker reports about itself when it attaches; without `tools`, one that runs no attempts.
pub(super) fn info(config: &WorkerConfig, tools: Option<&Tools>, addr: PeerAddr) -> WorkerInfo {
    let mut labels = labels();
    let gpus = tools.map_or(&[][..], |tools| tools.gpus.all());
    let gpus = super::gpus::labels(gpus).into_iter();
    let gpus = gpus.map(|(name, text)| (Arc::from(name), Arc::from(text)));
    let new =
        |(name, _): &(Arc<str>, Arc<str>)| config.labels.iter().all(|(own, _)| **own != **name);
    labels.extend(gpus.filter(new));
    let mounts = (MOUNTS_LABEL.0.into(), MOUNTS_LABEL.1.into());
    let shows = tools.is_some_and(|tools| tools.runner.has_view());
    labels.extend(shows.then_some(mounts).filter(new));
    let given = config.labels.iter();
    labels.extend(given.map(|(name, value)| (Arc::from(&**name), Arc::from(&**value))));
    let shares = config.shares.iter();
    let shares = shares.map(|(name, folder)| (Arc::from(&**name), folder.writable));
    WorkerInfo {
        host: host().into(),
        pid: std::process::id(),
        resources: config.resources.clone(),
        labels,
        shares: shares.collect(),
        network: match config.network || !config.sandbox {
            true => Network::Any,
            false => Network::Loopback,
        },
        addr,
        hardware: hedge_host::hardware(&config.dir),
        holds: Vec::new(),
        in_hand: Vec::new(),
    }
}

/// Returns the labels that every worker on this machine has.
pub fn labels() -> Vec<(Arc<str>, Arc<str>)> {
    let label = |name: &str, value: &str| (Arc::from(name), Arc::from(value));
    vec![
        label("arch", std::env::consts::ARCH),
        label("os", std::env::consts::OS),
        label("host", &host()),
    ]
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        "unknown".to_owned()
    } else {
        name.to_owned()
    }
}

/// Returns how many bytes may still be written where `path` is or will be.
pub(crate) fn free_disk(path: &Path) -> u64 {
    let there = path.ancestors().find(|ancestor| ancestor.exists());
    let found = there.and_then(|path| rustix::fs::statvfs(path).ok());
    found.map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}
