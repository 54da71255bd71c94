//! Several supervisors that stand in for each other: leaders are killed, members come, go and are replaced, and
//! jobs go on as if nothing had been.

mod common;

use common::group::Group;
use common::tasks::Marks;
use common::{told, until};
use serde_json::Value;
use std::fs;

const NO_COPIES: &str = "[qos]\nredundancy = \"none\"\n";

#[test]
fn results_and_printed_text_are_there_at_once_when_the_leader_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut group = Group::start(folder.path(), 3, 2);
    let line = "head -c 100000 /dev/urandom > out; head -c 4000 /dev/urandom";
    let task = format!(
        "[[task]]\nid = \"a\"\ncommand = [\"sh\", \"-c\", \"{line}\"]\noutputs = [\"out\"]\n"
    );
    group.write_job(&[NO_COPIES, &task]);
    for round in 1..=2 {
        let id = group.ask(&["submit", "job.toml"])["job"].to_string();
        assert_eq!(group.ask(&["wait", &id])["state"], "done");
        let leader = group.leader();
        group.kill(leader);
        let output = group.client.call(&group.args(&["logs", &id, "a"]));
        assert_eq!(output.status.code(), Some(0), "{round}: {}", told(&output));
        assert_eq!(output.stdout.len(), 4000, "{round}");
        let out = format!("out-{round}");
        group.ask(&["fetch", &id, "--out", &out]);
        let file = group.client.folder.join(out).join("out");
        assert_eq!(fs::metadata(file).unwrap().len(), 100_000);
        group.restart(leader);
        await_connected(&group);
    }
}

#[test]
fn a_job_outlives_its_leader_and_nothing_that_runs_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let mut group = Group::start(folder.path(), 3, 2);
    let tasks = [
        marks.task("a", "echo made > a", "outputs = [\"a\"]"),
        marks.task("b", "true", ""),
        marks.task(
            "last",
            "cat a > sum",
            "deps = [\"b\"]\ninputs = [{ task = \"a\" }]\noutputs = [\"sum\"]",
        ),
    ];
    group.write_job(&[NO_COPIES, &tasks.concat()]);
    let args = ["submit", "--wait", "--out", "got", "job.toml"];
    let mut client = group.client.start(&group.args(&args));
    marks.await_starts("a", 1);
    marks.await_starts("b", 1);
    let leader = group.leader();
    group.kill(leader);
    // One ends while nobody leads, or while the next one begins to: its report is not lost.
    marks.let_go("a");
    let next = until("another to lead", || {
        let leader = group.leader();
        (group.supervisors[leader].is_some()).then_some(leader)
    });
    assert_ne!(next, leader);
    marks.let_go("b");
    marks.await_starts("last", 1);
    marks.let_go("last");
    let status = client.end();
    assert_eq!(status.code(), Some(0), "{}{}", client.told(), group.told());
    let got = fs::read_to_string(group.client.folder.join("got/sum")).unwrap();
    assert_eq!(got, "made\n");
    for task in ["a", "b", "last"] {
        assert_eq!(marks.starts(task), 1, "{task}: {}", group.told());
    }
    let view = group.ask(&["job", "1"]);
    assert_eq!(view["attempts"]["total"], 3, "{view}");
    // The one that was killed comes back as a follower and may lead again.
    group.restart(leader);
    await_connected(&group);
    group.kill(next);
    assert_eq!(group.ask(&["job", "1"])["state"], "done");
}

#[test]
fn a_group_that_ends_altogether_goes_on_with_its_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let mut group = Group::start(folder.path(), 3, 1);
    group.write_job(&[NO_COPIES, &marks.task("t", "", "array = \"0..2\"")]);
    group.ask(&["submit", "job.toml"]);
    marks.await_starts("t.0", 1);
    (0..3).for_each(|number| group.kill(number));
    marks.let_go("t.0");
    (0..3).for_each(|number| group.restart(number));
    marks.await_starts("t.1", 1);
    marks.let_go("t.1");
    let view = group.ask(&["wait", "1"]);
    assert_eq!(view["state"], "done", "{view}");
    assert_eq!(marks.starts("t.0"), 1, "{}", group.told());
}

