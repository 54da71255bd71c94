//! `hedge doctor`: what works on this machine, and what to do about what does not.

use super::{Context, block_on, doctor_owner};
use crate::args::Doctor;
use crate::exit::{Exit, Failure};
use crate::show::doctor::{Finding, Verdict, finding, text};
use crate::show::{sandbox as show_sandbox, time};
use hedge_exec::{Launch, Report, Sandbox, ScratchPool, Spawner, SpawnerConfig, Weakness};
use hedge_model::units::show_bytes;
use rustix::process::{Resource, getrlimit};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Fewest open files for comfort: each attempt and each peer needs a few.
const FILES_WANTED: u64 = 4096;
/// Fewest processes for comfort.
const PROCESSES_WANTED: u64 = 4096;
/// Less free disk than this makes jobs fail soon.
const DISK_WANTED: u64 = 2 << 30;

/// Looks at everything; fails with exit code 1 where something does not work at all.
///
/// # Errors
/// The findings cannot be printed.
pub fn run(context: &Context, args: &Doctor) -> Result<Exit, Failure> {
    let owner = doctor_owner::config(args)?;
    if args.watch {
        return doctor_owner::watch(context, owner.sources);
    }
    let mut findings =
        block_on(async { Ok(attempts(owner.free_memory, &context.folders.worker()).await) })?;
    findings.push(priority());
    let files = limit(
        "open files",
        Resource::Nofile,
        FILES_WANTED,
        "`ulimit -n`, or LimitNOFILE= of a service",
    );
    findings.push(files);
    let processes = limit(
        "processes",
        Resource::Nproc,
        PROCESSES_WANTED,
        "`ulimit -u`, or TasksMax= of a service",
    );
    findings.push(processes);
    findings.extend(machine(context));
    findings.extend(doctor_owner::findings(owner.sources)?);
    context.look.print(&findings, || text(&findings))?;
    let bad = findings
        .iter()
        .any(|finding| finding.verdict == Verdict::Bad);
    Ok(if bad { Exit::Failed } else { Exit::Done })
}

/// Runs a task as a worker would, and tells what protects it and from it.
async fn attempts(free_memory: bool, dir: &Path) -> Vec<Finding> {
    let bad = |what, why: String, advice| vec![finding(what, Verdict::Bad, why, Some(advice))];
    let folder = match tempfile::Builder::new().prefix("hedge-doctor-").tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            return bad(
                "scratch folders",
                format!("cannot be made: {error}"),
                "set TMPDIR to a folder that can be written",
            );
        }
    };
    let scratch = match ScratchPool::open(folder.path().join("scratch")) {
        Ok(scratch) => scratch,
        Err(error) => {
            return bad(
                "scratch folders",
                error.to_string(),
                "set TMPDIR to a folder that can be written",
            );
        }
    };
    let mut config = SpawnerConfig::new(scratch.base());
    config.accept_weak = true;
    let spawner = match Spawner::start(config).await {
        Ok(spawner) => spawner,
        Err(error) => {
            return bad(
                "sandbox",
                error.to_string(),
                "no task can be run until this is solved",
            );
        }
    };
    let mut findings = protections(&spawner.report().for_worker_in(dir));
    if free_memory {
        findings.push(tasks_memory(spawner.may_free_memory()));
    }
    findings.push(one_task(&spawner, &scratch).await);
    spawner.stop().await;
    findings
}

async fn one_task(spawner: &Spawner, scratch: &ScratchPool) -> Finding {
    let folder = match scratch.create() {
        Ok(folder) => folder,
        Err(error) => return finding("running a task", Verdict::Bad, error.to_string(), None),
    };
    let started = Instant::now();
    let exit = spawner.run(&folder, Launch::new("true", [""; 0])).await;
    match exit.outcome {
        Ok(()) => {
            let took = time(started.elapsed().as_secs_f64() * 1000.0);
            finding(
                "running a task",
                Verdict::Good,
                format!("`true` ran in {took}"),
                None,
            )
        }
        Err(ending) => finding(
            "running a task",
            Verdict::Bad,
            format!("`true` failed: {ending}"),
            Some("look at what stands above; HEDGE_LOG=debug says more"),
        ),
    }
}

