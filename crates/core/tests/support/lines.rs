//! What a supervisor does, in short lines to compare.

use hedge_core::monitor::Attention;
use hedge_core::supervisor::{Action, Effects, GrantRequest};
use hedge_model::ending::Fault;
use hedge_model::msg::{GrantedReply, PrintedView, Refusal, Reply, ToWorker};
use hedge_model::record::{JobEnd, Record};
use hedge_model::{Ending, Hash, PeerId};

fn peer(id: PeerId) -> String {
    match id.0[0] {
        number @ 100.. => format!("client {}", number - 100),
        number => format!("worker {number}"),
    }
}

fn hashes(hashes: &[Hash]) -> String {
    let names: Vec<String> = hashes.iter().map(|hash| hash.0[0].to_string()).collect();
    names.join(" ")
}

fn granted(grant: &GrantRequest) -> String {
    match &grant.blobs[..] {
        [] => String::new(),
        blobs => format!(", may read {}", hashes(blobs)),
    }
}

/// What an event leads to, in short lines: records, then actions.
pub fn lines(effects: &Effects) -> Vec<String> {
    let proposals = effects.proposals.iter();
    let records = proposals.map(|one| format!("append {}", record_line(&one.record)));
    records.chain(effects.actions.iter().map(line)).collect()
}

/// An action in one short line.
pub fn line(action: &Action) -> String {
    match action {
        Action::Send { to, msg } => format!("{}: {}", peer(*to), order_line(msg)),
        Action::SendBody { to, body, grant } => {
            assert_eq!(grant.reader, *to, "leave for another peer");
            let (id, version) = (&body.id, body.version);
            format!("{}: body {id} v{version}{}", peer(*to), granted(grant))
        }
        Action::SendAssignment { to, order } => {
            let (id, grant) = (order.order.attempt, &order.grant);
            assert_eq!(grant.reader, *to, "leave for another peer");
            format!("{}: assign {id}{}", peer(*to), granted(grant))
        }
        Action::Answer { to, answer } => {
            let (id, reply) = (answer.id, &answer.reply);
            format!("{} #{id}: {}", peer(*to), reply_line(reply))
        }
        Action::AnswerWorkers { to, id, workers } => {
            format!("{} #{id}: {} workers", peer(*to), workers.len())
        }
        Action::AnswerGranted {
            to,
            id,
            reply,
            grant,
        } => {
            assert_eq!(grant.reader, *to, "leave for another peer");
            let reply = match reply {
                GrantedReply::Results(view) => format!("{} results", view.files.len()),
                GrantedReply::Log(view) => format!("log of task {}: {}", view.task, view.end),
                GrantedReply::Printed { log, last } => {
                    let attempt = log.attempt.map_or("none".to_owned(), |id| id.to_string());
                    let kept = if log.log.is_some() { "a log" } else { "no log" };
                    let last = if *last { ", the last" } else { "" };
                    format!("over {attempt}: {}, {kept}{last}", log.end)
                }
            };
            format!("{} #{id}: {reply}{}", peer(*to), granted(grant))
        }
        Action::Watch {
            peer: who,
            attention,
        } => match attention {
            None => format!("stop watching {}", peer(*who)),
            Some(Attention::Idle) => format!("watch {}: idle", peer(*who)),
            Some(Attention::Assigned) => format!("watch {}: assigned", peer(*who)),
            Some(Attention::Critical) => format!("watch {}: critical", peer(*who)),
        },
        Action::WatchSettings(_) => "watch settings".into(),
        Action::MeasureLink { peer: who, most } => {
            format!("measure {}: {} bytes", peer(*who), most.bytes)
        }
        Action::LinkRate { peer: who, rate } => format!("link {}: {rate}", peer(*who)),
        Action::Admit { peer: who, refused } => format!("admit {}: {refused:?}", peer(*who)),
        Action::Fetch { hash, sources, .. } => {
            let from: Vec<String> = sources.iter().map(|source| peer(source.peer)).collect();
            format!("pull {} from {}", hash.0[0], from.join(", "))
        }
        Action::Prove { holder, blobs } => {
            let blobs: Vec<Hash> = blobs.iter().map(|(hash, _)| *hash).collect();
            format!("{}: prove {}", peer(holder.peer), hashes(&blobs))
        }
        Action::Drop(dropped) => format!("drop {}", hashes(dropped)),
        Action::Tell { to, reply } => format!("{}: {}", peer(*to), reply_line(reply)),
        Action::ToSupervisor { to, msg } => format!("{}: {:?}", peer(*to), msg.what),
        Action::ToLeader { to, msg } => format!("{}: {msg:?}", peer(*to)),
        Action::TellHoldings { to } => format!("{}: holdings", peer(*to)),
        Action::Expel(who) => format!("expel {}", peer(*who)),
    }
}