#[test]
fn members_come_and_go_while_a_job_runs() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let mut group = Group::start(folder.path(), 1, 1);
    group.write_job(&[NO_COPIES, &marks.task("t", "", "")]);
    group.ask(&["submit", "job.toml"]);
    marks.await_starts("t", 1);
    group.add_supervisor(&[]);
    group.add_supervisor(&[]);
    group.await_voters(3);
    // The one that founded the group leads, and goes.
    let first = group.peer(0);
    group.ask(&["members", "remove", &first, "--yes"]);
    let gone = group.supervisors[0].as_mut().unwrap();
    assert_eq!(gone.end().code(), Some(4), "{}", gone.told());
    until("the group to be two", || {
        (group.seats().len() == 2).then_some(())
    });
    group.add_supervisor(&[]);
    group.await_voters(3);
    marks.let_go("t");
    assert_eq!(group.ask(&["wait", "1"])["state"], "done");
    assert_eq!(marks.starts("t"), 1, "{}", group.told());
}

#[test]
fn one_that_stands_by_takes_the_place_of_one_that_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut group = Group::start(folder.path(), 3, 0);
    // Longer than a busy machine keeps one that is well from being heard.
    group.ask(&["config", "set", "promote_after", "5s"]);
    let invited = group.ask(&["ticket", "supervisor"]);
    group.add_worker(&["--standby", invited["ticket"].as_str().unwrap()]);
    until("one to stand by", || {
        (group.seats().len() == 4).then_some(())
    });
    let follower = (group.leader() + 1) % 3;
    let gone = group.peer(follower);
    group.kill(follower);
    until("the place to be taken", || {
        let seats = group.seats();
        let votes = seats.iter().filter(|(_, place)| place != "learner").count();
        (votes == 3 && seats.iter().all(|(peer, _)| *peer != gone)).then_some(())
    });
    // The group has its majority again: another may end.
    let leader = group.leader();
    group.kill(leader);
    group.write_job(&["[[task]]\nid = \"t\"\ncommand = [\"true\"]\n"]);
    let view = group.ask(&["submit", "--wait", "job.toml"]);
    assert_eq!(view["state"], "done");
}

#[test]
fn a_member_whose_journal_is_damaged_joins_again_under_a_new_id() {
    let folder = tempfile::tempdir().unwrap();
    let mut group = Group::start(folder.path(), 3, 0);
    let follower = (group.leader() + 1) % 3;
    let peer = group.peer(follower);
    let before = id_in_journal(&group, &peer).expect("a member");
    group.kill(follower);
    let home = group.places[follower]
        .folder
        .join("state/hedgerow/supervisor");
    let journal = home.join("journal");
    let files = fs::read_dir(&journal).unwrap().flatten();
    let longest = files.max_by_key(|file| file.metadata().unwrap().len());
    let longest = longest.unwrap().path();
    let mut bytes = fs::read(&longest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&longest, bytes).unwrap();
    group.restart(follower);
    until("it to be a member under a new id", || {
        let now = id_in_journal(&group, &peer)?;
        (now != before).then_some(())
    });
    group.await_voters(3);
    assert!(journal.with_extension("damaged-1").is_dir());
    assert!(group.told().contains("joins again"), "{}", group.told());
    // It counts: another may end.
    let leader = group.leader();
    group.kill(leader);
    group.write_job(&["[[task]]\nid = \"t\"\ncommand = [\"true\"]\n"]);
    let done = group.client.call(&group.args(&["submit", "job.toml"]));
    assert_eq!(
        done.status.code(),
        Some(0),
        "{}{}",
        told(&done),
        group.told()
    );
}

/// A peer's id in the group, as the newest list of members in the leader's journal has it, where it votes.
fn id_in_journal(group: &Group, peer: &str) -> Option<String> {
    let lines = dumped(group, group.leader());
    let members = lines.iter().rev().find(|line| line["members"].is_array())?;
    let all = members["members"].as_array()?;
    let votes: Vec<_> = all.iter().filter(|one| one["votes"] == true).collect();
    let mine = votes.iter().find(|one| one["peer"] == *peer)?;
    (votes.len() == 3).then(|| mine["id"].as_str().unwrap().to_owned())
}

