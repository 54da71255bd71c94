//! The worker alone: whom it obeys, what it starts, what it keeps until it is told that it is settled.

use hedge_core::worker::{Action, Event, Worker};
use hedge_model::capacity::BenchScores;
use hedge_model::msg::{
    Assignment, Body, FromWorker, GrantedBody, Grants, HeldAttempt, Log, Outcome, Report, Seal,
    ToWorker, Usage,
};
use hedge_model::spec::{CheckpointRule, Runtime};
use hedge_model::{
    AttemptId, Checkpoint, CheckpointId, Data, Ending, Epoch, FileEntry, Hash, JobId, Resources,
    TaskId, Time,
};
use std::sync::Arc;
use std::time::Duration;

/// A worker with what it wants done since the last look; what is not looked at fails the test.
struct Rig {
    core: Worker,
    now: Time,
    out: Vec<Action>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.said(), Vec::<String>::new(), "left over");
        }
    }
}

impl Rig {
    /// Two CPUs, connected to the leader of epoch 1, which told it what group 0 of job 1 is.
    fn new() -> Self {
        let mut rig = Self {
            core: Worker::new(Resources::cpus(2000)),
            now: Time(0),
            out: Vec::new(),
        };
        rig.event(Event::Connected(Epoch(1)));
        rig.order(1, ToWorker::Body(body(Runtime::Process)));
        rig
    }

    fn event(&mut self, event: Event) {
        self.now = self.now + Duration::from_millis(10);
        self.core.handle(self.now, event, &mut self.out);
    }

    fn order(&mut self, epoch: u64, order: ToWorker) {
        self.event(Event::Order(Epoch(epoch), order));
    }

    fn assign(&mut self, epoch: u64, task: u32) {
        self.order(epoch, ToWorker::Assign(order(id(epoch, task))));
    }

    fn staged(&mut self, id: AttemptId) {
        self.event(Event::Staged(id, Ok(())));
    }

    fn finished(&mut self, attempt: AttemptId, outcome: Outcome) {
        let report = Report {
            attempt,
            outcome,
            usage: Usage::default(),
            log: None,
        };
        self.event(Event::Finished(Box::new(report)));
    }

    fn said(&mut self) -> Vec<String> {
        self.out.drain(..).map(line).collect()
    }

    fn skip_told(&mut self) {
        self.out.retain(|action| !matches!(action, Action::Tell(_)));
    }

    #[track_caller]
    fn expect(&mut self, expected: &[&str]) {
        let said = self.said();
        assert_eq!(said, expected);
    }
}

fn line(action: Action) -> String {
    let hashes = |hashes: &[Hash]| {
        let names: Vec<String> = hashes.iter().map(|hash| hash.0[0].to_string()).collect();
        names.join(" ")
    };
    match action {
        Action::Stage(_, order) => format!("stage {}", order.attempt),
        Action::Start(_, order) => format!("start {}", order.attempt),
        Action::End(id) => format!("end {id}"),
        Action::Stop(id, grace) => format!("stop {id} within {grace:?}"),
        Action::Pause(on) => format!("pause {on}"),
        Action::Lower(on) => format!("lower {on}"),
        Action::Tell(FromWorker::Started(id)) => format!("tell started {id}"),
        Action::Tell(FromWorker::Ended(report)) => match report.outcome {
            Outcome::Done(_) => format!("tell done {}", report.attempt),
            Outcome::Ended(end) => format!("tell {}: {end}", report.attempt),
            other => format!("tell {} {other:?}", report.attempt),
        },
        Action::Tell(FromWorker::Checkpoint(report)) => {
            let id = report.id;
            format!("tell checkpoint {} of {}", id.number, id.attempt)
        }
        Action::Tell(other) => format!("tell {other:?}"),
        Action::Drop(dropped) => format!("drop {}", hashes(&dropped)),
        Action::Benchmark => "benchmark".into(),
        Action::EndBenchmark => "end benchmark".into(),
        Action::Leave => "leave".into(),
    }
}

fn id(epoch: u64, task: u32) -> AttemptId {
    AttemptId {
        task: TaskId {
            job: JobId(1),
            number: task,
        },
        generation: 0,
        epoch: Epoch(epoch),
        number: 1,
    }
}

