//! Private D-Buses, and services on them that imitate a desktop's.

use super::{Kept, until};
use std::path::Path;
use std::process::{Command, Stdio};

/// Debian's own interpreter: the one that has its packages.
const PYTHON: &str = "/usr/bin/python3";

/// A bus that stands for the machine's and the desktop's at once.
pub struct Buses {
    _daemon: Kept,
    services: Vec<Kept>,
    env: [String; 2],
    pub address: String,
}

impl Buses {
    /// Starts it with its files in `folder`.
    pub fn start(folder: &Path) -> Buses {
        let socket = folder.join("bus");
        let address = format!("unix:path={}", socket.display());
        let mut command = Command::new("dbus-daemon");
        command.args([
            "--session",
            "--nofork",
            "--nopidfile",
            "--address",
            &address,
        ]);
        let daemon = Kept::start(command, folder);
        until(&format!("the bus: {}", daemon.told()), || {
            socket.exists().then_some(())
        });
        Buses {
            _daemon: daemon,
            services: Vec::new(),
            env: [
                format!("DBUS_SYSTEM_BUS_ADDRESS={address}"),
                format!("DBUS_SESSION_BUS_ADDRESS={address}"),
            ],
            address,
        }
    }

    /// The command in front of programs that are to use it.
    pub fn before(&self) -> Vec<&str> {
        std::iter::once("env")
            .chain(self.env.iter().map(String::as_str))
            .collect()
    }

    /// Starts a program that offers a service, and waits for that.
    pub fn serve(&mut self, folder: &Path, service: &str, program: &[&str]) {
        let mut command = Command::new("env");
        command.args(&self.env).args(program);
        self.services.push(Kept::start(command, folder));
        self.await_service(service);
    }

    /// Waits until a service is offered.
    pub fn await_service(&self, service: &str) {
        until(&format!("the service {service}"), || {
            let bus = "org.freedesktop.DBus.NameHasOwner";
            let answer = self.try_call("org.freedesktop.DBus", "/", bus, &[service]);
            (answer? == "(true,)").then_some(())
        });
    }

    /// Starts an imitation by one of dbusmock's templates.
    pub fn imitate(&mut self, folder: &Path, service: &str, kind: &str, template: &str) {
        let program = [PYTHON, "-m", "dbusmock", kind, "--template", template];
        self.serve(folder, service, &program);
    }

    /// Starts an imitation without a template.
    pub fn imitate_plainly(&mut self, folder: &Path, kind: &str, service: &str, path: &str) {
        let program = [PYTHON, "-m", "dbusmock", kind, service, path, service];
        self.serve(folder, service, &program);
    }

    /// Ends all services.
    pub fn end_services(&mut self) {
        self.services.clear();
    }

    /// Calls a method.
    pub fn call(&self, service: &str, path: &str, method: &str, args: &[&str]) {
        let answer = self.try_call(service, path, method, args);
        assert!(answer.is_some(), "{service} {path} {method} {args:?}");
    }

    fn try_call(&self, service: &str, path: &str, method: &str, args: &[&str]) -> Option<String> {
        try_call(&self.address, service, path, method, args)
    }
}

/// Calls a method of an object on the bus at this address; nothing where that fails.
pub fn try_call(
    address: &str,
    service: &str,
    path: &str,
    method: &str,
    args: &[&str],
) -> Option<String> {
    let output = Command::new("gdbus")
        .args(["call", "--address", address, "--dest", service])
        .args(["--object-path", path, "--method", method])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    output.status.success().then(|| answer.trim().to_owned())
}