fn dumped(group: &Group, number: usize) -> Vec<Value> {
    let output = group.places[number].call(&["journal", "dump", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn where_the_leader_ends_critical_tasks_still_run_twice_and_workers_are_watched() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let mut group = Group::start(folder.path(), 3, 3);
    let tasks = [
        marks.task("first", "true", "critical = true"),
        marks.task("second", "true", "critical = true\ndeps = [\"first\"]"),
    ];
    group.write_job(&[
        "[qos]\nredundancy = \"critical\"\ncopies = 2\n",
        &tasks.concat(),
    ]);
    group.ask(&["submit", "job.toml"]);
    let running = marks.await_starts("first", 2);
    let leader = group.leader();
    group.kill(leader);
    group.await_workers(3);
    assert_ne!(group.leader(), leader);
    marks.let_go("first");
    marks.await_starts("second", 2);
    // What ran went on. A third copy may be beside it, where a busy machine kept a worker silent for a while.
    let explained = group.ask(&["explain", "1", "first"]);
    let attempts = explained["tasks"][0]["attempts"].as_array().unwrap();
    for id in running {
        let known = attempts.iter().find(|one| one["attempt"] == *id);
        let state = known.map(|one| one["state"].as_str().unwrap());
        assert!(
            matches!(state, Some("won" | "cancelled")),
            "{id}: {explained}"
        );
    }
    // Those that run it are watched as closely as new grids watch critical tasks.
    let watched = until("heartbeats of all workers", || {
        let all = group.ask(&["workers"]);
        let all = all.as_array().unwrap().clone();
        let closely = |one: &Value| one["in_hand"] == 0 || one["heartbeat_interval_ms"] == 20.0;
        let heard = |one: &Value| one["heartbeats"].as_u64().unwrap() > 0;
        let good = all.iter().all(|one| heard(one) && closely(one));
        good.then_some(all)
    });
    // One of them ends: its copy is there, and another is made.
    let busy = watched.iter().find(|one| one["in_hand"] != 0).unwrap();
    let gone = group
        .workers
        .iter()
        .position(|kept| busy["pid"] == kept.pid());
    group.workers.remove(gone.unwrap()).signal("-9");
    marks.await_starts("second", 3);
    marks.let_go("second");
    assert_eq!(group.ask(&["wait", "1"])["state"], "done");
}

#[test]
fn supervisors_are_upgraded_one_after_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let old = Some("1");
    let mut group = Group::start_as(folder.path(), 2, 1, old);
    group.format = None;
    group.add_supervisor(&[]);
    group.await_voters(3);
    // All of them lead in turn, and read what the others wrote; the new one goes without what only it knows.
    let mut led = [false; 3];
    for job in 1..10 {
        let leader = group.leader();
        led[leader] = true;
        group.write_job(&["[[task]]\nid = \"t\"\ncommand = [\"true\"]\n"]);
        let view = group.ask(&["submit", "--wait", "job.toml"]);
        assert_eq!(view["state"], "done", "job {job}: {}", group.told());
        if led == [true; 3] {
            break;
        }
        group.kill(leader);
        group.format = old.filter(|_| leader < 2);
        group.leader();
        group.restart(leader);
        await_connected(&group);
    }
    assert!(led[2] && (led[0] || led[1]), "{led:?}");
    let formats = |group: &Group| -> Vec<u64> {
        let lines = dumped(group, group.leader());
        lines
            .iter()
            .filter_map(|line| line["format"].as_u64())
            .collect()
    };
    assert!(formats(&group).iter().all(|format| *format == 1));
    let refused = group
        .client
        .call(&group.args(&["members", "--upgrade", "--yes"]));
    assert_ne!(refused.status.code(), Some(0));
    assert!(
        told(&refused).contains("format 1 already"),
        "{}",
        told(&refused)
    );
    // The old ones are replaced by the new version, and the group says when to go on.
    group.format = None;
    for number in [0, 1] {
        group.kill(number);
        group.restart(number);
        await_connected(&group);
    }
    until("the group to know of its new versions", || {
        let done = group
            .client
            .call(&group.args(&["members", "--upgrade", "--yes"]));
        (done.status.code() == Some(0)).then_some(())
    });
    group.ask(&["submit", "--wait", "job.toml"]);
    assert_eq!(formats(&group).last(), Some(&3));
    // One that cannot read it any more is told what to do.
    group.format = old;
    let late = group.add_supervisor(&[]);
    let late = group.supervisors[late].as_mut().unwrap();
    assert!(!late.end().success(), "{}", late.told());
    assert!(
        late.told().contains("start a newer version"),
        "{}",
        late.told()
    );
}

fn await_connected(group: &Group) {
    until("all to be connected", || {
        let members = group.ask(&["members"]);
        let all = members.as_array().unwrap().iter();
        let here = all.filter(|one| !one["place"].is_null() && one["connected"] == true);
        (here.count() == 3).then_some(())
    });
}
