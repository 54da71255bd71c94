//! Workers behind address translators, each on machines of its own, and the grid's own relay.

mod common;

use common::lab::{Lab, Nat};
use common::{Kept, Place, until};
use std::fs;
use tempfile::TempDir;

const SUPERVISOR: usize = 0;
const RELAY: usize = 1;
const MIB: u64 = 1 << 20;

struct Grid {
    /// The supervisor's machine.
    place: Place,
    relay_place: Place,
    ticket: String,
    workers: Vec<(usize, Kept)>,
    relay: Option<Kept>,
    _supervisor: Kept,
    lab: Lab,
    _folder: TempDir,
}

impl Grid {
    /// A supervisor and a relay that all reach, and two workers behind translators of their own.
    fn start(nat: Nat) -> Grid {
        let folder = tempfile::tempdir().unwrap();
        let mut lab = Lab::new(2);
        let place = lab.place(SUPERVISOR, &folder.path().join("supervisor"));
        let supervisor = place.supervisor(&format!("{}:7433", lab.address(SUPERVISOR)));
        let relay_place = lab.place(RELAY, &folder.path().join("relay"));
        let ticket = place.ticket("relay");
        let behind = [lab.add_behind(nat), lab.add_behind(nat)];
        let mut grid = Grid {
            place,
            relay_place,
            ticket,
            workers: Vec::new(),
            relay: None,
            _supervisor: supervisor,
            lab,
            _folder: folder,
        };
        let relay = grid.start_relay();
        grid.place.ask(&["config", "set", "relay", &relay]);
        let ticket = grid.place.ticket("worker");
        for machine in behind {
            let folder = grid._folder.path().join(format!("worker-{machine}"));
            let place = grid.lab.place(machine, &folder);
            let label = format!("machine={machine}");
            #[rustfmt::skip]
            let args = [
                "worker", "--join", &ticket, "--cpus", "1", "--label", &label,
                "--task-priority", "normal",
            ];
            let mut command = place.hedge(&args);
            command.env("HEDGE_LOG", "info,hedge_net=debug");
            grid.workers.push((machine, Kept::start(command, &folder)));
        }
        grid.place.await_workers(behind.len());
        grid
    }

    /// Starts the relay and gives its name.
    fn start_relay(&mut self) -> String {
        let listen = format!("{}:7434", self.lab.address(RELAY));
        let args = [
            "relay",
            "--join",
            &self.ticket,
            "--listen",
            &listen,
            "--json",
        ];
        let mut relay = self.relay_place.start(&args);
        let name = until("the relay to listen", || {
            assert!(relay.running(), "{}", relay.told());
            let told: serde_json::Value = serde_json::from_str(&relay.out()).ok()?;
            Some(told["relays"][0].as_str()?.to_owned())
        });
        until("the relay to reach its grid", || {
            relay.err().contains("its members are served").then_some(())
        });
        self.relay = Some(relay);
        name
    }

    /// Has the first worker make so much and the second use it; gives what the relay received meanwhile.
    fn exchange(&self, bytes: u64) -> u64 {
        let [from, to] = [self.workers[0].0, self.workers[1].0];
        let job = format!(
            r#"
name = "exchange"
[[task]]
id = "make"
labels = {{ machine = "{from}" }}
command = ["sh", "-c", "head -c {bytes} /dev/urandom > content; cksum < content > sum"]
outputs = ["content", "sum"]
[[task]]
id = "use"
labels = {{ machine = "{to}" }}
command = ["sh", "-c", "cksum < content | cmp - sum && wc -c < content > size"]
inputs = [{{ task = "make" }}]
outputs = ["size"]
"#
        );
        fs::write(self.place.folder.join("job.toml"), job).unwrap();
        let before = self.lab.traffic(RELAY).0;
        let id = self.place.submit("job.toml");
        let view = self.place.wait(&id);
        assert_eq!(
            view["state"],
            "done",
            "{view}\n{}",
            self.workers[1].1.told()
        );
        self.lab.traffic(RELAY).0 - before
    }

    /// How often the second worker had content on its way like this.
    fn came(&self, how: &str) -> usize {
        let told = self.workers[1].1.err();
        told.matches(&format!("content comes {how}")).count()
    }
}

#[test]
fn workers_behind_address_translators_find_a_direct_way() {
    let grid = Grid::start(Nat::Cone);
    let relayed = grid.exchange(16 * MIB);
    println!("{relayed} bytes came to the relay while 16 MiB went between workers");
    assert!(relayed < MIB, "{}", grid.workers[1].1.told());
    assert_eq!(
        (grid.came("directly"), grid.came("through a relay")),
        (1, 0)
    );
}

#[test]
fn behind_translators_that_allow_no_direct_way_the_relay_carries_and_may_start_again() {
    let mut grid = Grid::start(Nat::Symmetric);
    let relayed = grid.exchange(4 * MIB);
    println!("{relayed} bytes came to the relay while 4 MiB went between workers");
    assert!(relayed > 4 * MIB, "{}", grid.workers[1].1.told());
    assert_eq!(
        (grid.came("directly"), grid.came("through a relay")),
        (0, 1)
    );
    let mut relay = grid.relay.take().unwrap();
    relay.signal("-KILL");
    relay.end();
    grid.place.await_workers(2);
    grid.start_relay();
    let relayed = grid.exchange(4 * MIB);
    assert!(relayed > 4 * MIB, "{}", grid.workers[1].1.told());
    grid.place.await_workers(2);
}