fn protections(report: &Report) -> Vec<Finding> {
    let network = if report.network_cut {
        finding(
            "tasks' network",
            Verdict::Good,
            "cut off unless --allow-network",
            None,
        )
    } else {
        finding(
            "tasks' network",
            Verdict::Reduced,
            "cannot be cut off",
            Some("allow network namespaces"),
        )
    };
    let mut findings = vec![sandbox(report)];
    findings.extend(show_sandbox::guaranteed(report).map(|kept| {
        let found = format!("guaranteed: {kept}");
        finding("sandbox", Verdict::Good, found, None)
    }));
    findings.extend(report.weaknesses.iter().map(weak));
    findings.extend([
        tasks_user(report),
        network,
        tasks_number(report),
        tasks_priority(report),
        tasks_pausing(report),
    ]);
    findings
}

fn sandbox(report: &Report) -> Finding {
    let verdict = match report.sandbox {
        Sandbox::View { .. } => Verdict::Good,
        Sandbox::Landlock { .. } => Verdict::Reduced,
        Sandbox::None => Verdict::Bad,
    };
    let advice = report.reduced.as_ref().map(|why| {
        format!(
            "allow user namespaces ({why}): sysctl kernel.unprivileged_userns_clone=1, \
             kernel.apparmor_restrict_unprivileged_userns=0, or the container's system call filter"
        )
    });
    finding(
        "sandbox",
        verdict,
        show_sandbox::line(report),
        advice.as_deref(),
    )
}

/// What the sandbox does not keep from tasks: a worker refuses to start unless its owner accepts it.
fn weak(weakness: &Weakness) -> Finding {
    let found = format!("not guaranteed: {}", weakness.text());
    let advice = "workers start with --accept-weak-sandbox alone";
    finding("sandbox", Verdict::Reduced, found, Some(advice))
}

/// Whom tasks run as.
fn tasks_user(report: &Report) -> Finding {
    let what = "tasks' user";
    match report.task_user {
        Some(user) => finding(
            what,
            Verdict::Good,
            format!("one for each that runs, who owns nothing else (the first is {user})"),
            None,
        ),
        None => finding(what, Verdict::Good, "the worker's own", None),
    }
}

/// How many processes a task may have.
fn tasks_number(report: &Report) -> Finding {
    match report.processes_max {
        Some(most) => finding(
            "tasks' processes",
            Verdict::Good,
            format!("at most {most} processes and threads of each"),
            None,
        ),
        None => finding("tasks' processes", Verdict::Reduced, "not bounded", None),
    }
}

fn tasks_priority(report: &Report) -> Finding {
    match (report.idle, report.autogroup) {
        (true, false) => finding(
            "tasks' priority",
            Verdict::Good,
            "idle: tasks run when nothing else wants the CPU",
            None,
        ),
        (true, true) => finding(
            "tasks' priority",
            Verdict::Reduced,
            "idle, but the kernel shares the CPU out between login sessions first",
            Some("sysctl kernel.sched_autogroup_enabled=0, or run the worker as a system service"),
        ),
        (false, _) => finding(
            "tasks' priority",
            Verdict::Reduced,
            "like any program: SCHED_IDLE is refused",
            Some("allow sched_setscheduler in the container's system call filter"),
        ),
    }
}

/// How tasks are stopped while the owner is there.
fn tasks_pausing(report: &Report) -> Finding {
    let how = if report.freezer {
        "the kernel stops all tasks at once, in a control group of their own"
    } else {
        "by a signal to each of their processes: no control group may be made here"
    };
    finding("tasks' pausing", Verdict::Good, how, None)
}

