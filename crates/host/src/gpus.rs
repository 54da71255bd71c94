//! The machine's GPUs, as the kernel's drivers show them.

use std::fs;
use std::path::{Path, PathBuf};

/// GPUs that are looked for, at most; a machine holds a few dozen.
const GPUS_MAX: usize = 256;

/// Who made a GPU, and thereby which driver and environment variable it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GpuVendor {
    /// NVIDIA: `CUDA_VISIBLE_DEVICES`.
    Nvidia,
    /// AMD: `ROCR_VISIBLE_DEVICES`.
    Amd,
    /// Intel: `ZE_AFFINITY_MASK`.
    Intel,
}

impl GpuVendor {
    /// All of them.
    pub const ALL: [GpuVendor; 3] = [GpuVendor::Nvidia, GpuVendor::Amd, GpuVendor::Intel];

    /// The word for it in labels.
    pub fn name(self) -> &'static str {
        match self {
            GpuVendor::Nvidia => "nvidia",
            GpuVendor::Amd => "amd",
            GpuVendor::Intel => "intel",
        }
    }

    /// The environment variable by which programs learn which GPUs of this vendor they may use.
    pub fn variable(self) -> &'static str {
        match self {
            GpuVendor::Nvidia => "CUDA_VISIBLE_DEVICES",
            GpuVendor::Amd => "ROCR_VISIBLE_DEVICES",
            GpuVendor::Intel => "ZE_AFFINITY_MASK",
        }
    }

    /// By its PCI vendor id, for GPUs of the kernel's direct rendering manager.
    fn of_pci(id: &str) -> Option<GpuVendor> {
        match id {
            "0x1002" => Some(GpuVendor::Amd),
            "0x8086" => Some(GpuVendor::Intel),
            _ => None,
        }
    }
}

/// A GPU whose driver is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Who made it.
    pub vendor: GpuVendor,
    /// Its name, as far as the driver says.
    pub model: String,
    /// Its place among the machine's GPUs of this vendor, from 0.
    pub index: usize,
    /// A name that [`GpuVendor::variable`] takes instead of a place, where the driver says one.
    pub uuid: Option<String>,
    /// Its own device nodes.
    pub nodes: Vec<PathBuf>,
    /// Device nodes that all GPUs of this vendor need.
    pub common_nodes: Vec<PathBuf>,
    /// Files and folders that programs read to find it.
    pub read_only: Vec<PathBuf>,
}

/// Finds the GPUs below `root`, which is `/` on a real machine: NVIDIA's by `/proc/driver/nvidia`, those of AMD and
/// Intel by `/sys/class/drm`. A GPU without device nodes is left out: its driver is not loaded. By vendor, then by place.
pub fn gpus(root: &Path) -> Vec<Gpu> {
    let mut found = nvidia(root);
    found.extend(rendering(root));
    found.truncate(GPUS_MAX);
    found
}

fn nvidia(root: &Path) -> Vec<Gpu> {
    let folder = root.join("proc/driver/nvidia/gpus");
    let node = |name: &str| root.join("dev").join(name);
    let common = [
        "nvidiactl",
        "nvidia-uvm",
        "nvidia-uvm-tools",
        "nvidia-modeset",
    ];
    let common: Vec<PathBuf> = existing(common.map(node));
    let mut found: Vec<(u32, Gpu)> = Vec::new();
    for entry in names(&folder) {
        let text = fs::read_to_string(folder.join(&entry).join("information")).unwrap_or_default();
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            let (_, value) = lines.find(|(known, _)| known.trim() == name)?;
            Some(value.trim().to_owned())
        };
        let Some(minor) = field("Device Minor").and_then(|text| text.parse().ok()) else {
            continue;
        };
        let nodes = existing([node(&format!("nvidia{minor}"))]);
        if nodes.is_empty() {
            continue;
        }
        // Before the first use the driver shows question marks.
        let uuid = field("GPU UUID").filter(|text| text.starts_with("GPU-") && !text.contains('?'));
        let gpu = Gpu {
            vendor: GpuVendor::Nvidia,
            model: field("Model").unwrap_or_else(|| "NVIDIA".to_owned()),
            index: 0,
            uuid,
            nodes,
            common_nodes: common.clone(),
            read_only: ["proc/driver/nvidia", "proc/devices"]
                .map(|path| root.join(path))
                .to_vec(),
        };
        found.push((minor, gpu));
    }
    numbered(found)
}

