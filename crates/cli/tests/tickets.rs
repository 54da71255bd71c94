//! Tickets: whom they let in after the group of supervisors has changed, which of them a command uses, how they are
//! listed and revoked.

mod common;

use common::group::Group;
use common::{Grid, Kept, Place, told, until};
use hedge_net::Ticket;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

/// A newcomer's exit code and what it is told.
fn jobs(folder: &Path, name: &str, ticket: &str) -> (Option<i32>, String) {
    let place = Place::here(&folder.join(name));
    let output = place.call(&["jobs", "--join", ticket]);
    (output.status.code(), told(&output))
}

fn made(group: &Group, role: &str) -> String {
    let ticket = group.ask(&["ticket", role]);
    ticket["ticket"].as_str().unwrap().to_owned()
}

/// The ticket with only the supervisors of these numbers, in this order.
fn naming(group: &Group, ticket: &str, ids: &[String]) -> String {
    let mut ticket: Ticket = ticket.parse().unwrap();
    let all = std::mem::take(&mut ticket.supervisors);
    for id in ids {
        let named = all.iter().find(|addr| addr.peer.to_string() == *id);
        ticket.supervisors.push(named.unwrap().clone());
    }
    assert!(ids.len() <= group.places.len());
    ticket.to_string()
}

fn worker(group: &Group, name: &str, ticket: &str) -> Kept {
    let place = Place::here(&group.client.folder.join(name));
    place.start(&[
        "worker",
        "--join",
        ticket,
        "--listen",
        "127.0.0.1:0",
        "--no-sandbox",
    ])
}

fn supervisor(group: &Group, name: &str, ticket: &str) -> (Place, Kept) {
    let place = Place::here(&group.client.folder.join(name));
    let args = [
        "supervisor",
        "--listen",
        "127.0.0.1:0",
        "--json",
        "--join",
        ticket,
    ];
    let kept = place.start(&args);
    (place, kept)
}

#[test]
fn tickets_let_newcomers_in_under_each_leader() {
    let folder = tempfile::tempdir().unwrap();
    let mut group = Group::start(folder.path(), 1, 0);
    // These name one supervisor, which soon follows another.
    let early = ["client", "worker", "supervisor"].map(|role| made(&group, role));
    let first: Ticket = early[0].parse().unwrap();
    assert_eq!(first.supervisors.len(), 1);
    group.add_supervisor(&[]);
    group.add_supervisor(&[]);
    group.await_voters(3);
    let ids = [0, 1, 2].map(|number| group.peer(number));
    group.kill(0);
    until("another to lead", || (group.leader() != 0).then_some(()));
    group.restart(0);
    until("it to follow", || {
        let seats = group.seats();
        let place = seats.iter().find(|(peer, _)| *peer == ids[0]);
        place
            .is_some_and(|(_, place)| place == "voter")
            .then_some(())
    });
    let (code, text) = jobs(folder.path(), "early", &early[0]);
    assert_eq!(code, Some(0), "{text}{}", group.told());
    let _worker = worker(&group, "early-worker", &early[1]);
    group.await_workers(1);
    let (place, fourth) = supervisor(&group, "early-supervisor", &early[2]);
    group.places.push(place);
    group.supervisors.push(Some(fourth));
    group.await_voters(4);

    // These name all of them; the one that leads ends for good.
    let late = ["client", "worker", "supervisor"].map(|role| made(&group, role));
    let named: Ticket = late[0].parse().unwrap();
    assert_eq!(named.supervisors.len(), 4);
    let leader = group.leader();
    let gone = group.peer(leader);
    group.kill(leader);
    until("another to lead", || {
        (group.leader() != leader).then_some(())
    });
    let (code, text) = jobs(folder.path(), "late", &late[0]);
    assert_eq!(code, Some(0), "{text}{}", group.told());
    // Of those that live, one that follows is enough.
    let now = group.leader();
    let follower = (0..4).find(|number| *number != now && *number != leader);
    let follower = group.peer(follower.unwrap());
    let few = |ticket: &str| naming(&group, ticket, &[gone.clone(), follower.clone()]);
    let few = [few(&late[0]), few(&late[1]), few(&late[2])];
    let (code, text) = jobs(folder.path(), "few", &few[0]);
    assert_eq!(code, Some(0), "{text}{}", group.told());
    let _other = worker(&group, "few-worker", &few[1]);
    group.await_workers(2);
    let _fifth = supervisor(&group, "few-supervisor", &few[2]);
    until("the fifth to be a member", || {
        (group.seats().len() == 5).then_some(())
    });
}

