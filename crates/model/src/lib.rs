//! Plain data of Hedgerow: ids, units, the job specification (valid by construction), messages between peers, journal
//! records and views. This crate performs no I/O and makes no decisions; every other crate depends on it.

pub mod capacity;
pub mod data;
pub mod ending;
pub mod group;
pub mod ids;
pub mod ledger;
pub mod msg;
pub mod owner;
pub mod record;
pub mod resources;
pub mod settings;
pub mod spec;
pub mod tree;
pub mod units;
pub mod view;

pub use data::{Checkpoint, Data, FileEntry, InputServer, PeerAddr, Source};
pub use ending::Ending;
pub use ids::{AttemptId, CheckpointId, Epoch, Hash, JobId, PeerId, SubmitKey, TaskId};
pub use owner::{Activity, Signal};
pub use resources::{Amount, Resources};
pub use settings::Settings;
pub use spec::JobSpec;
pub use units::Time;
