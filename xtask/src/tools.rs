//! What the tests need beyond the repository: found, or installed where that is possible.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Debian packages that tests run: the example jobs' programs, what makes and shapes network namespaces and
/// ordinary users, the desktops whose owners are noticed, readers of metrics and traces, Python with its own tests of
/// executors, and the programs and data of a workflow that calls variants.
const PACKAGES: &[&str] = &[
    "autodock-vina",
    "bcftools",
    "bowtie2-examples",
    "busybox-static",
    "bwa",
    "chromium",
    "dbus-daemon",
    "espeak-ng",
    "git",
    "imagemagick",
    "iproute2",
    "kwin-wayland",
    "libglib2.0-bin",
    "libpython3.11-testsuite",
    "mutter",
    "nftables",
    "povray",
    "povray-includes",
    "procps",
    "prometheus",
    "pulseaudio",
    "python3-dbusmock",
    "python3-venv",
    "qemu-system-x86",
    "samtools",
    "sox",
    "systemd",
    "util-linux",
    "xdotool",
    "xscreensaver",
    "xserver-xorg-core",
    "xserver-xorg-video-dummy",
    "xvfb",
];

/// How often what comes over the network is tried, and the pause before each further try.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(10);

/// The target that proves the core free of an operating system.
pub const WASM: &str = "wasm32-unknown-unknown";

/// Makes sure that everything is there.
///
/// # Errors
/// Something is missing and could not be installed; says the command that would.
pub fn provide(root: &Path) -> Result<()> {
    packages()?;
    guest_kernel(root)?;
    wasm_target(root)?;
    python_tools(root)?;
    npm_tools(root)?;
    nextest(root)
}

