//! A spawner, or a small worker, for the tests to start and kill.
//!
//! - `spawner [REFUSED…]`: what a worker starts, on a machine that refuses `namespaces` or `groups` (control groups).
//! - `worker BASE SCRIPT [SETTING…]`: runs a shell script as an attempt below `BASE`, without the network, and tells how
//!   it ended. Settings: `no-namespaces`, `no-sandbox`, `network`, `neighbour` for an attempt that runs beside, `linger`
//!   to stay after that until the standard input ends, and `pauses` to stop and go on meanwhile as the standard input
//!   says.
//! - `hold FILE`: maps the file and as much memory of its own until there is a file `stop`, then tells the sums of both.
//! - `rate BASE COUNT`: runs `true` COUNT times, two at a time, and tells how long one took.
//! - `attack [NAME…]`: tries what a hostile task may try.
//! - `short BASE`: runs attempts while it has no descriptors for more of them, and again when it has.
//! - `priorities`: tells its scheduling policy and that of a child that it makes at once.

mod attacks;
mod refuse;

use hedge_exec::{Launch, Running, Scratch, ScratchPool, Spawner, SpawnerConfig};
use std::os::fd::AsRawFd;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some(hedge_exec::spawner::ARGUMENT) => {
            refuse::refuse(&args[2..]);
            eprintln!("{}", hedge_exec::spawner::main());
            std::process::exit(2);
        }
        Some("worker") => run(worker(&args[2], &args[3], &args[4..])),
        Some("hold") => hold(&args[2]),
        Some("rate") => run(rate(&args[2], args[3].parse().unwrap())),
        Some("attack") => attacks::run(&args[2..]),
        Some("short") => run(short(&args[2])),
        Some("priorities") => priorities(),
        _ => panic!("spawner, or worker BASE SCRIPT [SETTING…], or hold FILE, or attack"),
    }
}

fn run(work: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.enable_all().build().unwrap().block_on(work);
}

async fn start(base: &str, change: impl FnOnce(&mut SpawnerConfig)) -> (ScratchPool, Spawner) {
    let pool = ScratchPool::open(base).unwrap();
    let mut config = SpawnerConfig::new(pool.base());
    change(&mut config);
    let spawner = Spawner::start(config).await.unwrap();
    (pool, spawner)
}

async fn worker(base: &str, script: &str, settings: &[String]) {
    let is_set = |name: &str| settings.iter().any(|setting| setting == name);
    let (pool, spawner) = start(base, |config| {
        if is_set("no-namespaces") {
            config.program.1.push("namespaces".into());
        }
        config.sandbox = !is_set("no-sandbox");
        config.network = is_set("network");
        config.accept_weak = is_set("no-namespaces");
        config.read_only = std::env::current_exe().into_iter().collect();
    })
    .await;
    println!("report {:?}", spawner.report());
    let scratch = pool.create().unwrap();
    let beside = pool.create().unwrap();
    let neighbour = match is_set("neighbour") {
        true => Some(start_neighbour(&spawner, &beside).await),
        false => None,
    };
    println!("folder {}", scratch.folder().display());
    let launch = Launch::new("sh", ["-c", script]);
    let running = spawner.launch(&scratch, launch).await;
    if is_set("pauses") {
        let spawner = spawner.clone();
        tokio::task::spawn_blocking(move || obey(&spawner));
    }
    let exit = running.wait().await;
    drop(neighbour);
    match exit.outcome {
        Ok(()) => println!("outcome done"),
        Err(ending) => println!("outcome {ending}"),
    }
    println!("{}", String::from_utf8_lossy(&exit.stdout.bytes));
    println!("{}", String::from_utf8_lossy(&exit.stderr.bytes));
    if is_set("linger") {
        println!("lingering");
        let _ = tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await;
    }
}

async fn start_neighbour(spawner: &Spawner, scratch: &Scratch) -> Running {
    let script = "echo x > secret; exec sleep 1000";
    let launch = Launch::new("sh", ["-c", script]);
    let running = spawner.launch(scratch, launch).await;
    while !scratch.folder().join("secret").exists() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    running
}

async fn rate(base: &str, count: u32) {
    let (pool, spawner) = start(base, |_| ()).await;
    let some = async |count: u32| {
        for _ in 0..count {
            let scratch = pool.create().unwrap();
            let exit = spawner.run(&scratch, Launch::new("true", [""; 0])).await;
            assert!(exit.outcome.is_ok(), "{exit:?}");
        }
    };
    tokio::join!(some(10), some(10));
    let since = std::time::Instant::now();
    tokio::join!(some(count / 2), some(count / 2));
    println!(
        "{:.1} µs",
        since.elapsed().as_secs_f64() * 1e6 / f64::from(count)
    );
}

async fn short(base: &str) {
    let limit = |most: Option<u64>| {
        let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let before = std::mem::replace(&mut limit.current, most);
        rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
        before
    };
    let (pool, spawner) = start(base, |_| ()).await;
    let launch = || Launch::new("sh", ["-c", "exit 3"]);
    let all: Vec<_> = (0..8).map(|_| pool.create().unwrap()).collect();
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let before = limit(Some(open));
    for scratch in &all {
        println!("then {:?}", spawner.run(scratch, launch()).await.outcome);
    }
    limit(before);
    for scratch in &all {
        loop {
            let outcome = spawner.run(scratch, launch()).await.outcome;
            println!("later {outcome:?}");
            if format!("{outcome:?}").contains("Exited") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

fn priorities() {
    // SAFETY: only return numbers, and the child ends at once.
    let (own, childs) = unsafe {
        let child = libc::fork();
        let policy = libc::sched_getscheduler(0);
        if child == 0 {
            libc::_exit(policy);
        }
        let mut status = 0;
        libc::waitpid(child, &raw mut status, 0);
        (policy, libc::WEXITSTATUS(status))
    };
    print!("{own} {childs}");
}

fn obey(spawner: &Spawner) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let on = line == "pause";
        spawner.pause(on).blocking_recv().unwrap();
        println!("paused {on}");
    }
}

fn hold(path: &str) {
    let file = std::fs::File::open(path).unwrap();
    let bytes = file.metadata().unwrap().len() as usize;
    // SAFETY: a new mapping of a file that nobody changes, which stays until the end.
    let mapped = unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        std::slice::from_raw_parts(at.cast::<u8>(), bytes)
    };
    let own = vec![3u8; bytes];
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    assert!(sum(mapped) > 0 && sum(&own) > 0);
    std::fs::write("held", "").unwrap();
    while !std::path::Path::new("stop").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    print!("{} {}", sum(mapped), sum(&own));
}
