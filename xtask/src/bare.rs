//! `cargo xtask bare`: whether the default build needs more than it says, in a folder that holds the distribution's
//! smallest system, a C compiler and the Rust toolchain. By hand: it takes long, and needs root.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::tools::run;

/// What is in the folder beside the smallest system.
const INCLUDE: &str = "--include=gcc,libc6-dev";

/// Mounts the toolchain, the sources and what cargo has downloaded into the folder, each read-only but the last, and
/// builds there without a network. Arguments: the folder, the toolchain, the sources, cargo's folder.
const BUILD: &str = r#"
set -e
mkdir -p "$1/toolchain" "$1/source" "$1/cargo" "$1/build"
mount --bind -o ro "$2" "$1/toolchain"
mount --bind -o ro "$3" "$1/source"
mount --bind "$4" "$1/cargo"
mount -t proc proc "$1/proc"
exec chroot "$1" env -i PATH=/toolchain/bin:/usr/bin:/bin HOME=/root CARGO_HOME=/cargo CARGO_TARGET_DIR=/build \
    sh -c 'cd /source && cargo build --locked --offline --package hedge-cli && /build/debug/hedge --version'
"#;

/// Makes the folder if it is not there, and builds in it.
///
/// # Errors
/// A tool is missing, or the build fails there.
pub fn build(root: &Path) -> Result<()> {
    let folder = root.join("target/bare");
    let system = folder.join("root");
    if !system.join("usr/bin/gcc").exists() {
        std::fs::create_dir_all(&folder).context("cannot make a folder for the bare system")?;
        let (suite, mirror) = (
            answer("sh", &["-c", ". /etc/os-release; echo $VERSION_CODENAME"])?,
            mirror()?,
        );
        run(Command::new("debootstrap")
            .args(["--variant=minbase", INCLUDE, &suite])
            .arg(&system)
            .arg(mirror))
        .context("no bare system: this needs root, and debootstrap (Debian: debootstrap)")?;
    }
    // All that the build needs is downloaded here: there is no network there.
    run(Command::new("cargo")
        .args(["fetch", "--locked"])
        .current_dir(root))?;
    let toolchain = answer("rustc", &["--print", "sysroot"])?;
    let cargo = std::env::var("CARGO_HOME").or_else(|_| {
        let home = std::env::var("HOME");
        home.map(|home| format!("{home}/.cargo"))
    });
    let cargo = cargo.context("neither CARGO_HOME nor HOME is set")?;
    run(Command::new("unshare")
        .args(["--mount", "--net", "sh", "-c", BUILD, "sh"])
        .arg(&system)
        .args([toolchain.as_str()])
        .arg(root)
        .arg(cargo))
}

/// Where this system's packages come from.
fn mirror() -> Result<String> {
    let script = "cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null";
    let text = answer("sh", &["-c", script])?;
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let words = lines.flat_map(str::split_whitespace);
    let mut sources = words.filter(|word| word.starts_with("http"));
    let first = sources.next().map(str::to_owned);
    first.context("no source of packages in /etc/apt")
}

fn answer(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    ensure!(!text.is_empty(), "{program} says nothing");
    Ok(text)
}