fn order(attempt: AttemptId) -> Assignment {
    Assignment {
        attempt,
        group: 0,
        version: 1,
        index: None,
        own: None,
        redundant: false,
        seal: Seal([3; 16]),
    }
}

fn blob(number: u8) -> FileEntry {
    FileEntry {
        path: "file".into(),
        executable: false,
        data: Data::Blob {
            hash: Hash([number; 32]),
            size: 1 << 20,
        },
    }
}

fn body(runtime: Runtime) -> Arc<GrantedBody> {
    let body = Body {
        job: JobId(1),
        group: 0,
        version: 1,
        id: "a".into(),
        runtime,
        preload: Vec::new(),
        parameters: Vec::new(),
        command: vec!["true".into()],
        env: Vec::new(),
        stdin: None,
        inputs: vec![blob(1)],
        outputs: vec!["out".into()],
        inline_max: 0,
        printed_max: 0,
        resources: Resources::cpus(1000),
        time_limit: None,
        shares: Vec::new(),
        cwd: String::new(),
        network: None,
        checkpoint: None,
        mounts: Vec::new(),
        sources: Vec::new(),
    };
    let (body, grants) = (Arc::new(body), Grants::default());
    Arc::new(GrantedBody { body, grants })
}

#[test]
fn an_old_leader_that_wakes_is_not_obeyed() {
    let mut rig = Rig::new();
    rig.assign(1, 0);
    rig.staged(id(1, 0));
    rig.expect(&[
        "stage 1.0/0.1.1",
        "start 1.0/0.1.1",
        "tell started 1.0/0.1.1",
    ]);
    rig.event(Event::Disconnected);
    rig.event(Event::Connected(Epoch(2)));
    rig.expect(&["tell started 1.0/0.1.1"]);
    // The leader of epoch 1 was frozen; its orders arrive now.
    rig.order(1, ToWorker::Cancel(id(1, 0)));
    rig.assign(1, 1);
    rig.order(1, ToWorker::Return(id(1, 0)));
    rig.order(1, ToWorker::Drop(vec![Hash([1; 32])]));
    rig.order(1, ToWorker::Drain);
    rig.order(1, ToWorker::Leave);
    rig.order(1, ToWorker::Forget(JobId(1)));
    rig.expect(&[]);
    rig.finished(id(1, 0), Outcome::Done(vec![blob(2)]));
    rig.expect(&["tell done 1.0/0.1.1"]);
    rig.order(1, ToWorker::Settled(id(1, 0)));
    assert_eq!(rig.core.unsettled(), 1, "only the leader settles");
    rig.order(2, ToWorker::Cancel(id(1, 0)));
    rig.order(2, ToWorker::Settled(id(1, 0)));
    assert_eq!(rig.core.in_hand(), []);
    rig.expect(&[]);
}

#[test]
fn reports_are_repeated_on_each_connection_until_settled() {
    let mut rig = Rig::new();
    rig.assign(1, 0);
    rig.staged(id(1, 0));
    rig.event(Event::Disconnected);
    rig.expect(&[
        "stage 1.0/0.1.1",
        "start 1.0/0.1.1",
        "tell started 1.0/0.1.1",
    ]);
    rig.finished(id(1, 0), Outcome::Ended(exited(1)));
    rig.expect(&[]);
    let held = HeldAttempt {
        attempt: id(1, 0),
        redundant: false,
        seal: Seal([3; 16]),
    };
    assert_eq!(rig.core.in_hand(), [held]);
    for _ in 0..2 {
        rig.event(Event::Connected(Epoch(1)));
        rig.expect(&["tell 1.0/0.1.1: it ended with exit code 1"]);
        rig.event(Event::Disconnected);
    }
    rig.event(Event::Connected(Epoch(1)));
    rig.expect(&["tell 1.0/0.1.1: it ended with exit code 1"]);
    rig.order(1, ToWorker::Settled(id(1, 0)));
    rig.event(Event::Connected(Epoch(1)));
    rig.expect(&[]);
}

