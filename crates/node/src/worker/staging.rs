//! Staging: the scratch directory of an attempt with its inputs.
//!
//! The worker fetches the blobs that it does not hold, then creates the files. If tasks run without privileges and
//! the store's files belong to another user, an input is a hard link to the store's file, which the task can read but
//! not change. Otherwise, for compressed files, and if the task declares the same path as an output or checkpoint, it
//! is a copy (a clone if the file system can do that).

use super::attempt::{StageResult, Tools, failed};
use super::trees::Tree;
use crate::grants::Grants;
use hedge_exec::{ExecError, OutputPatterns, Scratch, Source};
use hedge_model::msg::{Assignment, Body, GrantedBody};
use hedge_model::tree::MountedTree;
use hedge_model::{Data, Ending, FileEntry, Hash};
use hedge_net::{FetchError, PlaceMode, Placement};
use std::path::Path;
use std::sync::Arc;

/// Extensions of compressed files. `gzip`, `bzip2` and `xz` refuse to unpack a file in place that has several links.
const COMPRESSED: [&str; 10] = [
    "gz", "tgz", "Z", "bz2", "tbz2", "xz", "txz", "lzma", "lz", "zst",
];

/// A tree, and the path at which an attempt sees it.
pub(super) type MountedAt = (Arc<Tree>, Arc<str>);

/// What an attempt finds when it starts.
pub(super) struct Staged {
    /// Its scratch directory.
    pub scratch: Scratch,
    /// Its trees. They stay as long as this does.
    pub trees: Vec<MountedAt>,
}

pub(super) async fn stage(
    tools: &Arc<Tools>,
    body: &Arc<GrantedBody>,
    order: &Assignment,
) -> StageResult {
    fetch(tools, body, order).await?;
    let trees = take_trees(tools, body).await?;
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
    Ok(Staged { scratch, trees })
}

/// Takes the attempt's trees from the cache, which writes those that it lacks.
async fn take_trees(tools: &Arc<Tools>, body: &Arc<GrantedBody>) -> Result<Vec<MountedAt>, Ending> {
    let mut trees = Vec::with_capacity(body.mounts.len());
    for mount in &body.mounts {
        check_mount(tools, &mount.at)?;
        let tree = match tools.trees.get(mount.manifest.0) {
            Some(tree) => tree,
            None => {
                let (tools, body, mount) = (tools.clone(), body.clone(), mount.clone());
                // If the attempt is cancelled meanwhile, the next one finds the tree.
                let taken = tokio::spawn(async move { take_tree(&tools, &body, &mount).await });
                taken.await.unwrap_or_else(|error| Err(failed(&error)))?
            }
        };
        trees.push((tree, mount.at.clone()));
    }
    Ok(trees)
}

async fn take_tree(
    tools: &Tools,
    body: &GrantedBody,
    mount: &MountedTree,
) -> Result<Arc<Tree>, Ending> {
    let inputs = body.inputs.iter().map(|file| &file.data);
    let inputs = inputs.chain(&body.stdin).filter_map(Data::hash);
    let inputs: Vec<Hash> = inputs.collect();
    let fetch = |blobs| fetch_tree(tools, body, blobs);
    tools.trees.take(&tools.store, mount, &inputs, fetch).await
}

/// Fetches blobs of a tree, as far as they are not here.
async fn fetch_tree(
    tools: &Tools,
    body: &GrantedBody,
    mut blobs: Vec<(Hash, u64)>,
) -> Result<(), Ending> {
    blobs.retain(|(hash, _)| !tools.store.has(*hash));
    if blobs.is_empty() {
        return Ok(());
    }
    let grants = Grants::open(&body.grants);
    judge(&grants.fetch(&tools.fetcher, &blobs, &body.sources).await)
}

/// Checks that this worker can show a tree at a path.
fn check_mount(tools: &Tools, at: &str) -> Result<(), Ending> {
    let cannot = |why: String| {
        Err(Ending::Input {
            missing: Vec::new(),
            why,
        })
    };
    if !tools.runner.has_view() {
        return cannot(format!(
            "the tree for {at:?} cannot be shown: this worker's tasks have no view of their own, see `hedge doctor`"
        ));
    }
    let (at, own) = (Path::new(at), tools.runner.scratch_base());
    if at.starts_with(own) || own.starts_with(at) {
        return cannot(format!(
            "a tree cannot lie at {at:?}: this worker's scratch directories are in {own:?}"
        ));
    }
    Ok(())
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
    judge(&lacking)
}

/// Returns how an attempt ends whose blobs could not be fetched.
fn judge(lacking: &[FetchError]) -> Result<(), Ending> {
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
