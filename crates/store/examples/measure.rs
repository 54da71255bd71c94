//! Measures the journal: `cargo run --release -p hedge-store --example measure -- throughput|restart|snapshot [FOLDER]`.
//!
//! Records have about 200 bytes. Members of a group are in this one process and speak by function calls, so the
//! figures show the log, the disk and the agreement, not a network.

use bytes::Bytes;
use hedge_model::record::{JobEnd, Record};
use hedge_model::{JobId, PeerAddr, PeerId, Time};
use hedge_store::{GroupMember, Journal, JournalEvent, Options, Place, StoreError, Transport};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(3);

/// Records in the log before a restart.
const RESTART_RECORDS: u64 = 1_000_000;

/// Bytes of state in the snapshot that is made while records are written.
const STATE_BYTES: usize = 100 << 20;

#[derive(Clone, Default)]
struct Hub(Arc<Mutex<BTreeMap<PeerId, Journal>>>);

struct Line(Hub, PeerId);

impl Transport for Line {
    async fn call(&self, to: &GroupMember, request: Bytes, _limit: Duration) -> io::Result<Bytes> {
        let journal = {
            let journals = self.0.0.lock().map_err(|_| io::Error::other("poisoned"))?;
            journals.get(&to.peer.peer).cloned()
        };
        match journal {
            Some(journal) => Ok(journal.answer(self.1, request).await),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

fn member(number: u8) -> GroupMember {
    GroupMember {
        peer: PeerAddr {
            peer: PeerId([number; 32]),
            addrs: Vec::new(),
        },
        format_max: 1,
    }
}

fn record(number: u64) -> Record {
    Record::JobEnded {
        job: JobId(number),
        end: JobEnd::Failed {
            task: None,
            why: "x".repeat(185),
        },
        stopped: Vec::new(),
        at: Time(number),
    }
}

async fn open(
    hub: &Hub,
    options: Options,
) -> Result<(Journal, mpsc::Receiver<JournalEvent>), StoreError> {
    let peer = options.me.peer.peer;
    let (journal, said) = Journal::open(options, Line(hub.clone(), peer)).await?;
    if let Ok(mut journals) = hub.0.lock() {
        journals.insert(peer, journal.clone());
    }
    Ok((journal, said))
}

/// Gives snapshots without content and forgets everything else.
async fn ignore(mut said: mpsc::Receiver<JournalEvent>) {
    while let Some(one) = said.recv().await {
        if let JournalEvent::Snapshot(request) = one {
            request.give(Box::new(|_| Ok(())));
        }
    }
}

async fn lead(said: &mut mpsc::Receiver<JournalEvent>) -> Result<(), Failure> {
    while let Some(one) = said.recv().await {
        match one {
            JournalEvent::Lead { .. } => return Ok(()),
            JournalEvent::Failed(error) => return Err(error.into()),
            _ => {}
        }
    }
    Err("the journal ended".into())
}

/// Writes entries of so many records with so many in flight. Returns records a second, and the median and the
/// longest time from proposal to commit.
async fn write(
    journal: &Journal,
    said: &mut mpsc::Receiver<JournalEvent>,
    records: u64,
    in_flight: usize,
) -> Result<(f64, Duration, Duration), Failure> {
    let begun = Instant::now();
    let mut next = 0;
    let mut open: VecDeque<(u64, Instant)> = VecDeque::new();
    let mut took = Vec::new();
    while begun.elapsed() < SPAN || !open.is_empty() {
        while open.len() < in_flight && begun.elapsed() < SPAN {
            let batch = (next..next + records).map(record).collect();
            if journal.propose(next, batch).is_err() {
                break;
            }
            open.push_back((next, Instant::now()));
            next += records;
        }
        match said.recv().await {
            Some(JournalEvent::Committed {
                first: Some(first), ..
            }) => {
                let (expected, at) = open.pop_front().ok_or("a commit that was not proposed")?;
                if expected != first {
                    return Err("commits out of order".into());
                }
                took.push(at.elapsed());
            }
            Some(JournalEvent::Snapshot(request)) => request.give(Box::new(|_| Ok(()))),
            Some(JournalEvent::Committed { .. }) => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    let rate = next as f64 / begun.elapsed().as_secs_f64();
    took.sort();
    let longest = took.last().copied().unwrap_or_default();
    Ok((
        rate,
        took.get(took.len() / 2).copied().unwrap_or_default(),
        longest,
    ))
}

async fn throughput(folder: &Path) -> Result<(), Failure> {
    println!("place, voters, records per entry, in flight: records/s (median, longest)");
    for voters in [1_u8, 3] {
        for disk in [false, true] {
            let hub = Hub::default();
            let base = folder.join(format!("throughput-{voters}-{disk}"));
            let place = |number: u8| match disk {
                false => Place::Memory,
                true => Place::Disk(base.join(number.to_string())),
            };
            let (journal, mut said) = open(&hub, Options::new(place(1), member(1))).await?;
            journal.found().await?;
            lead(&mut said).await?;
            let mut others = Vec::new();
            for number in 2..=voters {
                let (other, heard) =
                    open(&hub, Options::new(place(number), member(number))).await?;
                tokio::spawn(ignore(heard));
                journal.add(other.id(), member(number)).await?;
                journal.promote(other.id()).await?;
                others.push(other);
            }
            let place = if disk { "disk" } else { "memory" };
            for (records, in_flight) in [(1, 1), (1, 64), (1, 1024), (100, 64), (1000, 16)] {
                let (rate, median, longest) =
                    write(&journal, &mut said, records, in_flight).await?;
                println!(
                    "{place}, {voters}, {records}, {in_flight}: {rate:.0} ({median:?}, {longest:?})"
                );
            }
            for one in others.iter().chain([&journal]) {
                one.close().await;
            }
            let _ = std::fs::remove_dir_all(&base);
        }
    }
    Ok(())
}

async fn restart(folder: &Path) -> Result<(), Failure> {
    for per_entry in [1, 100] {
        let place = folder.join(format!("restart-{per_entry}"));
        let options = || Options {
            snapshot_records: u64::MAX,
            snapshot_bytes: u64::MAX,
            ..Options::new(Place::Disk(place.clone()), member(1))
        };
        let hub = Hub::default();
        let (journal, mut said) = open(&hub, options()).await?;
        journal.found().await?;
        lead(&mut said).await?;
        let mut next = 0;
        let mut committed = 0;
        while committed < RESTART_RECORDS {
            while next < RESTART_RECORDS {
                let batch = (next..next + per_entry).map(record).collect();
                if journal.propose(next, batch).is_err() {
                    break;
                }
                next += per_entry;
            }
            if let Some(JournalEvent::Committed { records, .. }) = said.recv().await {
                committed += records.len() as u64;
            }
        }
        journal.close().await;
        drop((journal, said));
        let begun = Instant::now();
        let (journal, mut said) = open(&Hub::default(), options()).await?;
        let opened = begun.elapsed();
        lead(&mut said).await?;
        println!(
            "{RESTART_RECORDS} records, {per_entry} per entry: open after {opened:?}, leading after {:?}",
            begun.elapsed()
        );
        journal.close().await;
        let _ = std::fs::remove_dir_all(&place);
    }
    Ok(())
}

async fn snapshot(folder: &Path) -> Result<(), Failure> {
    let place = folder.join("snapshot");
    let hub = Hub::default();
    let options = Options {
        snapshot_records: 1000,
        ..Options::new(Place::Disk(place.clone()), member(1))
    };
    let (journal, mut said) = open(&hub, options).await?;
    journal.found().await?;
    lead(&mut said).await?;
    let state = Arc::new(vec![7_u8; STATE_BYTES]);
    let (mut quiet, mut busy) = (Vec::new(), Vec::new());
    let done = Arc::new(Mutex::new(None::<Duration>));
    let mut begun = None;
    let mut after = 0;
    for number in 0.. {
        let at = Instant::now();
        let making = begun.is_some() && done.lock().map_err(|_| "poisoned")?.is_none();
        if journal.propose(number, vec![record(number)]).is_err() {
            return Err("the queue is full with one proposal".into());
        }
        loop {
            match said.recv().await {
                Some(JournalEvent::Committed { first, .. }) if first == Some(number) => break,
                Some(JournalEvent::Snapshot(request)) if begun.is_none() => {
                    let start = Instant::now();
                    begun = Some(start);
                    let (state, done) = (state.clone(), done.clone());
                    request.give(Box::new(move |out| {
                        let written = out.write_all(&state);
                        if let Ok(mut done) = done.lock() {
                            *done = Some(start.elapsed());
                        }
                        written
                    }));
                }
                Some(JournalEvent::Snapshot(request)) => request.give(Box::new(|_| Ok(()))),
                other => return Err(format!("{other:?}").into()),
            }
        }
        match making {
            true => busy.push(at.elapsed()),
            false => quiet.push(at.elapsed()),
        }
        if begun.is_some() && !making {
            after += 1;
            if after > 2000 {
                break;
            }
        }
    }
    let took = *done.lock().map_err(|_| "poisoned")?;
    for (name, mut times) in [("otherwise", quiet), ("while a snapshot is made", busy)] {
        times.sort();
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied();
        println!(
            "{name}: {} commits one after the other, median {:?}, 99 % {:?}, longest {:?}",
            times.len(),
            at(0.5),
            at(0.99),
            times.last()
        );
    }
    println!("snapshot of {} MiB: written in {took:?}", STATE_BYTES >> 20);
    journal.close().await;
    let _ = std::fs::remove_dir_all(&place);
    Ok(())
}

fn main() -> Result<(), Failure> {
    // RUST_LOG shows what the agreement does.
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(io::stderr)
        .init();
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let folder = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("hedge-measure-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = match what.as_str() {
        "throughput" => runtime.block_on(throughput(&folder)),
        "restart" => runtime.block_on(restart(&folder)),
        "snapshot" => runtime.block_on(snapshot(&folder)),
        _ => Err("say throughput, restart or snapshot".into()),
    };
    let _ = std::fs::remove_dir_all(&folder);
    done
}