#[test]
fn what_has_no_room_waits_in_order_and_can_be_given_back() {
    let mut rig = Rig::new();
    (0..5).for_each(|task| rig.assign(1, task));
    rig.expect(&["stage 1.0/0.1.1", "stage 1.1/0.1.1"]);
    rig.order(1, ToWorker::Return(id(1, 2)));
    rig.order(1, ToWorker::Return(id(1, 0))); // has started
    rig.expect(&["tell 1.2/0.1.1 Returned"]);
    let missing = vec![Hash([1; 32])];
    let why = "nobody gave it".to_owned();
    rig.event(Event::Staged(id(1, 0), Err(Ending::Input { missing, why })));
    rig.expect(&[
        "tell 1.0/0.1.1: its inputs could not be fetched: nobody gave it",
        "stage 1.3/0.1.1",
    ]);
    rig.event(Event::Drain);
    rig.expect(&["tell 1.4/0.1.1 Returned", "tell Draining"]);
    rig.assign(1, 6);
    rig.expect(&["tell 1.6/0.1.1 Returned"]);
    assert_eq!(rig.core.busy(), 2);
}

#[test]
fn a_cancelled_attempt_ends_but_a_success_that_was_faster_is_told() {
    let mut rig = Rig::new();
    (0..3).for_each(|task| rig.assign(1, task));
    rig.staged(id(1, 0));
    rig.staged(id(1, 1));
    rig.expect(&[
        "stage 1.0/0.1.1",
        "stage 1.1/0.1.1",
        "start 1.0/0.1.1",
        "tell started 1.0/0.1.1",
        "start 1.1/0.1.1",
        "tell started 1.1/0.1.1",
    ]);
    (0..3).for_each(|task| rig.order(1, ToWorker::Cancel(id(1, task))));
    rig.expect(&[
        "end 1.0/0.1.1",
        "end 1.1/0.1.1",
        "tell 1.2/0.1.1: another attempt won, or the job ended",
    ]);
    rig.finished(id(1, 0), Outcome::Done(vec![blob(2)]));
    rig.finished(id(1, 1), Outcome::Ended(exited(137)));
    rig.expect(&[
        "tell done 1.0/0.1.1",
        "tell 1.1/0.1.1: another attempt won, or the job ended",
    ]);
}

#[test]
fn what_was_fetched_for_a_job_goes_with_it_and_unsettled_outputs_stay() {
    let mut rig = Rig::new();
    rig.assign(1, 0);
    rig.assign(1, 1);
    rig.staged(id(1, 0));
    rig.staged(id(1, 1));
    rig.finished(id(1, 0), Outcome::Done(vec![blob(2)]));
    rig.expect(&[
        "stage 1.0/0.1.1",
        "stage 1.1/0.1.1",
        "start 1.0/0.1.1",
        "tell started 1.0/0.1.1",
        "start 1.1/0.1.1",
        "tell started 1.1/0.1.1",
        "tell done 1.0/0.1.1",
    ]);
    rig.order(1, ToWorker::Drop(vec![Hash([2; 32]), Hash([9; 32])]));
    rig.expect(&["drop 9"]);
    rig.order(1, ToWorker::Settled(id(1, 0)));
    rig.order(1, ToWorker::Cancel(id(1, 1)));
    rig.order(1, ToWorker::Forget(JobId(1)));
    rig.expect(&["end 1.1/0.1.1"]);
    rig.finished(id(1, 1), Outcome::Ended(Ending::Cancelled));
    rig.expect(&[
        "tell 1.1/0.1.1: another attempt won, or the job ended",
        "drop 1",
    ]);
    rig.order(1, ToWorker::Drop(vec![Hash([2; 32])]));
    rig.expect(&["drop 2"]);
}

