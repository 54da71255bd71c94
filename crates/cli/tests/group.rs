//! Several supervisors that stand in for each other: leaders are killed, members come, go and are replaced, and
//! jobs go on as if nothing had been.

mod common;

use common::group::Group;
use common::tasks::Marks;
use common::until;
use std::fs;

const NO_COPIES: &str = "[qos]\nredundancy = \"none\"\n";

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
    until("all to be connected", || {
        let members = group.ask(&["members"]);
        let all = members.as_array().unwrap().iter();
        let here = all.filter(|one| !one["place"].is_null() && one["connected"] == true);
        (here.count() == 3).then_some(())
    });
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
    group.ask(&["members", "remove", &first]);
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
    group.ask(&["config", "set", "promote_after", "1s"]);
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
