//! Assigns the machine's GPUs to attempts.

use hedge_exec::Permissions;
use hedge_host::{Gpu, GpuVendor};
use hedge_model::Ending;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The GPUs that a worker offers.
pub(super) struct Gpus {
    all: Vec<Gpu>,
    /// Whether each is free, by position in `all`.
    free: Mutex<Vec<bool>>,
}

/// The GPUs of one attempt. They are free again when this is dropped.
pub(super) struct HeldGpus {
    of: Arc<Gpus>,
    places: Vec<usize>,
}

impl Gpus {
    /// Offers the first `count` of the machine's GPUs.
    pub fn of_machine(count: u64) -> Arc<Self> {
        let mut all = hedge_host::gpus(Path::new("/"));
        all.truncate(usize::try_from(count).unwrap_or(usize::MAX));
        Arc::new(Self {
            free: Mutex::new(vec![true; all.len()]),
            all,
        })
    }

    /// Returns all of them.
    pub fn all(&self) -> &[Gpu] {
        &self.all
    }

    /// Takes `count` free GPUs. The error is the attempt's ending if there are too few.
    pub fn take(self: &Arc<Self>, count: u64) -> Result<HeldGpus, Ending> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let places: Vec<usize> = (0..free.len()).filter(|at| free[*at]).take(count).collect();
        if places.len() < count {
            let why = format!("only {} of its GPUs are free, not {count}", places.len());
            return Err(Ending::worker(why));
        }
        places.iter().for_each(|at| free[*at] = false);
        let of = self.clone();
        Ok(HeldGpus { of, places })
    }
}

impl HeldGpus {
    fn gpus(&self) -> impl Iterator<Item = &Gpu> {
        self.places.iter().map(|at| &self.of.all[*at])
    }

    /// Permits an attempt to open their device nodes.
    pub fn permit(&self, permissions: &mut Permissions) {
        for gpu in self.gpus() {
            for node in gpu.nodes.iter().chain(&gpu.common_nodes) {
                if !permissions.devices.contains(node) {
                    permissions.devices.push(node.clone());
                }
            }
            for path in &gpu.read_only {
                if !permissions.read_only.contains(path) {
                    permissions.read_only.push(path.clone());
                }
            }
        }
    }

    /// Returns the environment variables that name them to programs. A vendor without GPUs here gets an empty
    /// variable. `alone` says that a program sees no other GPUs and therefore counts these from 0.
    pub fn environment(&self, alone: bool) -> Vec<(String, String)> {
        let vendors = GpuVendor::ALL.into_iter();
        vendors
            .map(|vendor| {
                let own: Vec<&Gpu> = self.gpus().filter(|gpu| gpu.vendor == vendor).collect();
                let uuids: Option<Vec<String>> = own.iter().map(|gpu| gpu.uuid.clone()).collect();
                let place = |(at, gpu): (usize, &&Gpu)| if alone { at } else { gpu.index };
                // Programs accept either kind of name, but not both at once.
                let names = uuids.unwrap_or_else(|| {
                    let places = own.iter().enumerate().map(place);
                    places.map(|place| place.to_string()).collect()
                });
                (vendor.variable().to_owned(), names.join(","))
            })
            .collect()
    }
}

impl Drop for HeldGpus {
    fn drop(&mut self) {
        let free = self.of.free.lock();
        let mut free = free.unwrap_or_else(PoisonError::into_inner);
        self.places.iter().for_each(|at| free[*at] = true);
    }
}

/// Returns the labels for a machine's GPUs: vendor and model, or `mixed`.
pub(super) fn labels(gpus: &[Gpu]) -> Vec<(&'static str, String)> {
    let same = |of: &dyn Fn(&Gpu) -> String| {
        let first = gpus.first().map(of)?;
        let all = gpus.iter().all(|gpu| of(gpu) == first);
        Some(if all { first } else { "mixed".to_owned() })
    };
    let vendor = same(&|gpu| gpu.vendor.name().to_owned());
    let model = same(&|gpu| gpu.model.clone());
    let labels = [("gpu", vendor), ("gpu_model", model)];
    labels
        .into_iter()
        .filter_map(|(name, text)| Some((name, text?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(vendor: GpuVendor, index: usize, uuid: Option<&str>) -> Gpu {
        let node = |name: &str| format!("/dev/{}-{name}", vendor.name()).into();
        Gpu {
            vendor,
            model: vendor.name().to_owned(),
            index,
            uuid: uuid.map(str::to_owned),
            nodes: vec![node(&index.to_string())],
            common_nodes: vec![node("common")],
            read_only: Vec::new(),
        }
    }

    fn pool(all: Vec<Gpu>) -> Arc<Gpus> {
        let free = Mutex::new(vec![true; all.len()]);
        Arc::new(Gpus { all, free })
    }

    #[test]
    fn each_gpu_is_held_by_one_attempt_at_a_time() {
        let nvidia = |index| gpu(GpuVendor::Nvidia, index, None);
        let all = pool((0..3).map(nvidia).collect());
        let first = all.take(2).unwrap();
        let second = all.take(1).unwrap();
        assert_eq!((&*first.places, &*second.places), (&[0, 1][..], &[2][..]));
        assert!(all.take(1).is_err() && all.take(0).is_ok());
        drop(first);
        assert_eq!(all.take(2).unwrap().places, [0, 1]);
    }

    #[test]
    fn programs_are_told_their_gpus_and_no_others() {
        let all = pool(vec![
            gpu(GpuVendor::Nvidia, 0, Some("GPU-a")),
            gpu(GpuVendor::Nvidia, 1, None),
            gpu(GpuVendor::Amd, 0, None),
        ]);
        let of = |held: &HeldGpus, alone| {
            let all = held.environment(alone).into_iter();
            all.map(|(_, value)| value).collect::<Vec<_>>()
        };
        assert_eq!(of(&all.take(0).unwrap(), true), ["", "", ""]);
        let first = all.take(1).unwrap();
        assert_eq!(of(&first, true), ["GPU-a", "", ""]);
        let rest = all.take(2).unwrap();
        assert_eq!(of(&rest, true), ["0", "0", ""]);
        assert_eq!(of(&rest, false), ["1", "0", ""]);
        let mut permissions = Permissions::default();
        rest.permit(&mut permissions);
        let nodes = [
            "/dev/nvidia-1",
            "/dev/nvidia-common",
            "/dev/amd-0",
            "/dev/amd-common",
        ];
        assert_eq!(permissions.devices, nodes.map(std::path::PathBuf::from));
        assert_eq!(labels(&all.all)[0], ("gpu", "mixed".to_owned()));
    }
}
