//! How much clients may ask of a grid.

mod support;

use hedge_core::supervisor::Event;
use hedge_model::Data;
use hedge_model::msg::{Request, Role};
use hedge_model::spec::Group;
use support::*;

#[test]
fn limits_hold_for_each_client_apart() {
    let big = |count| plain(vec![array(count, group("a", &[]))]);
    let reads = || {
        plain(vec![Group {
            stdin: Some(Data::Blob {
                hash: hash(3),
                size: 2000,
            }),
            ..group("a", &[])
        }])
    };
    for (name, limit, first, second) in [
        ("client_jobs", "1", big(1), big(1)),
        ("client_tasks", "10", big(6), big(5)),
        ("client_bytes", "1 KiB", big(1), reads()),
    ] {
        let mut rig = Rig::new();
        rig.ask(
            1,
            Request::Set {
                name: name.into(),
                value: limit.into(),
            },
        );
        rig.commit();
        let said = rig.said();
        assert_eq!(said.last().map(String::as_str), Some("client 1 #99: Ok"));
        rig.submit(5, 1, &first);
        rig.commit();
        rig.expect(&["append accepted", "client 5 #1: accepted 1"]);
        rig.submit(5, 2, &second);
        let said = rig.said();
        assert_eq!(said.len(), 1, "{name}: {said:?}");
        assert!(
            said[0].contains("no, NotAllowed") && said[0].contains("hedge config set"),
            "{name}: {said:?}"
        );
        rig.submit(6, 3, &big(1));
        rig.commit();
        rig.expect(&["append accepted", "client 6 #3: accepted 2"]);
        rig.submit(5, 1, &first); // the same again is no second job
        rig.expect(&["client 5 #1: accepted 1"]);
    }
}

#[test]
fn new_keys_of_one_ticket_share_its_limits() {
    let mut rig = Rig::new();
    let limit = Request::Set {
        name: "client_jobs".into(),
        value: "1".into(),
    };
    rig.ask(1, limit);
    rig.commit();
    rig.expect(&["append set client_jobs = 1", "client 1 #99: Ok"]);
    ticket(&mut rig, 90, Role::Client, None, None);
    for number in [20, 21] {
        rig.event(Event::Joining {
            peer: client(number),
            role: Role::Client,
            ticket: Some(hash(90)),
        });
        rig.commit();
    }
    rig.expect(&[
        "append joined client 20",
        "admit client 20: None",
        "append joined client 21",
        "admit client 21: None",
    ]);
    let job = plain(vec![group("a", &[])]);
    rig.submit(20, 1, &job);
    rig.commit();
    rig.expect(&["append accepted", "client 20 #1: accepted 1"]);
    rig.submit(21, 2, &job);
    let said = rig.said();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("clients of your ticket"), "{said:?}");
    rig.submit(6, 3, &job);
    rig.commit();
    rig.expect(&["append accepted", "client 6 #3: accepted 2"]);
}
