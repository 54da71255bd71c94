//! Does harm, and undoes it. What and when is drawn from the seed; only the choice of the leader depends on the run.

use super::dice::Dice;
use super::log::Log;
use super::peers::{CLIENT, Peers, SUPERVISORS, call};
use anyhow::{Context, Result};
use serde_json::json;
use std::collections::BTreeMap;
use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// One kind of harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    KillSupervisor,
    KillWorker,
    FreezeSupervisor,
    FreezeWorker,
    CutSupervisor,
    CutWorker,
    /// With the clients and some workers on the supervisor's side.
    SplitGroup,
    /// It is heard, but hears nothing of the others.
    DeafSupervisor,
    /// It hears the others, but is not heard.
    MuteSupervisor,
    JumpClock,
    FullDisk,
    /// Killed, and started again with a disk that takes its time for each flush.
    SlowDisk,
    /// Revoked while it is frozen, so that what it has in hand is reported too late; then it joins anew.
    RevokeWorker,
    RestartAll,
    RestartSupervisors,
}

/// Each kind, by its weight.
const FAULTS: &[(Fault, usize, &str)] = &[
    (Fault::KillSupervisor, 4, "kill supervisor"),
    (Fault::KillWorker, 3, "kill worker"),
    (Fault::FreezeSupervisor, 3, "freeze supervisor"),
    (Fault::FreezeWorker, 2, "freeze worker"),
    (Fault::CutSupervisor, 2, "cut supervisor"),
    (Fault::CutWorker, 2, "cut worker"),
    (Fault::SplitGroup, 3, "split group"),
    (Fault::DeafSupervisor, 2, "deaf supervisor"),
    (Fault::MuteSupervisor, 2, "mute supervisor"),
    (Fault::JumpClock, 2, "jump clock"),
    (Fault::FullDisk, 2, "full disk"),
    (Fault::SlowDisk, 2, "slow disk"),
    (Fault::RevokeWorker, 1, "revoke worker"),
    (Fault::RestartAll, 1, "restart all"),
    (Fault::RestartSupervisors, 1, "restart supervisors"),
];

/// How long harm lasts, in milliseconds: from shorter than any election to longer than workers are waited for.
const HARM_MS: Range<usize> = 100..6_000;
/// Between two harms.
const CALM_MS: Range<usize> = 200..4_000;
/// What a flush takes on a slow disk, in milliseconds: up to near the shortest election.
const SLOW_MS: u64 = 120;
/// How often a new ticket is asked for.
const TICKET_ASKED: usize = 20;
/// How long a question of the campaign itself may take.
const ASK: Duration = Duration::from_secs(2);
/// How far wall clocks jump, in seconds.
const JUMPS: [i64; 6] = [-86_400, -3_600, -5, 5, 3_600, 86_400];

/// Does harm until `until`, then undoes all of it. Gives how often it did what.
///
/// # Errors
/// The tools for it fail.
pub fn rage(
    peers: &Peers,
    log: &Log,
    mut dice: Dice,
    until: Instant,
) -> Result<BTreeMap<&'static str, u32>> {
    let mut counts = BTreeMap::new();
    // Each kind comes once in each round, in an order of its own, so that short campaigns have all of them.
    let mut round: Vec<usize> = Vec::new();
    while Instant::now() < until {
        if round.is_empty() {
            let all = FAULTS.iter().enumerate();
            round = all
                .flat_map(|(at, (_, weight, _))| vec![at; *weight])
                .collect();
            for end in (1..round.len()).rev() {
                round.swap(end, dice.among(0..end + 1));
            }
        }
        let Some((fault, _, name)) = round.pop().map(|at| FAULTS[at]) else {
            break;
        };
        let (harm, calm) = (dice.span(HARM_MS), dice.span(CALM_MS));
        let drawn = dice.next();
        let leader = leader(peers).filter(|_| !dice.once_in(3));
        let supervisor = leader.unwrap_or(dice.among(0..SUPERVISORS));
        let worker = dice.among(SUPERVISORS..CLIENT);
        log.add(
            "nemesis",
            json!({ "fault": name, "supervisor": supervisor, "leader": leader, "worker": worker, "harm_ms": harm.as_millis() as u64 }),
        );
        *counts.entry(name).or_default() += 1;
        harm_and_mend(peers, fault, supervisor, worker, harm, drawn)?;
        log.add("nemesis", json!({ "mended": name }));
        peers.tend()?;
        sleep(calm);
        peers.tend()?;
    }
    Ok(counts)
}

