//! A supervisor, three workers and a client on machines of their own: a real job outlives a pulled cable and a
//! client that leaves, and content goes from worker to worker.

mod common;

use common::lab::Lab;
use common::{Kept, Place, until};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const SUPERVISOR: usize = 0;
const WORKERS: [usize; 3] = [1, 2, 3];
const CLIENT: usize = 4;

struct Grid {
    /// The supervisor's machine.
    place: Place,
    /// Ends before the network does.
    workers: Vec<Kept>,
    _supervisor: Kept,
    lab: Lab,
    folder: TempDir,
}

impl Grid {
    fn start() -> Grid {
        let folder = tempfile::tempdir().unwrap();
        let lab = Lab::new(5);
        let place = lab.place(SUPERVISOR, &folder.path().join("supervisor"));
        // At every address, as a user starts it.
        let supervisor = place.supervisor("0.0.0.0:7433");
        let ticket = place.ticket("worker");
        let start = |machine: usize| {
            let place = lab.place(machine, &folder.path().join(format!("worker-{machine}")));
            let label = format!("machine={machine}");
            #[rustfmt::skip]
            let args = [
                "worker", "--join", &ticket, "--cpus", "1", "--label", &label,
                "--task-priority", "normal", "--no-sandbox",
            ];
            place.start(&args)
        };
        let workers = WORKERS.map(start).into();
        place.await_workers(WORKERS.len());
        Grid {
            place,
            workers,
            _supervisor: supervisor,
            lab,
            folder,
        }
    }

    /// A place on the client's machine, and the option that names the grid there.
    fn client(&self) -> (Place, String) {
        let place = self.lab.place(CLIENT, &self.folder.path().join("client"));
        (place, format!("--join={}", self.place.ticket("client")))
    }

    /// The machine that runs a task now.
    fn machine_of(&self, job: &str, task: &str) -> Option<usize> {
        let told = self.place.ask(&["explain", job, task]);
        let attempts = told["tasks"][0]["attempts"].as_array()?.clone();
        let running = attempts
            .iter()
            .find(|attempt| attempt["state"] == "running")?;
        let short = running["worker"].as_str()?.split(' ').next()?.to_owned();
        let workers = self.place.workers();
        let worker = workers
            .iter()
            .find(|worker| worker["peer"].as_str().unwrap().starts_with(&short))?;
        let at = self
            .workers
            .iter()
            .position(|kept| worker["pid"] == kept.pid())?;
        Some(WORKERS[at])
    }
}

/// The animation of the examples with a dozen small frames, of which the second half waits for leave.
fn animation(folder: &Path, leave: &Path) {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/povray");
    let job = fs::read_to_string(example.join("job.toml")).unwrap();
    let wait = format!(
        "[ $HEDGE_INDEX -lt 6 ] || until [ -e {} ]; do sleep 0.1; done; exec povray \"$@\"",
        leave.display()
    );
    let gated = format!("\"sh\", \"-c\", {wait:?}, \"sh\", \"+Iscene.pov\"");
    let small = job
        .replace("\"povray\", \"+Iscene.pov\"", &gated)
        .replace("0..60", "0..12")
        .replace("[0-59]", "[0-11]")
        .replace("+W320", "+W200")
        .replace("+H240", "+H150");
    let changed = ["0..12", "[0-11]", "+W200", &gated];
    assert!(changed.iter().all(|part| small.contains(part)), "{small}");
    fs::write(folder.join("job.toml"), small).unwrap();
    fs::copy(example.join("scene.pov"), folder.join("scene.pov")).unwrap();
}

#[test]
fn an_animation_is_made_although_a_worker_is_cut_off_and_the_client_leaves() {
    let grid = Grid::start();
    let (client, join) = grid.client();
    let leave = grid.folder.path().join("leave");
    animation(&client.folder, &leave);
    let job = client.ask(&["submit", "job.toml", &join])["job"].to_string();
    grid.lab.cut(CLIENT);
    let cut = until("some frames to be made and others to be in hand", || {
        let view = grid.place.ask(&["job", &job]);
        (view["done"].as_u64().unwrap() >= 2).then_some(())?;
        (6..12).find_map(|frame| grid.machine_of(&job, &format!("frame.{frame}")))
    });
    grid.lab.cut(cut);
    fs::write(&leave, "").unwrap();
    let view = grid.place.wait(&job);
    assert_eq!(view["state"], "done", "{view}");
    assert_eq!((&view["done"], &view["tasks"]), (&13.into(), &13.into()));
    let lost = view["attempts"]["lost"].as_u64().unwrap();
    assert!(lost >= 1, "the worker had something in hand: {view}");
    grid.lab.mend(CLIENT);
    let fetched = client.ask(&["fetch", &job, "--out", "made", &join]);
    assert_eq!(fetched["results"][0], "made/sheet.png", "{fetched}");
    let sheet = fs::read(client.folder.join("made/sheet.png")).unwrap();
    assert!(sheet.starts_with(b"\x89PNG") && sheet.len() > 20_000);
    // Ten frames beside each other, the rest below.
    assert_eq!(png_size(&sheet), (10 * 164, 2 * 124));
    // Back at the network, the worker takes part again.
    grid.lab.mend(cut);
    grid.place.await_workers(WORKERS.len());
}

fn png_size(png: &[u8]) -> (u32, u32) {
    let number = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    (number(16), number(20))
}

#[test]
fn workers_give_content_to_each_other_directly() {
    const MIB: u64 = 1 << 20;
    let grid = Grid::start();
    let mut job = r#"
name = "exchange"
[[task]]
id = "make"
labels = { machine = "1" }
command = ["sh", "-c", "head -c 33554432 /dev/urandom > content; cksum < content > sum"]
outputs = ["content", "sum"]
"#
    .to_owned();
    for machine in [2, 3] {
        let task = r#"
[[task]]
id = "use-N"
labels = { machine = "N" }
command = ["sh", "-c", "cksum < content | cmp - sum && wc -c < content > size-N"]
inputs = [{ task = "make" }]
outputs = ["size-N"]
"#;
        job.push_str(
            &task
                .replace("-N", &format!("-{machine}"))
                .replace("\"N\"", &format!("\"{machine}\"")),
        );
    }
    fs::write(grid.place.folder.join("job.toml"), job).unwrap();
    let before = [0, 1, 2, 3].map(|machine| grid.lab.traffic(machine));
    let id = grid.place.submit("job.toml");
    let view = grid.place.wait(&id);
    assert_eq!(view["state"], "done", "{view}");
    let after = [0, 1, 2, 3].map(|machine| grid.lab.traffic(machine));
    let received = |machine: usize| after[machine].0 - before[machine].0;
    let sent = |machine: usize| after[machine].1 - before[machine].1;
    assert!(received(2) > 32 * MIB && received(3) > 32 * MIB);
    assert!(sent(1) + sent(2) + sent(3) > 64 * MIB);
    println!(
        "the supervisor received {} and sent {} bytes while 64 MiB went between workers",
        received(SUPERVISOR),
        sent(SUPERVISOR)
    );
    assert!(received(SUPERVISOR) < MIB && sent(SUPERVISOR) < MIB);
    grid.place.ask(&["fetch", &id, "--out", "got"]);
    let size = fs::read_to_string(grid.place.folder.join("got/size-3")).unwrap();
    assert_eq!(size.trim(), "33554432");
}