#[test]
fn the_tickets_in_a_supervisors_folder_name_the_group_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut group = Group::start(folder.path(), 1, 0);
    let ticket = |place: &Place, file: &str| -> Option<Ticket> {
        let path = place.folder.join("state/hedgerow/supervisor").join(file);
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let before = ticket(&group.places[0], "client.ticket").unwrap();
    assert_eq!(before.supervisors.len(), 1);
    group.add_supervisor(&[]);
    group.add_supervisor(&[]);
    group.await_voters(3);
    for place in &group.places {
        for file in ["client.ticket", "worker.ticket"] {
            until("a ticket that names all", || {
                let ticket = ticket(place, file)?;
                (ticket.supervisors.len() == 3).then_some(())
            });
        }
    }
    let after = ticket(&group.places[0], "client.ticket").unwrap();
    assert_eq!(after.secret, before.secret, "the same ticket");
    // A client that has never asked before finds the one that leads now.
    group.kill(0);
    until("another to lead", || (group.leader() != 0).then_some(()));
    let output = group.places[0].call(&["jobs"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
}

/// What a command is told with HEDGE_TICKET set.
fn with_ticket(place: &Place, ticket: &str, args: &[&str]) -> Output {
    let mut command = place.hedge(args);
    command.env("HEDGE_TICKET", ticket).output().unwrap()
}

fn expect(output: &Output, code: i32, part: &str) {
    let told = told(output);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.contains(part), "{told}");
}

#[test]
fn a_ticket_in_the_environment_does_not_lock_its_machine_out() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let here = &grid.place;
    // By the supervisor's own ticket first, as the maker of the other one was asked in that way.
    let client = here.ticket("client");
    expect(&with_ticket(here, &client, &["jobs"]), 0, "");
    expect(
        &with_ticket(here, &client, &["submit", "--", "true"]),
        0,
        "accepted",
    );
    // What only an administrator may do is asked of the supervisor on this machine.
    for args in [
        &["ticket", "worker"][..],
        &["members"],
        &["config", "set", "keep", "1"],
    ] {
        expect(&with_ticket(here, &client, args), 0, "");
    }
    expect(
        &with_ticket(here, &client, &["drain", "nobody"]),
        2,
        "hedge workers",
    );
    here.ask(&["members"]);
    // An administrator's ticket is used as it is, also from its file.
    here.ask(&["ticket", "admin", "--out", "admin.ticket"]);
    let other = Place::here(&folder.path().join("other"));
    let path = here.folder.join("admin.ticket");
    let path = path.to_str().unwrap();
    expect(&with_ticket(&other, path, &["members"]), 0, "supervisor");
    let again = here.call(&["ticket", "admin", "--out", "admin.ticket"]);
    expect(&again, 1, "no ticket was made");
    // Elsewhere there is no other door.
    let refused = with_ticket(&other, &client, &["members"]);
    expect(&refused, 4, "only an administrator");
    let worker = here.ticket("worker");
    expect(&with_ticket(&other, &worker, &["jobs"]), 4, "HEDGE_TICKET");
}