#[test]
fn what_an_attempt_printed_stays_until_its_report_is_settled() {
    let mut rig = Rig::new();
    rig.assign(1, 0);
    rig.staged(id(1, 0));
    rig.expect(&[
        "stage 1.0/0.1.1",
        "start 1.0/0.1.1",
        "tell started 1.0/0.1.1",
    ]);
    let part = |number: u8| Data::Blob {
        hash: Hash([number; 32]),
        size: 5000,
    };
    rig.event(Event::Finished(Box::new(Report {
        attempt: id(1, 0),
        outcome: Outcome::Ended(exited(1)),
        usage: Usage::default(),
        log: Some(Box::new(Log {
            stdout: part(4),
            stderr: part(5),
            stdout_total: 5000,
            stderr_total: 5000,
        })),
    })));
    rig.expect(&["tell 1.0/0.1.1: it ended with exit code 1"]);
    // As by the next leader, which has not heard the report yet.
    rig.order(1, ToWorker::Drop([4, 5, 6].map(|n| Hash([n; 32])).to_vec()));
    rig.expect(&["drop 6"]);
    rig.order(1, ToWorker::Settled(id(1, 0)));
    rig.order(1, ToWorker::Drop(vec![Hash([4; 32])]));
    rig.expect(&["drop 4"]);
}

#[test]
fn an_assignment_without_its_body_is_refused() {
    let mut rig = Rig::new();
    rig.event(Event::Disconnected);
    rig.event(Event::Connected(Epoch(2))); // the new leader has not said what the group is
    rig.assign(2, 0);
    rig.expect(&["tell 1.0/0.2.1: its worker failed: it does not know what to run"]);
    assert_eq!(rig.core.in_hand(), []);
}

#[test]
fn tasks_without_a_process_end_at_once() {
    let mut rig = Rig::new();
    rig.order(1, ToWorker::Body(body(Runtime::Noop)));
    (0..3).for_each(|task| rig.assign(1, task));
    rig.expect(&[
        "tell done 1.0/0.1.1",
        "tell done 1.1/0.1.1",
        "tell done 1.2/0.1.1",
    ]);
    assert_eq!((rig.core.busy(), rig.core.unsettled()), (0, 3));
}

#[test]
fn work_does_not_wait_for_benchmark_kernels() {
    let mut rig = Rig::new();
    rig.order(1, ToWorker::Benchmark);
    rig.expect(&["benchmark"]);
    rig.assign(1, 0);
    rig.expect(&["end benchmark", "stage 1.0/0.1.1"]);
    rig.staged(id(1, 0));
    rig.expect(&["start 1.0/0.1.1", "tell started 1.0/0.1.1"]);
    // What they measured, they measured beside a task.
    rig.event(Event::Benchmarked(Some(BenchScores::default())));
    rig.expect(&[]);
    // Asked while it is busy, they wait for its end, and run undisturbed.
    rig.order(1, ToWorker::Benchmark);
    rig.expect(&[]);
    rig.finished(id(1, 0), Outcome::Done(vec![blob(2)]));
    rig.expect(&["tell done 1.0/0.1.1", "benchmark"]);
    rig.order(1, ToWorker::Settled(id(1, 0)));
    rig.event(Event::Benchmarked(Some(BenchScores::default())));
    let [said] = &rig.said()[..] else {
        panic!("nothing else is said");
    };
    assert!(said.starts_with("tell Benchmarked"), "{said}");
}

#[test]
fn what_a_process_holds_that_waits_for_a_job_is_free_for_others() {
    let mut rig = Rig::new();
    (1..=3).for_each(|task| rig.assign(1, task));
    rig.expect(&["stage 1.1/0.1.1", "stage 1.2/0.1.1"]);
    rig.staged(id(1, 1));
    rig.staged(id(1, 2));
    rig.expect(&[
        "start 1.1/0.1.1",
        "tell started 1.1/0.1.1",
        "start 1.2/0.1.1",
        "tell started 1.2/0.1.1",
    ]);
    rig.event(Event::Waits(id(1, 1), Some(JobId(7))));
    let waits = "tell Waits(AttemptId { task: TaskId { job: JobId(1), number: 1 }, generation: 0, epoch: Epoch(1), \
                 number: 1 }, Some(JobId(7)))";
    rig.expect(&[waits, "stage 1.3/0.1.1"]);
    // Others have taken its place: it gets on without.
    rig.event(Event::Waits(id(1, 1), None));
    rig.event(Event::Disconnected);
    rig.event(Event::Connected(Epoch(1)));
    rig.expect(&["tell started 1.1/0.1.1", waits, "tell started 1.2/0.1.1"]);
    rig.finished(id(1, 1), Outcome::Done(Vec::new()));
    rig.order(1, ToWorker::Body(body(Runtime::Process)));
    rig.assign(1, 4);
    rig.expect(&["tell done 1.1/0.1.1"]);
    rig.finished(id(1, 2), Outcome::Done(Vec::new()));
    rig.expect(&["tell done 1.2/0.1.1", "stage 1.4/0.1.1"]);
}

