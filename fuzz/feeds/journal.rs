//! What a supervisor reads from its disk and from other supervisors: records of each format, and snapshots.

use hedge_core::supervisor::State;
use hedge_model::record::{self, FORMAT_MAX};

/// One byte says what is read. Records are also applied, over and over, to a state that grows.
pub fn journal(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    let level = u32::from(*kind) % (FORMAT_MAX + 3);
    if level == FORMAT_MAX + 2 {
        snapshot(bytes);
    } else if let Ok(records) = record::decode(level, bytes) {
        let written = record::encode(level, &records).expect("what was read can be written");
        // By their bytes: a number that is none is not even equal to itself.
        let again = record::decode(level, &written).expect("what was written can be read");
        assert_eq!(record::encode(level, &again).as_ref(), Ok(&written));
        let mut state = State::default();
        for record in records.iter().chain(&again) {
            let tasks = match record {
                record::Record::JobAccepted { spec, .. }
                | record::Record::JobAcceptedNamed { spec, .. } => spec.task_count(),
                _ => 0,
            };
            // A job of millions of tasks is lawful and slow, which is not looked for here.
            if tasks < 10_000 {
                state.apply(record);
            }
        }
        let mut bytes = Vec::new();
        state.write(&mut bytes).expect("memory takes all");
        State::restore(&bytes).expect("a snapshot that was written can be read");
    }
}

fn snapshot(bytes: &[u8]) {
    let Ok(state) = State::restore(bytes) else {
        return;
    };
    let mut written = Vec::new();
    state.write(&mut written).expect("memory takes all");
    State::restore(&written).expect("a snapshot that was written can be read");
}