#[test]
fn what_is_no_ticket_is_said_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    fs::write(folder.path().join("garbage"), "no ticket\n").unwrap();
    fs::write(folder.path().join("empty"), "").unwrap();
    let damaged = "hedge-client-nonsense";
    for command in [
        &["jobs"][..],
        &["workers"],
        &["job", "1"],
        &["drain", "somebody"],
        &["submit", "--", "true"],
        &["worker"],
        &["supervisor"],
        &["relay"],
    ] {
        for (given, code, part) in [
            ("missing", 2, "cannot be read"),
            ("@missing", 2, "cannot be read"),
            (".", 2, "cannot be read"),
            ("", 2, "is empty"),
            ("-", 2, "standard input is empty"),
            ("garbage", 4, "not a ticket"),
            ("empty", 4, "not a ticket"),
            (damaged, 4, "the ticket is"),
        ] {
            let (own, program) = match command.iter().position(|word| *word == "--") {
                Some(at) => command.split_at(at),
                None => (command, &[][..]),
            };
            let args = [own, &["--join", given], program].concat();
            let start = Instant::now();
            expect(&place.call(&args), code, part);
            assert!(start.elapsed() < Duration::from_secs(20), "{args:?}");
        }
    }
    let ticket = Ticket::new(hedge_net::Role::Worker, Vec::new(), None).to_string();
    expect(
        &place.call(&["jobs", "--join", &ticket]),
        4,
        "the role worker",
    );
    let ticket = Ticket::new(hedge_net::Role::Client, Vec::new(), None).to_string();
    expect(
        &place.call(&["worker", "--join", &ticket]),
        4,
        "the role client",
    );
    expect(
        &place.call(&["jobs", "--join", &ticket]),
        3,
        "names no supervisor",
    );
}

#[test]
fn nobody_locks_the_grid_by_a_slip() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let here = &grid.place;
    let members = here.ask(&["members"]);
    let id = |role: &str| {
        let mut all = members.as_array().unwrap().iter();
        let one = all.find(|one| one["role"] == role).unwrap();
        one["peer"].as_str().unwrap().to_owned()
    };
    for (args, code, part) in [
        (&["revoke", &id("admin"), "--yes"][..], 2, "your own id"),
        (
            &["members", "remove", &id("supervisor"), "--yes"],
            2,
            "only supervisor",
        ),
        (&["revoke", &id("worker")[..1], "--yes"], 2, "too short"),
        (&["drain", &id("worker")[..1]], 2, "too short"),
        (&["drain", " "], 2, "no worker is called"),
        (&["revoke", &id("worker")], 2, "--yes"),
    ] {
        expect(&here.call(args), code, part);
    }
    assert_eq!(here.ask(&["workers"])[0]["usage"], "ready");
    expect(
        &here.call(&["revoke", &id("worker"), "--yes"]),
        0,
        "no longer a member",
    );
}

