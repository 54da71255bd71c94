//! Every message that a peer can send, decoded as the transport does: a batch of one type.

use hedge_model::group::{FromLeader, ToLeader};
use hedge_model::msg::{
    Answer, Ask, FromWorker, Heartbeat, Request, Role, StatusRequest, ToWorker, Welcome,
};
use hedge_model::tree::{MANIFEST_MAGIC, Manifest};
use hedge_model::{Data, JobSpec};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One byte says which type, the others are the batch. What can be read must be the same when it is written
/// and read again.
pub fn wire(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    match kind % 12 {
        0 => batch::<FromWorker>(bytes),
        1 => batch::<ToWorker>(bytes),
        2 => asks(bytes),
        3 => batch::<Answer>(bytes),
        4 => batch::<FromLeader>(bytes),
        5 => batch::<ToLeader>(bytes),
        6 => heartbeat(bytes),
        7 => one::<StatusRequest>(bytes),
        8 => one::<Welcome>(bytes),
        9 => one::<JobSpec>(bytes),
        10 => one::<Role>(bytes),
        _ => manifest(bytes),
    }
}

/// The list of a tree's entries, without its first bytes.
fn manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::decode(&[MANIFEST_MAGIC, bytes].concat()) else {
        return;
    };
    let written = manifest.encode().expect("what was read can be written");
    assert_eq!(Manifest::decode(&written), Ok(manifest));
}

fn heartbeat(bytes: &[u8]) {
    let Ok(heartbeat) = Heartbeat::decode(bytes) else {
        return;
    };
    let written = heartbeat.encode().expect("what was read can be written");
    assert_eq!(Heartbeat::decode(&written), Ok(heartbeat));
}

fn batch<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
    one::<Vec<T>>(bytes);
}

fn one<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
    let Ok((value, _)) = postcard::take_from_bytes::<T>(bytes) else {
        return;
    };
    let written = postcard::to_stdvec(&value).expect("what was read can be written");
    let again: T = postcard::from_bytes(&written).expect("what was written can be read");
    let twice = postcard::to_stdvec(&again).expect("what was read can be written");
    assert_eq!(written, twice, "a message changes on its way");
}

/// A submission carries its job within.
fn asks(bytes: &[u8]) {
    batch::<Ask>(bytes);
    let Ok((asks, _)) = postcard::take_from_bytes::<Vec<Ask>>(bytes) else {
        return;
    };
    for ask in asks {
        if let Request::Submit {
            spec: Data::Inline(spec),
            ..
        } = ask.request
        {
            one::<JobSpec>(&spec);
        }
    }
}