fn rendering(root: &Path) -> Vec<Gpu> {
    let class = root.join("sys/class/drm");
    let mut found: Vec<(u32, Gpu)> = Vec::new();
    for name in names(&class) {
        let number = name.strip_prefix("renderD");
        let Some(number) = number.and_then(|number| number.parse().ok()) else {
            continue;
        };
        let device = class.join(&name).join("device");
        let text = |file: &str| {
            let text = fs::read_to_string(device.join(file)).unwrap_or_default();
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let Some(vendor) = text("vendor").and_then(|id| GpuVendor::of_pci(&id)) else {
            continue;
        };
        let render = root.join("dev/dri").join(&name);
        if !render.exists() {
            continue;
        }
        let cards = names(&device.join("drm")).into_iter();
        let cards = cards.filter(|name| name.starts_with("card"));
        let cards = cards.map(|name| root.join("dev/dri").join(name));
        let model = text("product_name").unwrap_or_else(|| {
            let id = text("device").unwrap_or_default();
            format!("{} {id}", vendor.name()).trim().to_owned()
        });
        let (common, uuid) = match vendor {
            GpuVendor::Amd => (
                existing([root.join("dev/kfd")]),
                text("unique_id").map(|id| format!("GPU-{}", id.trim_start_matches("0x"))),
            ),
            _ => (Vec::new(), None),
        };
        let real = fs::canonicalize(&device).unwrap_or(device);
        let kernel = [
            "sys/class/drm",
            "sys/class/kfd",
            "sys/devices/virtual/kfd",
            "sys/dev/char",
        ];
        let kernel = kernel.map(|path| root.join(path));
        let gpu = Gpu {
            vendor,
            model,
            index: 0,
            uuid,
            nodes: existing([render].into_iter().chain(cards)),
            common_nodes: common,
            read_only: kernel.into_iter().chain([real]).collect(),
        };
        found.push((number, gpu));
    }
    found.sort_by_key(|(number, gpu)| (gpu.vendor, *number));
    let (amd, intel): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|(_, gpu)| gpu.vendor == GpuVendor::Amd);
    let mut all = numbered(amd);
    all.extend(numbered(intel));
    all
}

/// GPUs of one vendor, by the driver's numbers.
fn numbered(mut found: Vec<(u32, Gpu)>) -> Vec<Gpu> {
    found.sort_by_key(|(number, _)| *number);
    let all = found.into_iter().enumerate();
    all.map(|(index, (_, gpu))| Gpu { index, ..gpu }).collect()
}

fn existing(paths: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    paths.into_iter().filter(|path| path.exists()).collect()
}

/// The names in a folder, sorted; none where it is not there.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.take(GPUS_MAX * 4);
    let mut names: Vec<String> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// As the driver of version 580 writes it.
    fn information(minor: u32, uuid: &str) -> String {
        format!(
            "Model: \t\t NVIDIA H200\nIRQ:   \t\t 211\nGPU UUID: \t {uuid}\nVideo BIOS: \t 96.00.af.00.01\n\
             Bus Type: \t PCIe\nDMA Size: \t 52 bits\nDevice Minor: \t {minor}\nGPU Excluded:\t No\n"
        )
    }

    #[test]
    fn nvidias_are_found_by_their_driver_and_those_without_a_node_are_not() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let place = |bus: &str| format!("proc/driver/nvidia/gpus/0000:{bus}:00.0/information");
        write(root, &place("c1"), &information(0, "GPU-0aa0"));
        write(root, &place("41"), &information(1, "GPU-????????-????"));
        write(root, &place("61"), &information(2, "GPU-0cc0"));
        for node in ["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"] {
            write(root, &format!("dev/{node}"), "");
        }
        let found = gpus(root);
        let shown: Vec<_> = found
            .iter()
            .map(|gpu| (gpu.index, gpu.uuid.as_deref(), gpu.nodes.clone()))
            .collect();
        assert_eq!(
            shown,
            [
                (0, Some("GPU-0aa0"), vec![root.join("dev/nvidia0")]),
                (1, None, vec![root.join("dev/nvidia1")]),
            ]
        );
        assert_eq!(found[0].model, "NVIDIA H200");
        let common = ["nvidiactl", "nvidia-uvm"].map(|name| root.join("dev").join(name));
        assert_eq!(found[1].common_nodes, common);
    }

    #[test]
    fn amds_and_intels_are_found_by_their_render_nodes() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for (render, card, vendor) in [
            (130, 2, "0x8086"),
            (128, 0, "0x1002"),
            (129, 1, "0x1af4"),
            (131, 3, "0x1002"),
        ] {
            let device = format!("sys/class/drm/renderD{render}/device");
            write(root, &format!("{device}/vendor"), &format!("{vendor}\n"));
            write(root, &format!("{device}/device"), "0x74a1\n");
            write(root, &format!("{device}/drm/card{card}/dev"), "");
            write(root, &format!("dev/dri/card{card}"), "");
            write(root, &format!("dev/dri/renderD{render}"), "");
        }
        write(root, "sys/class/drm/renderD128/device/unique_id", "1f2e\n");
        write(
            root,
            "sys/class/drm/renderD128/device/product_name",
            "AMD Instinct MI300X\n",
        );
        write(root, "sys/class/drm/card0/device/vendor", "0x1002\n");
        write(root, "dev/kfd", "");
        let found = gpus(root);
        let shown: Vec<_> = found
            .iter()
            .map(|gpu| (gpu.vendor, gpu.index, &*gpu.model, gpu.uuid.as_deref()))
            .collect();
        assert_eq!(
            shown,
            [
                (GpuVendor::Amd, 0, "AMD Instinct MI300X", Some("GPU-1f2e")),
                (GpuVendor::Amd, 1, "amd 0x74a1", None),
                (GpuVendor::Intel, 0, "intel 0x74a1", None),
            ]
        );
        let nodes = ["dev/dri/renderD131", "dev/dri/card3"].map(|path| root.join(path));
        assert_eq!(found[1].nodes, nodes);
        assert_eq!(found[1].common_nodes, [root.join("dev/kfd")]);
        assert!(found[2].common_nodes.is_empty());
    }

    #[test]
    fn a_machine_without_gpus_has_none() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(gpus(root.path()), []);
    }
}
