//! Workers behind address translators, each on machines of its own, and the grid's own relay.

mod common;

use common::lab::{Lab, Nat};
use common::{Kept, Place, until};
use std::fs;
use tempfile::TempDir;

const RELAY: usize = 0;
const MIB: u64 = 1 << 20;

struct Grid {
    /// The supervisor's machine.
    place: Place,
    relay_place: Place,
    ticket: String,
    workers: Vec<(usize, Kept)>,
    relay: Option<Kept>,
    supervisor: Kept,
    lab: Lab,
    folder: TempDir,
}

impl Grid {
    /// A supervisor and a relay that all reach, and workers behind such translators.
    fn start(nats: [Nat; 2]) -> Grid {
        Grid::with(Lab::new(2), 1, &nats)
    }

    /// A supervisor at this machine, a relay that all reach, and workers behind such translators.
    fn with(mut lab: Lab, supervisor: usize, nats: &[Nat]) -> Grid {
        let folder = tempfile::tempdir().unwrap();
        let place = lab.place(supervisor, &folder.path().join("supervisor"));
        let supervisor = place.supervisor("0.0.0.0:7433");
        let relay_place = lab.place(RELAY, &folder.path().join("relay"));
        let ticket = place.ticket("relay");
        let behind: Vec<usize> = nats.iter().map(|nat| lab.add_behind(*nat)).collect();
        let mut grid = Grid {
            place,
            relay_place,
            ticket,
            workers: Vec::new(),
            relay: None,
            supervisor,
            lab,
            folder,
        };
        let relay = grid.start_relay();
        grid.place.ask(&["config", "set", "relay", &relay]);
        grid.await_relay();
        let ticket = grid.place.ticket("worker");
        for machine in &behind {
            let machine = *machine;
            let folder = grid.folder.path().join(format!("worker-{machine}"));
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
        self.relay = Some(relay);
        name
    }

    fn await_relay(&self) {
        let relay = self.relay.as_ref().unwrap();
        until("the relay to reach its grid", || {
            relay.err().contains("its members are served").then_some(())
        });
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
    let grid = Grid::start([Nat::Cone; 2]);
    // They look for it no longer than a second or two before they begin; on a busy machine it may be found later.
    let found = (0..5).any(|_| {
        let relayed = grid.exchange(16 * MIB);
        println!("{relayed} bytes came to the relay while 16 MiB went between workers");
        relayed < MIB
    });
    assert!(found, "{}", grid.workers[1].1.told());
}

#[test]
fn behind_translators_that_allow_no_direct_way_the_relay_carries_and_may_start_again() {
    let mut grid = Grid::start([Nat::Symmetric; 2]);
    let relayed = grid.exchange(4 * MIB);
    println!("{relayed} bytes came to the relay while 4 MiB went between workers");
    assert!(relayed > 4 * MIB, "{}", grid.workers[1].1.told());
    assert_eq!(grid.came("directly"), 0);
    assert!(grid.came("through a relay") > 0);
    let mut relay = grid.relay.take().unwrap();
    relay.signal("-KILL");
    relay.end();
    grid.place.await_workers(2);
    grid.start_relay();
    grid.await_relay();
    let relayed = grid.exchange(4 * MIB);
    assert!(relayed > 4 * MIB, "{}", grid.workers[1].1.told());
    grid.place.await_workers(2);
}

#[test]
fn where_one_translator_allows_no_direct_way_the_relay_carries() {
    let grid = Grid::start([Nat::Cone, Nat::Symmetric]);
    let relayed = grid.exchange(4 * MIB);
    println!("{relayed} bytes came to the relay while 4 MiB went between workers");
    assert!(relayed > 4 * MIB, "{}", grid.workers[1].1.told());
}

#[test]
fn a_supervisor_behind_a_translator_is_reached_through_the_relay() {
    let mut lab = Lab::new(1);
    let supervisor = lab.add_behind(Nat::Symmetric);
    let grid = Grid::with(lab, supervisor, &[Nat::Symmetric]);
    let id = {
        let job = "[[task]]\nid = \"a\"\ncommand = [\"sh\", \"-c\", \"echo made > made\"]\noutputs = [\"made\"]\n";
        fs::write(grid.place.folder.join("job.toml"), job).unwrap();
        grid.place.submit("job.toml")
    };
    let view = grid.place.wait(&id);
    assert_eq!(
        view["state"],
        "done",
        "{view}\n{}",
        grid.workers[0].1.told()
    );
    assert!(grid.supervisor.err().contains("through a relay"));
}

#[test]
fn a_client_behind_a_translator_gives_its_inputs_through_the_relay() {
    let mut grid = Grid::with(Lab::new(2), 1, &[Nat::Cone]);
    let machine = grid.lab.add_behind(Nat::Symmetric);
    let client = grid.lab.place(machine, &grid.folder.path().join("client"));
    fs::write(client.folder.join("input"), vec![b'x'; MIB as usize]).unwrap();
    let job = r#"
[[task]]
id = "count"
command = ["sh", "-c", "wc -c < input > size"]
inputs = ["input"]
outputs = ["size"]
"#;
    fs::write(client.folder.join("job.toml"), job).unwrap();
    let join = format!("--join={}", grid.place.ticket("client"));
    let args = ["submit", "--wait", "--out", "got", "job.toml", &join];
    let output = client.call(&args);
    assert_eq!(output.status.code(), Some(0), "{}", common::told(&output));
    let size = fs::read_to_string(client.folder.join("got/size")).unwrap();
    assert_eq!(size.trim(), MIB.to_string());
}