#[test]
fn a_key_that_another_job_has_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let key = "00112233445566778899aabbccddeeff";
    let submit = |text: &str| {
        grid.place
            .call(&["submit", "--wait", "--key", key, "--", "echo", text])
    };
    expect(&submit("one"), 0, "one");
    expect(&submit("one"), 0, "one");
    expect(&submit("two"), 2, "another job");
    assert_eq!(grid.place.ask(&["jobs"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_start_without_options_is_like_the_last_one() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let start = |args: &[&str]| {
        let mut kept = place.start(&[&["supervisor", "--json"], args].concat());
        let said = until("the supervisor to listen", || {
            assert!(kept.running(), "{}", kept.told());
            serde_json::from_str::<serde_json::Value>(&kept.out()).ok()
        });
        (kept, said["addrs"].clone())
    };
    let stop = |mut kept: Kept| {
        kept.signal("-TERM");
        kept.end();
    };
    let (kept, at) = start(&["--listen", "127.0.0.1:0", "--mdns=false"]);
    assert_eq!(at.as_array().unwrap().len(), 1);
    // Meanwhile nobody else gets at what is there.
    let other = place.call(&["supervisor"]);
    let pid = kept.pid().to_string();
    expect(&other, 3, &pid);
    assert!(told(&other).contains("in use by another hedge process"));
    for what in ["check", "repair"] {
        expect(&place.call(&["journal", what]), 3, "another process");
    }
    stop(kept);
    let (kept, again) = start(&[]);
    assert_eq!(again, at);
    assert!(
        kept.err()
            .contains("as at the last start: --listen 127.0.0.1:"),
        "{}",
        kept.told()
    );
    stop(kept);
    let (kept, elsewhere) = start(&["--listen", "0.0.0.0:0"]);
    assert_ne!(elsewhere, at);
    stop(kept);
    let (kept, again) = start(&[]);
    assert_eq!(again, elsewhere);
    stop(kept);
}

#[test]
fn tickets_are_listed_and_revoked_and_members_stay() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let here = &grid.place;
    let state = |id: &str| {
        let all = here.ask(&["ticket", "list"]);
        let mut all = all.as_array().unwrap().iter();
        let one = all.find(|one| one["ticket"] == *id).unwrap();
        (
            one["state"].as_str().unwrap().to_owned(),
            one["members"].clone(),
        )
    };
    here.ask(&["ticket", "client", "--out", "client.ticket"]);
    let path = here.folder.join("client.ticket");
    let text = fs::read_to_string(&path).unwrap();
    let id = text
        .trim()
        .parse::<Ticket>()
        .unwrap()
        .secret_hash()
        .to_string();
    assert_eq!(state(&id), ("valid".to_owned(), 0.into()));
    let (code, told) = jobs(folder.path(), "in", &text);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(state(&id), ("valid".to_owned(), 1.into()));
    expect(&here.call(&["ticket", "revoke", &id[..6]]), 2, "--yes");
    expect(
        &here.call(&["ticket", "revoke", "client.ticket", "--yes"]),
        0,
        "is revoked",
    );
    expect(
        &here.call(&["ticket", "revoke", &id[..6], "--yes"]),
        2,
        "before",
    );
    assert_eq!(state(&id), ("revoked".to_owned(), 1.into()));
    let (code, told) = jobs(folder.path(), "in", &text);
    assert_eq!(code, Some(0), "who is in stays in: {told}");
    let (code, told) = jobs(folder.path(), "late", &text);
    assert_eq!(code, Some(4), "{told}");
    assert!(told.contains("revoked"), "{told}");

    // A worker that is revoked does not come back by its ticket, and this machine gets another one.
    let file = here.folder.join("state/hedgerow/supervisor/worker.ticket");
    let before = fs::read_to_string(&file).unwrap();
    let worker = here.ask(&["workers"])[0]["peer"]
        .as_str()
        .unwrap()
        .to_owned();
    expect(
        &here.call(&["revoke", &worker, "--yes"]),
        0,
        "no longer a member",
    );
    let fresh = until("another ticket", || {
        let now = fs::read_to_string(&file).unwrap();
        (now.trim().parse::<Ticket>().unwrap().secret_hash()
            != before.trim().parse::<Ticket>().unwrap().secret_hash())
        .then_some(now)
    });
    let again = Place::here(&folder.path().join("again"));
    let back = again.call(&["worker", "--join", before.trim(), "--no-sandbox"]);
    expect(&back, 4, "revoked");
    let _other = again.start(&["worker", "--join", fresh.trim(), "--no-sandbox"]);
    here.await_workers(1);
}

#[test]
fn a_member_whose_ticket_has_expired_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 0);
    let made = grid.place.ask(&["ticket", "client", "--expires", "3s"]);
    let ticket = made["ticket"].as_str().unwrap();
    let (code, told) = jobs(folder.path(), "in", ticket);
    assert_eq!(code, Some(0), "{told}");
    let mut tries = 0;
    until("the ticket to expire", || {
        tries += 1;
        let (code, _) = jobs(folder.path(), &format!("late-{tries}"), ticket);
        (code == Some(4)).then_some(())
    });
    let (code, told) = jobs(folder.path(), "in", ticket);
    assert_eq!(code, Some(0), "{told}");
}
