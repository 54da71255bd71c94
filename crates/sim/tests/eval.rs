//! What people rely on when they read a comparison: files mean what they say, runs repeat, policies meet the
//! same luck, and no schedule is better than the bound.

use hedge_sim::Error;
use hedge_sim::eval::{
    Contender, Ended, Luck, Model, Options, Reference, Saving, Setting, Task, Trace, WORK_MIN,
    Workflow, cases, compare, run, study,
};

const FORKJOIN: &str = include_str!("data/forkjoin.json");
const TRACE: &str = include_str!("data/trace.csv");

fn forkjoin() -> Workflow {
    Workflow::from_wfformat(FORKJOIN).unwrap()
}

fn quiet() -> Model {
    Model {
        noise: 0.0,
        estimate_error: 0.0,
        speed_spread: 0.0,
        straggling: 0.0,
        losses: false,
        ..Model::default()
    }
}

#[test]
fn a_workflow_says_who_waits_for_whom_whichever_side_says_it() {
    let workflow = forkjoin();
    let ids: Vec<&str> = workflow.tasks.iter().map(|task| &*task.id).collect();
    assert_eq!(ids, ["split_1", "work_2", "work_3", "work_4", "join_5"]);
    assert_eq!(workflow.tasks[3].parents, [0]);
    assert_eq!(workflow.tasks[0].children, [1, 2, 3]);
    let kinds: Vec<&str> = workflow.tasks.iter().map(|task| &*task.kind).collect();
    assert_eq!(kinds, ["split", "work", "work", "work", "join"]);
    assert_eq!(workflow.bytes(&workflow.tasks[0].inputs), 3000);
    assert_eq!(workflow.tasks[2].memory, 1_000_000);
    assert_eq!(workflow.longest_path(), 12.0 + WORK_MIN);
    let newer = FORKJOIN.replace("\"1.5\"", "\"1.6\"").replace(
        "\"specification\": {",
        "\"specification\": { \"metrics\": { \"taskCount\": 5 },",
    );
    assert_eq!(Workflow::from_wfformat(&newer), Ok(workflow));
}

