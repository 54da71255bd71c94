//! `cargo xtask dist`: `hedge` as others get it, stripped, with its debug information in a file beside it that
//! debuggers and profilers find by themselves.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::tools::run;

/// Builds `target/dist/hedge` and splits it into that and `target/dist/hedge.debug`.
///
/// # Errors
/// The build fails, or `objcopy` (Debian: binutils) is missing.
pub fn build(root: &Path) -> Result<()> {
    run(Command::new("cargo")
        .args([
            "build",
            "--locked",
            "--profile",
            "dist",
            "--package",
            "hedge-cli",
        ])
        .current_dir(root))?;
    let folder = root.join("target/dist");
    for args in [
        ["--only-keep-debug", "hedge", "hedge.debug"].as_slice(),
        &[
            "--strip-all",
            "--add-gnu-debuglink=hedge.debug",
            "hedge",
            "hedge.stripped",
        ],
    ] {
        run(Command::new("objcopy").args(args).current_dir(&folder))
            .context("cannot split off the debug information; Debian's binutils has objcopy")?;
    }
    std::fs::rename(folder.join("hedge.stripped"), folder.join("hedge"))
        .context("cannot replace the binary by its stripped copy")?;
    for file in ["hedge", "hedge.debug"] {
        let file = folder.join(file);
        let size = file
            .metadata()
            .context("a file of the build is gone")?
            .len();
        println!("{} {:.1} MB", file.display(), size as f64 / 1e6);
    }
    Ok(())
}
