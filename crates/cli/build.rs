//! Puts the program of the first example beside its job file. `cargo run` builds `hedge` and no second program, except
//! for its build scripts. So this build script is that program: when cargo calls it, it copies itself.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};
use std::{env, fs, io};

fn main() -> ExitCode {
    let (Some(folder), Some(_)) = (env::var_os("CARGO_MANIFEST_DIR"), env::var_os("OUT_DIR"))
    else {
        return deepzoom::main();
    };
    let example = Path::new(&folder).join("../../examples/deepzoom");
    let program = example.join("deepzoom");
    println!("cargo::rerun-if-changed={}", program.display());
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(error) = place(&example, &program) {
        println!("cargo::warning=the deep zoom example has no program: {error}");
    }
    ExitCode::SUCCESS
}

/// Copies this program in one step, as another build may run the example meanwhile.
fn place(example: &Path, program: &Path) -> io::Result<()> {
    let part = example.join(format!(".deepzoom-{}", std::process::id()));
    let made = fs::copy(env::current_exe()?, &part)
        // Cargo runs this again if the file is newer than the last run, so it is always old.
        .and_then(|_| fs::File::options().write(true).open(&part))
        .and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)))
        .and_then(|()| fs::rename(&part, program));
    if made.is_err() {
        // What cannot be made cannot be removed either.
        let _ = fs::remove_file(&part);
    }
    made
}
