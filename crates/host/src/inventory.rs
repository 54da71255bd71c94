//! What this machine is made of.

use hedge_model::capacity::{DiskKind, Hardware};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Processors that are asked for their clock rate, at most.
const PROCESSORS_MAX: usize = 4096;
/// Levels of caches that are looked at.
const CACHES_MAX: usize = 8;
/// File systems that lie in memory, by the kernel's `magic.h`.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// Looks at the machine; `dir` is where the scratch folder is or will be. What cannot be found out stays unknown.
pub fn hardware(dir: &Path) -> Hardware {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Hardware {
        cores: u32::try_from(cores).unwrap_or(u32::MAX),
        clock_mhz: clock_mhz(),
        memory: memory(),
        cache: cache(),
        disk: disk(dir),
    }
}

/// The highest clock rate of any processor, MHz: what the governor may give, else what it gives now.
fn clock_mhz() -> u32 {
    let khz = |number: usize| {
        let path = format!("/sys/devices/system/cpu/cpu{number}/cpufreq/cpuinfo_max_freq");
        fs::read_to_string(path).ok()?.trim().parse::<u32>().ok()
    };
    let highest = (0..PROCESSORS_MAX).map_while(khz).max();
    if let Some(khz) = highest {
        return khz / 1000;
    }
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let rates = text.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_rate = name.trim_end() == "cpu MHz";
        is_rate.then(|| value.trim().parse::<f64>().ok()).flatten()
    });
    rates.fold(0.0, f64::max) as u32
}

/// Memory, bytes.
pub fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
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

/// The largest cache of the first processor, bytes.
fn cache() -> u64 {
    let size = |number: usize| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{number}/size");
        let text = fs::read_to_string(path).ok()?;
        let text = text.trim();
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let unit = match unit {
            "K" => 1 << 10,
            "M" => 1 << 20,
            _ => return None,
        };
        Some(number.parse::<u64>().ok()? * unit)
    };
    (0..CACHES_MAX).map_while(size).max().unwrap_or(0)
}

/// What kind of disk a folder, or the nearest above it that exists, lies on.
fn disk(dir: &Path) -> DiskKind {
    let Some(there) = dir.ancestors().find(|path| path.exists()) else {
        return DiskKind::Unknown;
    };
    let in_memory = rustix::fs::statfs(there)
        .is_ok_and(|about| IN_MEMORY.contains(&(about.f_type as u64 & 0xffff_ffff)));
    if in_memory {
        return DiskKind::Memory;
    }
    let Ok(about) = fs::metadata(there) else {
        return DiskKind::Unknown;
    };
    let (major, minor) = (
        rustix::fs::major(about.dev()),
        rustix::fs::minor(about.dev()),
    );
    let device = format!("/sys/dev/block/{major}:{minor}");
    // A partition has no queue of its own; its disk does.
    let turns = ["queue/rotational", "../queue/rotational"]
        .iter()
        .find_map(|path| fs::read_to_string(Path::new(&device).join(path)).ok());
    match turns.as_deref().map(str::trim) {
        Some("0") => DiskKind::Solid,
        Some("1") => DiskKind::Rotating,
        _ => DiskKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_found_out() {
        let folder = tempfile::tempdir().unwrap();
        let found = hardware(&folder.path().join("to/be/made"));
        assert!(found.cores >= 1 && found.memory > 64 << 20, "{found:?}");
        assert_eq!(disk(Path::new("/dev/shm")), DiskKind::Memory);
        println!("{found:?}");
    }
}