fn order_line(msg: &ToWorker) -> String {
    match msg {
        ToWorker::Body(_) => panic!("the core has bodies sent with leave to read their blobs"),
        ToWorker::Assign(order) => format!("assign {}", order.attempt),
        ToWorker::Cancel(id) => format!("cancel {id}"),
        ToWorker::Return(id) => format!("return {id}"),
        ToWorker::Settled(id) => format!("settled {id}"),
        ToWorker::Forget(job) => format!("forget {job}"),
        ToWorker::Drop(dropped) => format!("drop {}", hashes(dropped)),
        ToWorker::Drain => "drain".into(),
        ToWorker::Leave => "leave".into(),
        ToWorker::Benchmark => "benchmark".into(),
        ToWorker::Heartbeat(plan) => format!("heartbeat by plan {}", plan.number),
        ToWorker::Tripwire { .. } => "tripwire".into(),
        ToWorker::Probe { .. } => "probe".into(),
        ToWorker::ReadPrinted(read) => format!(
            "read {} from {}/{} #{}",
            read.attempt, read.from.stdout, read.from.stderr, read.reading
        ),
        ToWorker::Lead(epoch) => format!("lead {}", epoch.0),
        ToWorker::Supervisors(all) => format!("{} supervisors", all.len()),
        ToWorker::Relays(all) => format!("{} relays", all.len()),
        ToWorker::Revoked(peers) => format!("{} revoked", peers.len()),
    }
}

fn printed_line(view: &PrintedView) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match view {
        PrintedView::Part {
            attempt, pieces, ..
        } => {
            let (out, err) = (&pieces.stdout, &pieces.stderr);
            format!(
                "printed by {attempt}: {:?} from {} of {}, {:?} from {} of {}",
                text(&out.bytes),
                out.from,
                out.total,
                text(&err.bytes),
                err.from,
                err.total
            )
        }
        PrintedView::Over { log, .. } => format!("over, not granted: {}", log.end),
        PrintedView::Nothing { why, last } => {
            let last = if *last { ", the last" } else { "" };
            format!("nothing: {why}{last}")
        }
    }
}

fn reply_line(reply: &Reply) -> String {
    match reply {
        Reply::Accepted(job) => format!("accepted {job}"),
        Reply::Job(view) => format!(
            "job {} {:?} {}/{}",
            view.id, view.state, view.done, view.tasks
        ),
        Reply::Jobs(views) => format!("{} jobs", views.len()),
        Reply::Explain(view) => format!("explains job {}", view.job.id),
        Reply::Printed(view) => printed_line(view),
        Reply::No(Refusal { kind, why }) => format!("no, {kind:?}: {why}"),
        other => format!("{other:?}"),
    }
}

fn record_line(record: &Record) -> String {
    match record {
        Record::Epoch { epoch, .. } => format!("epoch {}", epoch.0),
        Record::JobAccepted { .. } | Record::JobAcceptedNamed { .. } => "accepted".into(),
        Record::TaskDone {
            attempt, worker, ..
        } => format!("done {attempt} by {}", peer(*worker)),
        Record::AttemptEnded { attempt, end, .. } => match (end, end.fault()) {
            (Ending::Lost, _) => format!("lost {attempt}"),
            (Ending::Vacated, _) => format!("vacated {attempt}"),
            (_, Fault::Nobody) => format!("cancelled {attempt}"),
            (_, Fault::Task) => format!("failed {attempt}: {end}"),
            (_, Fault::Worker) => format!("worker failed {attempt}: {end}"),
            (_, Fault::Input) => format!("no input {attempt}: {end}"),
        },
        Record::OutputsLost {
            task, generation, ..
        } => format!("outputs lost {task}/{generation}"),
        Record::Benchmarked { peer, .. } => format!("benchmarked {}", peer.short()),
        Record::JobEnded { job, end, .. } => match end {
            JobEnd::Done => format!("job {job} done"),
            JobEnd::Cancelled => format!("job {job} cancelled"),
            JobEnd::Failed { why, .. } => format!("job {job} failed: {why}"),
        },
        Record::TicketMade(_) => "ticket".into(),
        Record::MemberJoined { peer: who, .. } => format!("joined {}", peer(*who)),
        Record::MemberRevoked { peer: who, .. } => format!("revoked {}", peer(*who)),
        Record::Set { name, value, .. } => format!("set {name} = {value}"),
        Record::JobForgotten { job, .. } => format!("job {job} forgotten"),
        Record::Format { level, .. } => format!("format {level}"),
        Record::TaskFailed { task, .. } => format!("task {task} failed"),
        Record::Checkpointed { checkpoint, .. } => {
            let id = checkpoint.id;
            format!("checkpoint {} of {}", id.number, id.attempt)
        }
        Record::JobRetried { job, .. } => format!("job {job} retried"),
        Record::GroupsAdded { job, .. } => format!("groups added to {job}"),
        Record::ClientSeen { job, .. } => format!("client of {job} seen"),
        Record::OutputsReleased { job, tasks, .. } => format!("released in {job}: {tasks:?}"),
        Record::JobClosed { job, by, .. } => format!("job {job} closed: {by:?}"),
    }
}
