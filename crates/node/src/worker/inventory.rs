//! What this machine is.

use super::WorkerConfig;
use hedge_model::capacity::Hardware;
use hedge_model::msg::WorkerInfo;
use hedge_model::{PeerAddr, Resources};
use std::path::Path;
use std::sync::Arc;

/// Everything that this machine has: CPUs, memory, and disk where `dir` is (or will be).
pub fn offer(dir: &Path) -> Resources {
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    Resources {
        cpus_milli: cpus * 1000,
        memory: memory(),
        disk: free_disk(dir),
        named: Vec::new(),
    }
}

/// What a worker says of itself when it attaches.
pub(super) fn info(config: &WorkerConfig, addr: PeerAddr) -> WorkerInfo {
    let host: Arc<str> = host().into();
    let label = |name: &str, value: &str| (Arc::from(name), Arc::from(value));
    let mut labels = vec![
        label("arch", std::env::consts::ARCH),
        label("os", std::env::consts::OS),
        (Arc::from("host"), host.clone()),
    ];
    labels.extend(config.labels.iter().map(|(name, value)| label(name, value)));
    WorkerInfo {
        host,
        pid: std::process::id(),
        resources: config.resources.clone(),
        labels,
        addr,
        hardware: Hardware::default(),
        holds: Vec::new(),
        in_hand: Vec::new(),
    }
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

fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|line| {
        line.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
    });
    kib.unwrap_or(0) * 1024
}

/// Bytes that may still be written where `path` is or will be.
pub(crate) fn free_disk(path: &Path) -> u64 {
    let there = path.ancestors().find(|ancestor| ancestor.exists());
    let found = there.and_then(|path| rustix::fs::statvfs(path).ok());
    found.map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}
