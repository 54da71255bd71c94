//! Writes records into a journal on disk for as long as it lives, and prints the number of each one when it is
//! committed: `scribe FOLDER`. The tests kill it.

use bytes::Bytes;
use hedge_model::record::Record;
use hedge_model::{JobId, PeerAddr, PeerId, TaskId, Time};
use hedge_store::{GroupMember, Journal, JournalEvent, Options, Place, Transport};
use std::io::{self, Write};
use std::time::Duration;

struct Nobody;

impl Transport for Nobody {
    async fn call(
        &self,
        _to: &GroupMember,
        _request: Bytes,
        _limit: Duration,
    ) -> io::Result<Bytes> {
        Err(io::ErrorKind::NotConnected.into())
    }
}

fn record(number: u64) -> Record {
    Record::OutputsLost {
        task: TaskId {
            job: JobId(number),
            number: 0,
        },
        generation: 1,
        at: Time(0),
    }
}

fn number(record: &Record) -> u64 {
    match record {
        Record::OutputsLost { task, .. } => task.job.0,
        _ => 0,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("say which folder")?;
    let me = GroupMember {
        peer: PeerAddr {
            peer: PeerId([1; 32]),
            addrs: Vec::new(),
        },
        format_max: 1,
    };
    let options = Options {
        segment_bytes: 256 << 10,
        snapshot_records: 20_000,
        ..Options::new(Place::Disk(folder.into()), me)
    };
    let (journal, mut said) = Journal::open(options, Nobody).await?;
    if !journal.founded() {
        journal.found().await?;
    }
    let mut out = io::stdout().lock();
    let mut last = 0;
    let mut leads = false;
    let mut next = 0;
    while let Some(one) = said.recv().await {
        match one {
            JournalEvent::Restore { state, .. } => {
                let bytes = state.first_chunk().copied();
                last = bytes.map_or(0, u64::from_le_bytes);
            }
            JournalEvent::Committed { first, records, .. } => {
                last = records.last().map_or(last, number);
                if first.is_some() {
                    writeln!(out, "{last}")?;
                    out.flush()?;
                }
            }
            JournalEvent::Snapshot(request) => {
                request.give(Box::new(move |out| out.write_all(&last.to_le_bytes())));
            }
            JournalEvent::Lead { .. } => {
                leads = true;
                next = last + 1;
            }
            other => return Err(format!("{other:?}").into()),
        }
        while leads && journal.propose(next, vec![record(next)]).is_ok() {
            next += 1;
        }
    }
    Ok(())
}