fn harm_and_mend(
    peers: &Peers,
    fault: Fault,
    supervisor: usize,
    worker: usize,
    harm: Duration,
    drawn: u64,
) -> Result<()> {
    let others: Vec<usize> = (0..SUPERVISORS).filter(|one| *one != supervisor).collect();
    match fault {
        Fault::KillSupervisor => restart(peers, &[supervisor], harm),
        Fault::KillWorker => restart(peers, &[worker], harm),
        Fault::RestartAll => restart(peers, &(0..CLIENT).collect::<Vec<_>>(), harm / 4),
        Fault::RestartSupervisors => {
            restart(peers, &(0..SUPERVISORS).collect::<Vec<_>>(), harm / 4)
        }
        Fault::FreezeSupervisor => freeze(peers, supervisor, harm),
        Fault::FreezeWorker => freeze(peers, worker, harm),
        Fault::CutSupervisor => {
            peers.lab.cut(supervisor)?;
            mended(peers, supervisor, harm)
        }
        Fault::CutWorker => {
            peers.lab.cut(worker)?;
            mended(peers, worker, harm)
        }
        Fault::SplitGroup => {
            // Two of the workers stay with it.
            let first = SUPERVISORS + (drawn % (CLIENT - SUPERVISORS) as u64) as usize;
            let far = (SUPERVISORS..CLIENT).filter(|one| *one != first && *one != worker);
            let far: Vec<usize> = others.iter().copied().chain(far).collect();
            peers.lab.deafen(supervisor, &far)?;
            peers.lab.mute(supervisor, &far)?;
            mended(peers, supervisor, harm)
        }
        Fault::DeafSupervisor => {
            peers.lab.deafen(supervisor, &others)?;
            mended(peers, supervisor, harm)
        }
        Fault::MuteSupervisor => {
            peers.lab.mute(supervisor, &others)?;
            mended(peers, supervisor, harm)
        }
        Fault::JumpClock => {
            let jump = JUMPS[(drawn % JUMPS.len() as u64) as usize];
            let whose = if drawn & 64 == 0 { supervisor } else { worker };
            peers.shift_clock(whose, jump);
            sleep(harm);
            peers.shift_clock(whose, 0);
            Ok(())
        }
        Fault::FullDisk => {
            peers.fill_disk(supervisor);
            sleep(harm);
            peers.free_disk(supervisor);
            Ok(())
        }
        Fault::SlowDisk => {
            peers.kill(supervisor);
            peers.start_on_slow_disk(supervisor, 1 + drawn % SLOW_MS)?;
            sleep(2 * harm);
            restart(peers, &[supervisor], Duration::ZERO)
        }
        Fault::RevokeWorker => revoke(peers, worker, harm),
    }
}

/// Shuts a worker out that cannot hear of it, lets it report what it has, and has it join under another name.
fn revoke(peers: &Peers, worker: usize, harm: Duration) -> Result<()> {
    let ask = |args: &[&str]| {
        let asked = call(&mut peers.client(&peers.home(CLIENT), args), ASK);
        asked.ok().and_then(|asked| asked.value())
    };
    let pid = peers.pid(worker);
    let workers = ask(&["workers"]);
    let workers = workers.iter().flat_map(|all| all.as_array()).flatten();
    let known = workers.filter(|one| one["pid"].as_u64() == pid);
    let id = known.filter_map(|one| one["peer"].as_str()).next();
    peers.signal(worker, "-STOP");
    let shut_out = id.and_then(|id| ask(&["revoke", id, "--yes"]));
    sleep(harm);
    peers.signal(worker, "-CONT");
    if shut_out.is_some() {
        sleep(harm);
        peers.kill(worker);
        peers.forget(worker)?;
        // The ticket by which it had joined was revoked with it.
        let renewed = (0..TICKET_ASKED).find_map(|_| ask(&["ticket", "worker"]));
        let renewed = renewed.and_then(|made| Some(made["ticket"].as_str()?.to_owned()));
        peers.use_worker_ticket(renewed.context("no ticket for workers")?);
    }
    peers.start(worker)
}

fn restart(peers: &Peers, all: &[usize], pause: Duration) -> Result<()> {
    all.iter().for_each(|one| peers.kill(*one));
    sleep(pause);
    all.iter().try_for_each(|one| peers.start(*one))
}

fn freeze(peers: &Peers, number: usize, harm: Duration) -> Result<()> {
    peers.signal(number, "-STOP");
    sleep(harm);
    peers.signal(number, "-CONT");
    Ok(())
}

fn mended(peers: &Peers, number: usize, harm: Duration) -> Result<()> {
    sleep(harm);
    peers.lab.mend(number)
}

/// Which supervisor leads, where that can be learned soon.
fn leader(peers: &Peers) -> Option<usize> {
    let folder = peers.home(CLIENT);
    let members = call(&mut peers.client(&folder, &["members"]), ASK);
    let members = members.ok()?.value()?;
    let leader = members
        .as_array()?
        .iter()
        .find(|one| one["place"] == "leader")?;
    let id = leader["peer"].as_str()?;
    (0..SUPERVISORS).find(|number| peers.id(*number).as_deref() == Some(id))
}