#[test]
fn tasks_that_differ_by_a_number_or_a_hash_are_of_one_kind() {
    let read = |task: &dyn Fn(u32) -> String, run: &str| {
        let tasks: Vec<String> = (0..24).map(task).collect();
        let named = tasks.iter().enumerate();
        let specified = named.map(|(at, name)| format!("{{\"id\": \"{at}\", {name}}}"));
        let executed =
            (0..24).map(|at| format!("{{\"id\": \"{at}\", \"runtimeInSeconds\": 1{run}}}"));
        let json = format!(
            "{{\"name\": \"n\", \"schemaVersion\": \"1.5\", \"workflow\": {{\"specification\": {{\"tasks\": [{}]}}, \
             \"execution\": {{\"tasks\": [{}]}}}}}}",
            specified.collect::<Vec<_>>().join(","),
            executed.collect::<Vec<_>>().join(","),
        );
        Workflow::from_wfformat(&json).unwrap()
    };
    let half = |at: u32| if at < 12 { "map" } else { "sum" };
    let name = |at: u32| format!("\"name\": \"{}_ID{at:06}\"", half(at));
    assert_eq!(read(&name, "").kinds(), 2);
    let hash = |at: u32| format!("\"name\": \"{}-{:08x}1\"", half(at), at * 0x9e37);
    assert_eq!(read(&hash, "").kinds(), 2);
    let within = |at: u32| format!("\"name\": \"{}_chr{at}\"", half(at));
    assert_eq!(read(&within, "").kinds(), 2);
    let category = |at: u32| format!("\"name\": \"t{at}\", \"category\": \"{}\"", half(at));
    assert_eq!(read(&category, "").kinds(), 2);
    let python = ", \"command\": {\"program\": \"/usr/bin/python3\"}";
    assert_eq!(
        read(&name, python).kinds(),
        2,
        "one program for all says nothing"
    );
    let letter = |at: u32| format!("\"name\": \"{}\"", char::from(b'a' + at as u8));
    assert_eq!(
        read(&letter, "").kinds(),
        24,
        "different tasks stay different"
    );
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let refused = |json: String, word: &str| match Workflow::from_wfformat(&json) {
        Err(Error::Workflow(why)) => assert!(why.contains(word), "{why}"),
        other => panic!("{other:?}"),
    };
    refused(FORKJOIN.replace("\"1.5\"", "\"1.4\""), "1.4");
    let circle = "\"id\": \"split_1\", \"parents\": [\"join_5\"]";
    refused(
        FORKJOIN.replace("\"id\": \"split_1\", \"parents\": []", circle),
        "waits for itself",
    );
    refused(FORKJOIN.replace("[\"join_5\"]", "[\"nobody\"]"), "nobody");
    refused(FORKJOIN.replace("8.0", "-8.0"), "no time");
    for (text, line) in [
        ("0,add,a\nlater,remove,a", 2),
        ("10,add,a\n5,remove,a", 2),
        ("0,arrive,a", 1),
        ("node,up_ms,down_ms\na,1", 2),
        ("node,step_ms=5\na,012", 2),
    ] {
        match Trace::read(text) {
            Err(Error::Trace { line: at, .. }) => assert_eq!(at, line, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn a_trace_repeats_and_workers_present_at_its_end_go_on() {
    let trace = Trace::read(TRACE).unwrap();
    assert_eq!(trace.length(), 100.0);
    let seen: Vec<(f64, f64)> = trace
        .presences(50.0, 100.0)
        .iter()
        .map(|presence| (presence.from, presence.to))
        .collect();
    // From 50 s: b and d go on beyond the end as the next round's a and b, and d a round later as its a, which
    // goes; c goes at 60 s, and comes again.
    assert_eq!(
        seen[..3],
        [(0.0, 80.0), (0.0, 10.0), (0.0, 180.0)],
        "{seen:?}"
    );
    assert_eq!(seen[3], (60.0, 110.0), "c comes again at 110 s");
    let spans = "node,up_ms,down_ms\na,0,30000\nb,0,100000\nc,10000,60000\nd,40000,100000";
    let series = "node,step_ms=10000\na,111\nb,1111111111\nc,0111110000\nd,0000111111";
    let all = trace.presences(0.0, 99.0);
    assert_eq!(
        Trace::read(spans).unwrap().presences(0.0, 99.0).len(),
        all.len()
    );
    assert_eq!(
        Trace::read(series).unwrap().presences(0.0, 99.0),
        Trace::read(spans).unwrap().presences(0.0, 99.0)
    );
}

#[test]
fn a_trace_may_start_in_the_middle_of_things() {
    let trace = Trace::read(
        "time,event,node\n5000,add,a\n6000,add,a\n7000,remove,b\n9000,remove,a\n9900,add,c",
    );
    let seen: Vec<(f64, f64)> = trace
        .unwrap()
        .presences(0.0, 3.0)
        .iter()
        .map(|presence| (presence.from, presence.to))
        .collect();
    assert_eq!(seen, [(0.0, 4.0), (0.0, 2.0)]);
}

#[test]
fn luck_is_what_the_model_says() {
    let (workflow, trace) = (forkjoin(), Trace::steady(3));
    let (mut stragglers, mut sum) = (0, 0.0);
    let all = 20_000;
    for seed in 0..all / 5 {
        let luck = Luck::new(&Model::default(), &workflow, &trace, seed);
        sum += (luck.work[1] / 8.0).ln();
        for number in 1..6 {
            let factor = luck.straggle(1, number);
            assert!(factor == 1.0 || (3.0..=10.0).contains(&factor), "{factor}");
            stragglers += u64::from(factor > 1.0);
            assert_eq!(factor, luck.straggle(1, number), "drawn once");
        }
    }
    let share = stragglers as f64 / all as f64;
    assert!((0.045..0.055).contains(&share), "{share}");
    let mean = sum / (all as f64 / 5.0);
    assert!(mean.abs() < 0.02, "{mean}");
}

#[test]
fn with_no_luck_at_all_the_core_does_what_the_clairvoyant_does() {
    let (workflow, trace) = (forkjoin(), Trace::steady(3));
    let luck = Luck::new(&quiet(), &workflow, &trace, 1);
    let reference = Reference::new(&workflow, &trace, &luck);
    assert!(
        (reference.clairvoyant - 12.001).abs() < 1e-6,
        "{reference:?}"
    );
    assert!((reference.bound - 12.001).abs() < 1e-6, "{reference:?}");
    let setting = Setting {
        workflow: &workflow,
        trace: &trace,
        luck: &luck,
        later: &[],
        detect: 0.0,
        chart: true,
        qos: None,
    };
    for contender in Contender::all() {
        let (outcome, _) = run(setting, &contender, None).unwrap();
        let name = contender.name();
        assert!(
            (outcome.makespan - 12.001).abs() < 0.01,
            "{name}: {outcome:?}"
        );
        assert!((outcome.won - 29.001).abs() < 0.01, "{name}: {outcome:?}");
        let won = outcome.bars.iter().filter(|bar| bar.won).count();
        assert_eq!(won, 5, "{name}");
    }
}

#[test]
fn comparisons_repeat_and_nothing_is_better_than_the_bound() {
    let trace = Trace::read(TRACE).unwrap();
    let workflows = [forkjoin()];
    let mut options = Options {
        runs: 20,
        lifetime: Some(2.0),
        threads: 2,
        learn: 2,
        ..Options::default()
    };
    let result = compare(&workflows, &trace, &options, &|_, _| {}).unwrap();
    options.threads = 1;
    let again = compare(&workflows, &trace, &options, &|_, _| {}).unwrap();
    assert_eq!(result, again, "the number of threads changes nothing");
    options.seed = 2;
    let other = compare(&workflows, &trace, &options, &|_, _| {}).unwrap();
    assert_ne!(result, other, "another seed is other luck");
    assert_eq!(result.overall.len(), Contender::all().len());
    for row in &result.overall {
        assert_eq!(row.samples.len(), 20, "{}", row.policy);
        assert!(row.bound.p50 >= 1.0 && row.bound.mean >= 1.0, "{row:?}");
        assert!(row.bound.mean >= row.clairvoyant.mean, "{row:?}");
    }
    assert_eq!(result.overall[0].net, 0.0, "net is counted from the first");
    options.lifetime = Some(0.0);
    assert!(compare(&workflows, &trace, &options, &|_, _| {}).is_err());
}

/// A workflow of one task.
fn alone(seconds: f64) -> Workflow {
    let task = Task {
        id: "alone".into(),
        kind: "alone".into(),
        work: seconds,
        parents: Vec::new(),
        children: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        memory: 0,
        critical: false,
        saves_s: None,
    };
    Workflow::new("alone".into(), vec![task], Vec::new()).unwrap()
}

#[test]
fn what_tasks_report_reaches_the_policy() {
    let (workflow, trace) = (alone(100.0), Trace::steady(3));
    let copied_at = |reports: f64| {
        let model = Model {
            straggling: 1.0,
            straggle_min: 5.0,
            straggle_max: 5.0,
            starved: 0.0,
            reports,
            ..quiet()
        };
        let luck = Luck::new(&model, &workflow, &trace, 1);
        let setting = Setting {
            workflow: &workflow,
            trace: &trace,
            luck: &luck,
            later: &[],
            detect: 0.0,
            chart: true,
            qos: None,
        };
        let (outcome, _) = run(setting, &Contender::find("auto").unwrap(), None).unwrap();
        let copies = outcome.bars.iter().filter(|bar| bar.redundant);
        copies.map(|bar| bar.from).fold(f64::INFINITY, f64::min)
    };
    let (told, untold) = (copied_at(1.0), copied_at(0.0));
    assert!(told < 50.0, "after {told} s of 500");
    assert!(
        untold >= 100.0,
        "after {untold} s nothing was to be seen yet"
    );
}

#[test]
fn a_lost_machine_costs_no_more_than_the_work_since_the_last_checkpoint() {
    let workflow = alone(200.0);
    let spans = "node,up_ms,down_ms\na,0,100000\nb,50000,150000\nc,100000,200000";
    let trace = Trace::read(spans).unwrap();
    let model = Model {
        losses: true,
        checkpoints: Some(Saving::default()),
        ..quiet()
    };
    let mut all = 0;
    for seed in 0..10 {
        let luck = Luck::new(&model, &workflow, &trace, seed);
        let setting = Setting {
            workflow: &workflow,
            trace: &trace,
            luck: &luck,
            later: &[],
            detect: 0.0,
            chart: true,
            qos: None,
        };
        let (outcome, _) = run(setting, &Contender::NONE, None).unwrap();
        let lost = outcome.bars.iter().filter(|bar| bar.how == Ended::Lost);
        let lost = lost.count();
        all += lost;
        // 202 s with the cost of checkpoints, of which a twentieth is repeated at most.
        let most = 202.1 + 10.2 * lost as f64;
        let held = outcome.held;
        assert!((201.9..most).contains(&held), "{held} s, {lost} losses");
    }
    assert!(all > 0, "some machine is lost");
}

#[test]
fn a_byte_is_fetched_once_by_each_machine_that_keeps_it() {
    let workflow = forkjoin();
    let model = Model {
        bandwidth: Some(1000.0),
        link_spread: 0.0,
        ..quiet()
    };
    // `split` reads 3,000 bytes, and leaves 1,000 that three tasks read.
    for (machines, moved, makespan) in
        [(1, 3000, 3.0 + 29.001), (3, 5000, 3.0 + 2.0 + 1.0 + 10.001)]
    {
        let trace = Trace::steady(machines);
        let luck = Luck::new(&model, &workflow, &trace, 1);
        let setting = Setting {
            workflow: &workflow,
            trace: &trace,
            luck: &luck,
            later: &[],
            detect: 0.0,
            chart: false,
            qos: None,
        };
        let (outcome, _) = run(setting, &Contender::NONE, None).unwrap();
        assert_eq!(outcome.moved_bytes, moved, "{outcome:?}");
        let off = (outcome.makespan - makespan).abs();
        assert!(
            off <= 1.01,
            "which task stays with its data is open: {outcome:?}"
        );
        let reference = Reference::new(&workflow, &trace, &luck);
        assert!(reference.clairvoyant <= makespan + 1e-6, "{reference:?}");
        assert!(reference.bound <= reference.clairvoyant, "{reference:?}");
    }
}

#[test]
fn jobs_of_one_run_share_its_machines_and_are_each_measured_from_their_submission() {
    let workflows = [forkjoin()];
    let mut options = Options {
        model: quiet(),
        policies: vec![Contender::NONE],
        runs: 5,
        jobs: 4,
        ..Options::default()
    };
    let many = compare(&workflows, &Trace::steady(40), &options, &|_, _| {}).unwrap();
    assert_eq!(many.overall[0].samples.len(), 20, "four jobs in each run");
    assert!(
        many.overall[0].clairvoyant.p99 < 1.01,
        "{:?}",
        many.overall[0]
    );
    let few = compare(&workflows, &Trace::steady(3), &options, &|_, _| {}).unwrap();
    assert!(
        few.overall[0].clairvoyant.mean > 1.5,
        "they wait for each other"
    );
    options.jobs = 0;
    assert!(compare(&workflows, &Trace::steady(3), &options, &|_, _| {}).is_err());
}

#[test]
fn no_policy_starts_more_than_a_few_copies_of_a_task_in_a_second() {
    let trace = Trace::read(TRACE).unwrap();
    let workflow = forkjoin();
    let all = Contender::all();
    for seed in 0..20 {
        let luck = Luck::new(&Model::default(), &workflow, &trace, seed);
        let setting = Setting {
            workflow: &workflow,
            trace: &trace,
            luck: &luck,
            later: &[],
            detect: 0.0,
            chart: false,
            qos: None,
        };
        for contender in &all {
            let (outcome, _) = run(setting, contender, None).unwrap();
            let most = 4.0 * workflow.tasks.len() as f64 * (outcome.makespan + 1.0) / 10.0;
            let copies = f64::from(outcome.copies_started);
            assert!(
                copies <= most,
                "{}, seed {seed}: {outcome:?}",
                contender.name()
            );
        }
    }
}

#[test]
fn the_models_of_luck_differ_and_are_pooled() {
    let trace = Trace::read(TRACE).unwrap();
    let options = Options {
        policies: vec![
            Contender::NONE,
            Contender::find("auto").unwrap(),
            Contender::find("late").unwrap(),
        ],
        runs: 10,
        lifetime: Some(2.0),
        ..Options::default()
    };
    let names = ["none", "usual", "heavy"].map(String::from);
    let found = cases(&Model::default(), &names, &[0.2, 0.8]).unwrap();
    let study = study(&[forkjoin()], &trace, &options, &found, &|_, _| {}).unwrap();
    assert_eq!(study.cases.len(), 6);
    assert_eq!(study.overall[0].samples.len(), 60);
    let mean = |at: usize| study.cases[at].comparison.overall[0].clairvoyant.mean;
    assert!(
        mean(0) < mean(2) && mean(2) < mean(4),
        "more and longer stragglers"
    );
    assert!(study.cases[0].comparison.behind.is_some());
    for case in &study.cases {
        for row in &case.comparison.overall {
            assert!(
                row.clairvoyant_error.mean > 0.0 && row.bound_error.p99 > 0.0,
                "{row:?}"
            );
        }
    }
    assert!(cases(&Model::default(), &["few".into()], &[0.2]).is_err());
}
