//! Heartbeats of this version and of one that says nothing of owners, read by each other.

use hedge_model::msg::Heartbeat;
use hedge_model::owner::{Activity, Cause, OwnerNote, OwnerResponse, OwnerState};
use std::time::Duration;

#[test]
fn what_earlier_versions_read_and_write_is_a_heartbeat_without_an_owner() {
    let plain = Heartbeat {
        seq: 7,
        in_hand: 2,
        ..Heartbeat::default()
    };
    let state = OwnerState {
        change: 300,
        response: OwnerResponse::Pause,
        why: vec![Cause::Activity(Activity::Mouse), Cause::Battery],
        away: Duration::from_secs(5),
    };
    let told = Heartbeat {
        owner: Some(OwnerNote::from(&state)),
        ..plain.clone()
    };
    let (old, new) = (postcard::to_stdvec(&plain).unwrap(), told.encode().unwrap());
    assert_eq!(plain.encode().unwrap(), old);
    assert_eq!(Heartbeat::decode(&old), Ok(plain.clone()));
    assert_eq!(postcard::from_bytes(&new), Ok(plain));
    let read = Heartbeat::decode(&new).unwrap();
    assert_eq!(read.owner.map(OwnerState::from), Some(state));
    assert!(Heartbeat::decode(&new[..new.len() - 1]).is_err());
}

#[test]
fn every_cause_comes_back_from_its_bit() {
    let state = OwnerState {
        why: Cause::ALL.to_vec(),
        ..OwnerState::default()
    };
    assert_eq!(OwnerState::from(OwnerNote::from(&state)), state);
    for kind in Activity::ALL {
        assert!(Cause::ALL.contains(&Cause::Activity(kind)));
    }
}
