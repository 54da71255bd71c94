//! What the store holds.

use hedge_model::Hash;
use std::collections::HashMap;
use std::fs::Metadata;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// A file's bytes are hashed again before they are handed out where that was done last longer ago than this. A disk
/// that loses bytes is noticed by it; for a file that was written to, its time of change tells.
const CHECK_AFTER: Duration = Duration::from_secs(600);

pub(super) type Catalog = HashMap<Hash, Held>;

/// A blob that is held.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub size: u64,
    /// The file elsewhere where the content lies; none for a file of the store.
    pub outside: Option<Arc<Path>>,
    checked: Option<Checked>,
}

/// When a file was found to have the content that its hash says, and the file's time of change then.
#[derive(Clone, Copy, Debug)]
struct Checked {
    at: Instant,
    changed: Option<SystemTime>,
}

impl Held {
    /// A file of the store whose content nobody has looked at.
    pub fn unchecked(size: u64) -> Held {
        Held {
            size,
            outside: None,
            checked: None,
        }
    }

    /// A file elsewhere.
    pub fn outside(size: u64, path: Arc<Path>) -> Held {
        Held {
            outside: Some(path),
            ..Held::unchecked(size)
        }
    }

    /// Notes that the file that this is about has the right content.
    pub fn checked(mut self, about: &Metadata) -> Held {
        self.checked = Some(Checked {
            at: Instant::now(),
            changed: about.modified().ok(),
        });
        self
    }

    /// Whether the file has to be hashed before its bytes are handed out.
    pub fn needs_check(&self, about: &Metadata) -> bool {
        let unchanged = |checked: &Checked| checked.changed == about.modified().ok();
        let recent = |checked: &Checked| checked.at.elapsed() < CHECK_AFTER;
        about.len() != self.size || !self.checked.is_some_and(|it| recent(&it) && unchanged(&it))
    }
}