fn exited(status: i32) -> Ending {
    Ending::Exited {
        status,
        said: String::new(),
    }
}

fn saving() -> Arc<GrantedBody> {
    let body = Body {
        checkpoint: Some(Arc::new(CheckpointRule::of(&["state"]))),
        ..(*body(Runtime::Process).body).clone()
    };
    let (body, grants) = (Arc::new(body), Grants::default());
    Arc::new(GrantedBody { body, grants })
}

fn saved(attempt: AttemptId, number: u32, content: u8) -> Event {
    let id = CheckpointId { attempt, number };
    let files = vec![blob(content)];
    let saved = Checkpoint {
        id,
        files,
        permille: None,
    };
    let saved = Ok(Arc::new(saved));
    Event::Checkpoint { id, saved }
}

fn runs_saving() -> Rig {
    let mut rig = Rig::new();
    rig.order(1, ToWorker::Body(saving()));
    rig.assign(1, 0);
    rig.staged(id(1, 0));
    rig.expect(&[
        "stage 1.0/0.1.1",
        "start 1.0/0.1.1",
        "tell started 1.0/0.1.1",
    ]);
    rig
}

#[test]
fn the_newest_checkpoint_is_told_again_and_one_that_nobody_heard_of_is_dropped() {
    let mut rig = runs_saving();
    rig.event(saved(id(1, 0), 1, 10));
    rig.expect(&["tell checkpoint 1 of 1.0/0.1.1"]);
    rig.event(Event::Disconnected);
    // The supervisor knows the first, and says itself when it is to go.
    rig.event(saved(id(1, 0), 2, 11));
    rig.event(saved(id(1, 0), 3, 12));
    rig.expect(&["drop 11"]);
    assert_eq!(rig.core.checkpoint_blobs().count(), 1);
    rig.event(Event::Connected(Epoch(1)));
    rig.expect(&["tell checkpoint 3 of 1.0/0.1.1", "tell started 1.0/0.1.1"]);
    rig.order(1, ToWorker::Drop(vec![Hash([12; 32])]));
    rig.expect(&["drop 12"]);
    rig.event(Event::Connected(Epoch(2)));
    rig.expect(&["tell started 1.0/0.1.1"]);
    rig.event(saved(id(1, 0), 4, 13));
    rig.finished(id(1, 0), Outcome::Ended(Ending::Lost));
    rig.skip_told();
    // Until the end is settled a new leader hears of the last one first.
    rig.event(Event::Connected(Epoch(3)));
    let said = rig.said();
    assert_eq!(said[0], "tell checkpoint 4 of 1.0/0.1.1");
    rig.event(saved(id(1, 0), 5, 14));
    rig.expect(&["drop 14"]);
}

#[test]
fn a_worker_that_drains_has_what_has_checkpoints_save_and_go() {
    let mut rig = runs_saving();
    rig.assign(1, 1);
    rig.order(1, ToWorker::Drain);
    rig.expect(&[
        "stage 1.1/0.1.1",
        "stop 1.0/0.1.1 within 10s",
        "end 1.1/0.1.1",
    ]);
    rig.order(1, ToWorker::Drain);
    rig.event(saved(id(1, 0), 1, 10));
    rig.finished(id(1, 0), Outcome::Ended(Ending::Vacated));
    rig.event(Event::Staged(id(1, 1), Err(Ending::Cancelled)));
    rig.expect(&[
        "tell checkpoint 1 of 1.0/0.1.1",
        "tell 1.0/0.1.1: its worker gave it up, for its owner or to drain",
        "tell 1.1/0.1.1: its worker gave it up, for its owner or to drain",
    ]);
}
