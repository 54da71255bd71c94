//! The tests of the Python packages, in a virtual environment below `target/`, against the `hedge` that the tests built.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::tools;

/// The virtual environment, below the workspace.
const ENVIRONMENT: &str = "target/python";
/// What the packages and their tests need from PyPI. Parsl's own tests do not work with pytest 9.
const PACKAGES: &[&str] = &[
    "cloudpickle>=3.1,<4",
    "dask[array]>=2024.8",
    "joblib>=1.4,<2",
    "mypy>=1.11,<3",
    "numpy",
    "parsl>=2025.1",
    "pytest>=8,<9",
    "snakemake>=9.20,<10",
    "snakemake-interface-executor-plugins>=9.4,<10",
];

/// Checks the types and runs the tests.
///
/// # Errors
/// The environment cannot be made, or a check or test failed.
pub fn test(root: &Path) -> Result<()> {
    let environment = root.join(ENVIRONMENT);
    let python = environment.join("bin/python");
    let stamp = environment.join("packages");
    let wanted = PACKAGES.join("\n");
    let known = std::fs::read_to_string(&stamp).unwrap_or_default();
    if !python.exists() || known != wanted {
        tools::run(
            Command::new("/usr/bin/python3")
                .args(["-m", "venv", "--clear"])
                .arg(&environment),
        )?;
        tools::insist(|| {
            let mut install = Command::new(&python);
            install.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ]);
            tools::run(install.args(PACKAGES))
        })?;
        std::fs::write(&stamp, wanted).context("cannot note what was installed")?;
    }
    let folder = root.join("python");
    let plugin = folder.join("snakemake");
    let path = format!("{}/src:{}/src", folder.display(), plugin.display());
    let cache = root.join(ENVIRONMENT).join("mypy");
    let run = |folder: &Path, args: &[&str]| {
        let mut command = Command::new(&python);
        command
            .args(args)
            .current_dir(folder)
            .env("PYTHONPATH", &path)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("HEDGEROW_BINARY", root.join("target/debug/hedge"))
            .env_remove("HEDGE_TICKET");
        tools::run(&mut command)
    };
    for folder in [&folder, &plugin] {
        run(
            folder,
            &["-m", "mypy", "--cache-dir", &cache.to_string_lossy()],
        )?;
        run(folder, &["-m", "pytest", "-p", "no:cacheprovider"])?;
    }
    Ok(())
}
