//! What the tests need beyond the repository: found, or installed where that is possible.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Debian packages that tests run: the example jobs' programs, what makes and shapes network namespaces and
/// ordinary users, and the desktops whose owners are noticed.
const PACKAGES: &[&str] = &[
    "autodock-vina",
    "dbus-daemon",
    "espeak-ng",
    "imagemagick",
    "iproute2",
    "kwin-wayland",
    "libglib2.0-bin",
    "mutter",
    "nftables",
    "povray",
    "povray-includes",
    "procps",
    "pulseaudio",
    "python3-dbusmock",
    "sox",
    "util-linux",
    "xdotool",
    "xserver-xorg-core",
    "xserver-xorg-video-dummy",
    "xvfb",
];

/// The target that proves the core free of an operating system.
pub const WASM: &str = "wasm32-unknown-unknown";

/// Makes sure that everything is there.
///
/// # Errors
/// Something is missing and could not be installed; says the command that would.
pub fn provide(root: &Path) -> Result<()> {
    packages()?;
    wasm_target(root)?;
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
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
        run(&mut command)
    };
    // Lists that are there already are often fresh enough; without any the first try fails.
    let mut install = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    install.extend(&missing);
    if apt(&install).is_err() {
        apt(&["update", "--quiet"])?;
        apt(&install)?;
    }
    Ok(())
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
    if run(Command::new("rustup")
        .args(["target", "add", WASM])
        .current_dir(root))
    .is_err()
    {
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
    run(Command::new("cargo")
        .args(["install", "--locked", "cargo-nextest"])
        .current_dir(root))
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
