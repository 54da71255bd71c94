//! `hedge pack`: a folder as a tree, for programs that submit over HTTP.

use super::Context;
use crate::exit::{Exit, Failure};
use hedge_job::{PackedBlob, pack_folder};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Examples.
pub const HELP: &str = "\
Example:
  hedge pack .venv --out packed --json       hash and file of the manifest and of each pack

`hedge submit` packs by itself. docs/gateway.md says how a submission names what is listed here.";

/// Arguments of `pack`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The folder
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Write the manifest and the packs of small files to this folder; files of more than 4 MiB are listed where they lie
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Packs the folder, and lists the blobs that it became.
///
/// # Errors
/// The folder cannot be read or is too large, or the packs cannot be written.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    if !args.folder.is_dir() {
        return Err(Failure::Arguments(format!(
            "{} is not a folder; nothing was packed: name the folder that tasks are to see",
            args.folder.display()
        )));
    }
    let made = std::fs::create_dir_all(&args.out);
    made.map_err(|error| {
        Failure::Local(format!(
            "cannot make the folder {}: {error}; nothing was packed",
            args.out.display()
        ))
    })?;
    let tree = pack_folder(&args.folder, &args.out);
    let tree = tree.map_err(|why| Failure::Local(format!("{why}; the tree is not complete")))?;
    let packs: Vec<Value> = tree.packs.iter().map(listed).collect();
    let value = json!({ "manifest": listed(&tree.manifest), "packs": packs });
    context.look.print(&value, || {
        let blobs = std::iter::once(&tree.manifest).chain(&tree.packs);
        let lines = blobs.map(|blob| format!("{}  {}\n", blob.hash, blob.path.display()));
        lines.collect()
    })?;
    Ok(Exit::Done)
}

fn listed(blob: &PackedBlob) -> Value {
    let path = blob.path.to_string_lossy();
    json!({ "blake3": blob.hash.to_string(), "bytes": blob.bytes, "path": path })
}
