//! Staging: the scratch directory of an attempt with its inputs.
//!
//! The worker fetches the blobs that it does not hold, then creates the files. If tasks run without privileges and
//! the store's files belong to another user, an input is a hard link to the store's file, which the task can read but
//! not change. Otherwise, for compressed files, and if the task declares the same path as an output or checkpoint, it
//! is a copy (a clone if the file system can do that).

use super::attempt::{StageResult, Tools, failed};
use crate::grants::Grants;
use hedge_exec::{ExecError, OutputPatterns, Scratch, Source};
use hedge_model::msg::{Assignment, Body, GrantedBody};
use hedge_model::{Data, Ending, FileEntry, Hash};
use hedge_net::{FetchError, PlaceMode, Placement};
use std::path::Path;
use std::sync::Arc;

/// Extensions of compressed files. `gzip`, `bzip2` and `xz` refuse to unpack a file in place that has several links.
const COMPRESSED: [&str; 10] = [
    "gz", "tgz", "Z", "bz2", "tbz2", "xz", "txz", "lzma", "lz", "zst",
];

pub(super) async fn stage(
    tools: &Tools,
    body: &Arc<GrantedBody>,
    order: &Assignment,
) -> StageResult {
    fetch(tools, body, order).await?;
    let scratch = tools.runner.scratch();
    let mut scratch = scratch.map_err(|error| error.ending())?;
    // Without a sandbox a task has this worker's own privileges.
    let way = match tools.runner.respects_modes() {
        true => PlaceMode::Link,
        false => PlaceMode::Copy,
    };
    let (body, order) = (body.clone(), order.clone());
    let prepare = move || {
        let placements = prepare(&mut scratch, &body, &order, way)?;
        Ok((scratch, placements))
    };
    let prepared = tokio::task::spawn_blocking(prepare).await;
    let (scratch, placements) = prepared.unwrap_or_else(|error| Err(failed(&error)))?;
    let placed = tools.store.place(placements).await;
    placed.map_err(|error| failed(&error))?;
    Ok(scratch)
}

async fn fetch(tools: &Tools, body: &GrantedBody, order: &Assignment) -> Result<(), Ending> {
    let files = body
        .inputs
        .iter()
        .chain(order.own_inputs())
        .chain(order.checkpoint());
    let data = files.map(|file| &file.data).chain(&body.stdin);
    let blobs = data.filter_map(|data| Some((data.hash()?, data.size())));
    let blobs = blobs.filter(|(hash, _)| !tools.store.has(*hash));
    let own_blobs = order.own_blobs();
    let of_task = |hash: &Hash| own_blobs.is_some_and(|own| own.blobs.contains(hash));
    let (own, shared): (Vec<_>, Vec<_>) = blobs.partition(|(hash, _)| of_task(hash));
    let mut lacking = Vec::new();
    if !shared.is_empty() {
        let grants = Grants::open(&body.grants);
        lacking = grants.fetch(&tools.fetcher, &shared, &body.sources).await;
    }
    if let Some(from) = own_blobs.filter(|_| !own.is_empty()) {
        let grants = Grants::open(&from.grants);
        lacking.extend(grants.fetch(&tools.fetcher, &own, &from.sources).await);
    }
    let here = |error: &&FetchError| matches!(error, FetchError::Local { .. });
    if let Some(error) = lacking.iter().find(here) {
        return Err(failed(error));
    }
    let Some(why) = lacking.last().map(FetchError::to_string) else {
        return Ok(());
    };
    let missing = lacking.iter().map(FetchError::hash).collect();
    Err(Ending::Input { missing, why })
}

/// Creates the directories and the files that came with the assignment. Returns the files to create from blobs.
fn prepare(
    scratch: &mut Scratch,
    body: &Body,
    order: &Assignment,
    way: PlaceMode,
) -> Result<Vec<Placement>, Ending> {
    let not_made = |error: ExecError| error.ending();
    let values = body.task_values(order);
    let expand = |output: &Arc<str>| values.expand(output).into_owned();
    let outputs: Vec<String> = body.outputs.iter().map(expand).collect();
    let outputs = OutputPatterns::new(&outputs);
    let mut placements = Vec::new();
    let saved = |file: &FileEntry| {
        order
            .checkpoint()
            .iter()
            .any(|other| other.path == file.path)
    };
    let inputs = body.inputs.iter().chain(order.own_inputs());
    let inputs = inputs.filter(|file| !saved(file));
    for FileEntry {
        path,
        executable,
        data,
    } in inputs.chain(order.checkpoint())
    {
        match data {
            Data::Inline(bytes) => scratch
                .place(path, *executable, Source::Bytes(bytes))
                .map_err(not_made)?,
            Data::Blob { hash, .. } => placements.push(Placement {
                hash: *hash,
                target: scratch.make_room(path).map_err(not_made)?,
                executable: *executable,
                way: match outputs.cover(path) || rewrites(body, path) || is_compressed(path) {
                    true => PlaceMode::Copy,
                    false => way,
                },
            }),
        }
    }
    match &body.stdin {
        None => {}
        Some(Data::Inline(bytes)) => scratch
            .place_stdin(Source::Bytes(bytes))
            .map_err(not_made)?,
        Some(Data::Blob { hash, .. }) => placements.push(Placement {
            hash: *hash,
            target: scratch.stdin_path(),
            executable: false,
            way,
        }),
    }
    Ok(placements)
}

/// Returns whether a file belongs to the checkpoint, so that the task may write to it.
fn rewrites(body: &Body, path: &str) -> bool {
    let rule = body.checkpoint.as_deref();
    rule.is_some_and(|rule| rule.files.iter().any(|file| &**file == path))
}

fn is_compressed(path: &str) -> bool {
    let extension = Path::new(path).extension();
    extension.is_some_and(|it| COMPRESSED.iter().any(|known| it == *known))
}