fn packages() -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .copied()
        .filter(|name| !installed(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    ensure!(
        succeeds(Command::new("apt-get").arg("--version")),
        "the tests need these programs, by their Debian names, and there is no apt-get to install them: {list}"
    );
    ensure!(
        succeeds(Command::new("sh").args(["-c", "test \"$(id -u)\" = 0"])),
        "the tests need some packages; run this once, then again what you ran:\n\n    sudo apt-get install --no-install-recommends {list}\n"
    );
    println!("installing {list}");
    // Lists that are there already are often fresh enough; without any the first try fails.
    let mut install = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    install.extend(&missing);
    if apt(&install).is_ok() {
        return Ok(());
    }
    insist(|| {
        apt(&["update", "--quiet"])?;
        apt(&install)
    })
    .with_context(|| format!("these packages could not be installed, which the tests need: {list}"))
}

fn apt(args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    // Another that installs something is waited for.
    command
        .args(["-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=120"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive");
    run(&mut command)
}

/// Tries what needs the network some times, with pauses.
///
/// # Errors
/// The last try failed.
pub fn insist(mut work: impl FnMut() -> Result<()>) -> Result<()> {
    for _ in 1..TRIES {
        match work() {
            Ok(()) => return Ok(()),
            Err(error) => println!("{error:#}; trying again in {} s", PAUSE.as_secs()),
        }
        std::thread::sleep(PAUSE);
    }
    work()
}

/// Where a virtual machine's kernel is unpacked, below the workspace.
const GUEST_KERNEL: &str = "target/guest-kernel";
/// Depends on the newest kernel of the distribution that has drivers for input devices.
const KERNEL_PACKAGE: &str = "linux-image-amd64";

/// Unpacks a kernel for the virtual machine in which input devices are tested: installed it would be booted.
fn guest_kernel(root: &Path) -> Result<()> {
    let folder = root.join(GUEST_KERNEL);
    if folder.is_dir() {
        return Ok(());
    }
    if kernel_name()?.is_none() {
        // There are no lists of packages yet.
        insist(|| apt(&["update", "--quiet"]))?;
    }
    let name = kernel_name()?.with_context(|| {
        format!("there is no Debian package {KERNEL_PACKAGE}: the tests' virtual machine needs its kernel")
    })?;
    println!("unpacking {name}");
    let work = root.join("target/guest-kernel-work");
    insist(|| {
        // Begins anew, whatever an earlier try left.
        _ = std::fs::remove_dir_all(&work);
        std::fs::create_dir_all(&work).context("cannot make a folder for the kernel")?;
        run(Command::new("apt-get")
            .args(["-o", "Acquire::Retries=3", "download", "--quiet", &name])
            .current_dir(&work))
        .or_else(|error| {
            apt(&["update", "--quiet"])?;
            Err(error)
        })
    })?;
    run(Command::new("sh")
        .args(["-c", "dpkg-deb --extract ./*.deb unpacked && rm ./*.deb"])
        .current_dir(&work))?;
    std::fs::rename(work.join("unpacked"), &folder).context("cannot keep the kernel")
}

/// The package of the newest kernel, where the lists of packages know one.
fn kernel_name() -> Result<Option<String>> {
    let depends = Command::new("apt-cache")
        .args(["depends", KERNEL_PACKAGE])
        .stdin(Stdio::null())
        .output()
        .context("cannot run apt-cache, which finds a kernel for the tests' virtual machine")?;
    let text = String::from_utf8_lossy(&depends.stdout);
    let mut lines = text.lines();
    let name = lines.find_map(|line| line.trim().strip_prefix("Depends: "));
    Ok(name.map(str::to_owned))
}

fn installed(package: &str) -> bool {
    let answer = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status}", package])
        .stdin(Stdio::null())
        .output();
    answer.is_ok_and(|answer| answer.stdout == b"installed")
}

fn wasm_target(root: &Path) -> Result<()> {
    let answer = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", WASM])
        .current_dir(root)
        .output()
        .context("cannot run rustc")?;
    if Path::new(String::from_utf8_lossy(&answer.stdout).trim()).is_dir() {
        return Ok(());
    }
    let add = || {
        run(Command::new("rustup")
            .args(["target", "add", WASM])
            .current_dir(root))
    };
    if insist(add).is_err() {
        bail!(
            "the target {WASM} is missing; install it for this toolchain (`rustup target add {WASM}`)"
        );
    }
    Ok(())
}

fn nextest(root: &Path) -> Result<()> {
    if succeeds(
        Command::new("cargo")
            .args(["nextest", "--version"])
            .current_dir(root),
    ) {
        return Ok(());
    }
    println!("installing cargo-nextest, which takes some minutes");
    insist(|| {
        run(Command::new("cargo")
            .args(["install", "--locked", "cargo-nextest"])
            .current_dir(root))
    })
}

/// Where tools of package registries are installed, below the workspace; tests look for them there.
const TOOLS: &str = "target/tools";
/// Perfetto's own messages, by which traces are read.
const PERFETTO: &str = "perfetto==0.59.1";
/// The rules by which pages are checked for readers with screen readers and keyboards.
const AXE: &str = "axe-core@4.14.1";

fn python_tools(root: &Path) -> Result<()> {
    let folder = root.join(TOOLS).join("python");
    let python = folder.join("bin/python");
    if succeeds(Command::new(&python).args(["-c", "import perfetto.protos"])) {
        return Ok(());
    }
    println!("installing {PERFETTO}");
    insist(|| {
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&folder))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", PERFETTO]))
    })
}

fn npm_tools(root: &Path) -> Result<()> {
    let folder = root.join(TOOLS).join("npm");
    if folder.join("node_modules/axe-core/axe.min.js").is_file() {
        return Ok(());
    }
    if !succeeds(Command::new("npm").arg("--version")) {
        insist(|| {
            apt(&[
                "install",
                "--yes",
                "--quiet",
                "--no-install-recommends",
                "npm",
            ])
        })?;
    }
    println!("installing {AXE}");
    insist(|| {
        let mut install = Command::new("npm");
        install.args([
            "install",
            "--no-save",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
        ]);
        run(install.arg("--prefix").arg(&folder).arg(AXE))
    })
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// Runs a command with nothing on its standard input.
///
/// # Errors
/// It could not be started, or failed; names it.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}").replace('"', "");
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run {shown}"))?;
    ensure!(status.success(), "failed ({status}): {shown}");
    Ok(())
}
