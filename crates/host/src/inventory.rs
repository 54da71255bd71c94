//! Reads this machine's hardware: cores, clock rate, memory, cache, disk.

use hedge_model::capacity::{DiskKind, Hardware};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The most processors whose clock rate is read.
const PROCESSORS_MAX: usize = 4096;
/// The most caches of a processor that are read.
const CACHES_MAX: usize = 8;
/// File systems that lie in memory, by the kernel's `magic.h`.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// Reads the hardware; `dir` is where the scratch directory is or will be. What cannot be read stays unknown.
pub fn hardware(dir: &Path) -> Hardware {
    Hardware {
        cores: cores(),
        clock_mhz: clock_mhz(),
        memory: memory(),
        cache: cache(),
        disk: disk(dir),
    }
}

/// Cores that this process may use; 1 where the system does not tell.
pub fn cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores).unwrap_or(u32::MAX)
}

/// The highest clock rate of any processor, MHz: the governor's maximum, else the current rate.
fn clock_mhz() -> u32 {
    if let Some(khz) = clock_khz_max(Path::new("/sys/devices/system/cpu")) {
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

/// The highest clock rate that the governors of the processors in `dir` allow, kHz. A processor that is offline has no
/// rate, and one that was removed has no folder.
fn clock_khz_max(dir: &Path) -> Option<u32> {
    let rate = |processor: fs::DirEntry| {
        let text = fs::read_to_string(processor.path().join("cpufreq/cpuinfo_max_freq")).ok()?;
        text.trim().parse().ok()
    };
    let processors = fs::read_dir(dir).ok()?.flatten();
    processors.take(PROCESSORS_MAX).filter_map(rate).max()
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

/// The kind of disk of a folder, or of the nearest existing one above it.
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
    let rotational = ["queue/rotational", "../queue/rotational"]
        .iter()
        .find_map(|path| fs::read_to_string(Path::new(&device).join(path)).ok());
    match rotational.as_deref().map(str::trim) {
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

    #[test]
    fn the_clock_rate_is_read_past_a_processor_that_is_offline() {
        let folder = tempfile::tempdir().unwrap();
        let processor = |number: u32| folder.path().join(format!("cpu{number}"));
        assert_eq!(clock_khz_max(folder.path()), None);
        for (number, khz) in [(0, "2000000\n"), (2, "3000000\n")] {
            let dir = processor(number).join("cpufreq");
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("cpuinfo_max_freq"), khz).unwrap();
        }
        fs::create_dir(processor(1)).unwrap();
        assert_eq!(clock_khz_max(folder.path()), Some(3_000_000));
    }
}
