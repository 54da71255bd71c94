//! A small network of its own: each machine is a network namespace with an address, joined by a bridge whose
//! ports can be cut, slowed and read. Needs root.

use super::Place;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Begins the names of all namespaces that tests make; the test's process id follows.
const PREFIX: &str = "hedge-lab-";

/// How an address translator gives out ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// One port outside for each inside, for any peer at the other end.
    Cone,
    /// Another port for each other end, at random.
    Symmetric,
}

/// Machines joined by a bridge. Removed with all its namespaces at the end.
pub struct Lab {
    name: String,
    machines: usize,
}

impl Lab {
    /// So many machines, numbered from 0, with the addresses 10.77.0.1 and on.
    pub fn new(machines: usize) -> Lab {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes network namespaces, which only root may: run it with sudo"
        );
        remove_stale();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let lab = Lab { name, machines };
        let hub = lab.hub();
        ip(&["netns", "add", &hub]);
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"]);
        ip(&["-n", &hub, "link", "set", "bridge", "up"]);
        for machine in 0..machines {
            lab.add(machine);
        }
        lab
    }

    fn add(&self, machine: usize) {
        let (hub, own, port) = (self.hub(), self.namespace(machine), port(machine));
        ip(&["netns", "add", &own]);
        ip(&[
            "-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &own,
        ]);
        ip(&["-n", &hub, "link", "set", &port, "master", "bridge", "up"]);
        let address = format!("{}/24", self.address(machine));
        ip(&["-n", &own, "address", "add", &address, "dev", "eth0"]);
        ip(&["-n", &own, "link", "set", "lo", "up"]);
        ip(&["-n", &own, "link", "set", "eth0", "up"]);
    }

    /// Adds a machine that reaches the others through an address translator alone; returns its number. From outside
    /// nothing gets in that was not asked for.
    pub fn add_behind(&mut self, nat: Nat) -> usize {
        let machine = self.machines;
        self.machines += 1;
        let (hub, router, own) = (self.hub(), self.router(machine), self.namespace(machine));
        for name in [&router, &own] {
            ip(&["netns", "add", name]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        let port = port(machine);
        #[rustfmt::skip]
        ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "outside", "netns", &router]);
        ip(&["-n", &hub, "link", "set", &port, "master", "bridge", "up"]);
        #[rustfmt::skip]
        ip(&["-n", &router, "link", "add", "inside", "type", "veth", "peer", "name", "eth0", "netns", &own]);
        let at = |name: &str, address: &str, link: &str| {
            ip(&["-n", name, "address", "add", address, "dev", link]);
            ip(&["-n", name, "link", "set", link, "up"]);
        };
        at(&router, &format!("{}/24", self.address(machine)), "outside");
        at(&router, "192.168.77.1/24", "inside");
        at(&own, &format!("192.168.77.{}/24", machine + 10), "eth0");
        ip(&["-n", &own, "route", "add", "default", "via", "192.168.77.1"]);
        let ports = match nat {
            Nat::Cone => "",
            Nat::Symmetric => "fully-random",
        };
        let rules = format!(
            "table ip nat {{
                chain out {{ type nat hook postrouting priority 100; oifname outside masquerade {ports}; }}
                chain in {{ type filter hook input priority 0; iifname outside ct state new drop; }}
            }}"
        );
        let exec = |program: &str, args: &[&str]| {
            run("ip", &[&["netns", "exec", &router, program], args].concat());
        };
        exec("sysctl", &["-q", "-w", "net.ipv4.ip_forward=1"]);
        exec("nft", &[&rules]);
        machine
    }

    /// A machine's address; for one behind a translator, that of the translator.
    pub fn address(&self, machine: usize) -> String {
        format!("10.77.0.{}", machine + 1)
    }

    /// A place on a machine.
    pub fn place(&self, machine: usize, folder: &Path) -> Place {
        let net = format!("--net=/run/netns/{}", self.namespace(machine));
        Place::behind(&["nsenter", &net, "--"], folder)
    }

    /// Gives a machine another address in place of its own.
    pub fn readdress(&self, machine: usize, address: &str) {
        let own = self.namespace(machine);
        let old = format!("{}/24", self.address(machine));
        ip(&["-n", &own, "address", "delete", &old, "dev", "eth0"]);
        let new = format!("{address}/24");
        ip(&["-n", &own, "address", "add", &new, "dev", "eth0"]);
    }

    /// Lets a machine send to groups, as one with a way to elsewhere does.
    pub fn multicast(&self, machine: usize) {
        let own = self.namespace(machine);
        ip(&["-n", &own, "route", "add", "224.0.0.0/4", "dev", "eth0"]);
    }

    /// Takes a machine's link down, as if its cable were pulled at the other end.
    pub fn cut(&self, machine: usize) {
        ip(&["-n", &self.hub(), "link", "set", &port(machine), "down"]);
    }

    /// Puts it up again.
    pub fn mend(&self, machine: usize) {
        ip(&["-n", &self.hub(), "link", "set", &port(machine), "up"]);
    }

    /// Lets a machine receive only so much from now on, like `8mbit`.
    pub fn slow(&self, machine: usize, rate: &str) {
        let port = port(machine);
        #[rustfmt::skip]
        let args = [
            "-n", &self.hub(), "qdisc", "replace", "dev", &port, "root",
            "tbf", "rate", rate, "burst", "16kb", "latency", "100ms",
        ];
        run("tc", &args);
    }

    /// Lets a machine receive and send only so many bits a second from now on; what may pass at once is what comes in
    /// 10 ms, but some packets.
    pub fn shape(&self, machine: usize, rate: u64) {
        let (hub, own) = (self.hub(), self.namespace(machine));
        let (rate, burst) = (format!("{rate}bit"), (rate / 800).max(5_000).to_string());
        for (place, device) in [(&hub, &*port(machine)), (&own, "eth0")] {
            #[rustfmt::skip]
            let args = [
                "-n", place, "qdisc", "replace", "dev", device, "root",
                "tbf", "rate", &rate, "burst", &burst, "latency", "50ms",
            ];
            run("tc", &args);
        }
    }

    /// Lifts that.
    pub fn unshape(&self, machine: usize) {
        let (hub, own) = (self.hub(), self.namespace(machine));
        for (place, device) in [(&hub, &*port(machine)), (&own, "eth0")] {
            run("tc", &["-n", place, "qdisc", "del", "dev", device, "root"]);
        }
    }

    /// Bytes that a machine has received and sent.
    pub fn traffic(&self, machine: usize) -> (u64, u64) {
        let read = |what: &str| {
            let path = format!("/sys/class/net/eth0/statistics/{what}_bytes");
            let own = self.namespace(machine);
            let text = run("ip", &["netns", "exec", &own, "cat", &path]);
            text.trim().parse().unwrap()
        };
        (read("rx"), read("tx"))
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    fn router(&self, machine: usize) -> String {
        format!("{}-{machine}r", self.name)
    }

    fn namespace(&self, machine: usize) -> String {
        format!("{}-{machine}", self.name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let all = (0..self.machines).flat_map(|n| [self.namespace(n), self.router(n)]);
        let here = |name: &String| Path::new("/run/netns").join(name).exists();
        for name in all.chain([self.hub()]).filter(here) {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

/// Removes what tests left that were killed.
fn remove_stale() {
    let Ok(all) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in all {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

fn port(machine: usize) -> String {
    format!("port{machine}")
}

fn ip(args: &[&str]) {
    run("ip", args);
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    assert!(
        output.status.success(),
        "{program} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
