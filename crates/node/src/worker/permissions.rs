//! What one attempt may use of this machine.

use super::gpus::HeldGpus;
use super::staging::MountedAt;
use hedge_exec::{MountedFolder, Permissions, SharedFolder};
use hedge_model::Ending;
use hedge_model::msg::Body;
use std::path::PathBuf;

/// Returns what an attempt may use: of the folders that the owner shares those that it asks for, its GPUs, and the trees
/// that it sees. The error is its ending if a shared folder is not there.
pub(super) fn permissions(
    shares: &[(String, SharedFolder)],
    body: &Body,
    gpus: &HeldGpus,
    trees: &[MountedAt],
) -> Result<Permissions, Ending> {
    let mut permissions = Permissions {
        network: body.network,
        mounts: mounted(trees),
        ..Permissions::default()
    };
    for name in &body.shares {
        let found = shares.iter().find(|(known, _)| **known == **name);
        let Some((_, folder)) = found.filter(|(_, folder)| folder.path.is_dir()) else {
            let why = format!("the shared folder {name:?} is not there");
            return Err(Ending::worker(why));
        };
        permissions.shares.push(folder.clone());
    }
    gpus.permit(&mut permissions);
    Ok(permissions)
}

/// Returns the path that an attempt starts in, if that is not its scratch directory. The folder is one that
/// [`permissions`] has found.
pub(super) fn cwd(shares: &[(String, SharedFolder)], body: &Body) -> Option<PathBuf> {
    let (name, below) = body.cwd.split_once('/').unwrap_or((&body.cwd, ""));
    let mut all = shares.iter();
    let (_, folder) = all.find(|(known, _)| known == name)?;
    Some(match below {
        "" => folder.path.clone(),
        below => folder.path.join(below),
    })
}

/// The trees that an attempt sees.
fn mounted(trees: &[MountedAt]) -> Vec<MountedFolder> {
    let each = trees.iter().map(|(tree, at)| MountedFolder {
        from: tree.root(),
        at: PathBuf::from(&**at),
    });
    each.collect()
}