/// What becomes of tasks' memory while they are stopped, where the owner wants it back.
fn tasks_memory(allowed: bool) -> Finding {
    let what = "tasks' memory";
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    // Below a line of headings.
    let swap = swaps.lines().count() > 1;
    if !allowed {
        return finding(
            what,
            Verdict::Reduced,
            "stays while they are stopped: this user may not push out what other processes hold",
            Some("give it CAP_SYS_NICE (AmbientCapabilities=CAP_SYS_NICE of a service)"),
        );
    }
    if swap {
        let found = "pushed out to swap while they are stopped";
        finding(what, Verdict::Good, found, None)
    } else {
        finding(
            what,
            Verdict::Reduced,
            "there is no swap: while they are stopped, what they hold of files is dropped, and the rest stays",
            Some("make some swap: mkswap and swapon"),
        )
    }
}

/// Whether the network's threads may go before other work, so that heartbeats stay on time on a busy machine.
fn priority() -> Finding {
    if hedge_node::priority_can_be_raised() {
        finding("network priority", Verdict::Good, "raised", None)
    } else {
        finding(
            "network priority",
            Verdict::Reduced,
            "cannot be raised: heartbeats may be late while the machine is busy",
            Some(
                "give the user a negative `nice` limit (limits.conf, LimitNICE=-10 of a service) or CAP_SYS_NICE",
            ),
        )
    }
}

fn limit(what: &'static str, resource: Resource, wanted: u64, advice: &str) -> Finding {
    let limit = getrlimit(resource);
    match limit.current {
        None => finding(what, Verdict::Good, "without limit", None),
        Some(current) if current >= wanted => {
            finding(what, Verdict::Good, format!("up to {current}"), None)
        }
        Some(current) => {
            let found = format!("up to {current}; {wanted} are better for many tasks and peers");
            finding(
                what,
                Verdict::Reduced,
                found,
                Some(&format!("raise it: {advice}")),
            )
        }
    }
}

fn machine(context: &Context) -> Vec<Finding> {
    let dir = context.folders.worker();
    let has = hedge_node::worker::offer(&dir);
    let disk = format!("{} free at {}", show_bytes(has.disk), dir.display());
    let disk = if has.disk >= DISK_WANTED {
        finding("disk", Verdict::Good, disk, None)
    } else {
        finding(
            "disk",
            Verdict::Reduced,
            disk,
            Some("free some space, or give --dir a place that has more"),
        )
    };
    let cpus = format!(
        "{} CPUs, {} memory",
        has.cpus_milli / 1000,
        show_bytes(has.memory)
    );
    vec![disk, finding("machine", Verdict::Good, cpus, None), gpus()]
}

/// The GPUs that a worker here would offer. A machine without any is no worse.
fn gpus() -> Finding {
    let all = hedge_host::gpus(Path::new("/"));
    if all.is_empty() {
        let none = "none with a driver that is loaded (NVIDIA, AMD, Intel)";
        return finding("GPUs", Verdict::Good, none, None);
    }
    let shown: Vec<String> = all
        .iter()
        .map(|gpu| {
            let nodes: Vec<_> = gpu
                .nodes
                .iter()
                .map(|node| node.display().to_string())
                .collect();
            format!("{} ({})", gpu.model, nodes.join(", "))
        })
        .collect();
    let found = shown.join("; ");
    match all.iter().find_map(|gpu| closed_node(&gpu.nodes)) {
        None => finding("GPUs", Verdict::Good, found, None),
        Some((node, error)) => {
            let found = format!("{found}; {} cannot be opened: {error}", node.display());
            let advice =
                "let the worker's user open it, as by the group that owns it, often `render`";
            finding("GPUs", Verdict::Reduced, found, Some(advice))
        }
    }
}

/// The first device node that this user may not open, if there is one.
fn closed_node(nodes: &[PathBuf]) -> Option<(&PathBuf, std::io::Error)> {
    nodes.iter().find_map(|node| {
        let opened = std::fs::File::options().read(true).write(true).open(node);
        Some((node, opened.err()?))
    })
}
