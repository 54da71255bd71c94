//! How many processes a second: attempts through the spawner, sandboxed, in scratch folders, with captured
//! output, beside a plain spawn-and-wait loop with the same number in flight at the same priority.
//!
//! `cargo run --release -p hedge-exec --example spawn_rate [COUNT] [IN_FLIGHT]`

use hedge_exec::{Launch, Priority, ScratchPool, Spawner, SpawnerConfig};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

fn main() {
    if std::env::args().nth(1).as_deref() == Some(hedge_exec::spawner::ARGUMENT) {
        eprintln!("{}", hedge_exec::spawner::main());
        std::process::exit(2);
    }
    let number = |at, default| {
        std::env::args()
            .nth(at)
            .map_or(default, |text| text.parse().expect("a number"))
    };
    let (count, in_flight): (usize, usize) = (number(1, 4000), number(2, 4));
    let base = std::env::temp_dir().join(format!("spawn-rate-{}", std::process::id()));
    println!(
        "rates are tasks a second, CPU is that of the loop, the spawner and the tasks, in µs a task"
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    for priority in [Priority::Idle, Priority::Normal] {
        let mut rates: [Vec<f64>; 3] = Default::default();
        let mut cpus: [Vec<f64>; 3] = Default::default();
        // In turn, so that whatever else the machine does meets all alike.
        for _ in 0..ROUNDS {
            for way in 0..3 {
                let before = cpu_us();
                let count = count / ROUNDS;
                rates[way].push(match way {
                    0 => raw(count, in_flight, priority),
                    _ => runtime.block_on(ours(&base, count, in_flight, priority, way == 1)),
                });
                cpus[way].push((cpu_us() - before) / count as f64);
            }
        }
        let [rates, cpus] = [rates, cpus].map(|all| all.map(median));
        for (way, name) in ["raw loop", "sandboxed", "no sandbox"].iter().enumerate() {
            println!(
                "{priority:?} {name:>10}: {:5.0}/s, ratio {:.2}; CPU {:4.0} us, ratio {:.2}",
                rates[way],
                rates[way] / rates[0],
                cpus[way],
                cpus[0] / cpus[way]
            );
        }
    }
    runtime.block_on(times(&base));
    let _ = std::fs::remove_dir_all(base);
}

/// How long one takes by itself.
async fn times(base: &std::path::Path) {
    let pool = ScratchPool::open(base).expect("a folder");
    let mut all: [Vec<f64>; 3] = Default::default();
    for _ in 0..10 {
        let since = Instant::now();
        let mut config = SpawnerConfig::new(pool.base());
        offer(&mut config);
        let spawner = Spawner::start(config).await.expect("a spawner");
        all[0].push(since.elapsed().as_secs_f64() * 1e3);
        for _ in 0..50 {
            let since = Instant::now();
            let scratch = pool.create().expect("a folder");
            spawner
                .run(&scratch, Launch::new("true", Vec::<String>::new()))
                .await;
            all[1].push(since.elapsed().as_secs_f64() * 1e3);
        }
        let since = Instant::now();
        spawner.stop().await;
        all[2].push(since.elapsed().as_secs_f64() * 1e3);
    }
    let [start, run, stop] = all.map(median);
    println!(
        "medians: spawner start {start:.1} ms, one attempt {run:.2} ms, spawner stop {stop:.1} ms"
    );
}

const ROUNDS: usize = 5;

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// CPU time of this process and all that it has waited for.
fn cpu_us() -> f64 {
    let us = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN]
        .map(|who| {
            // SAFETY: all zeroes is a valid value, and it is valid for the call.
            let usage = unsafe {
                let mut usage: libc::rusage = std::mem::zeroed();
                libc::getrusage(who, &raw mut usage);
                usage
            };
            us(usage.ru_utime) + us(usage.ru_stime)
        })
        .iter()
        .sum()
}

/// A plain loop: start, wait, start the next.
fn raw(count: usize, in_flight: usize, priority: Priority) -> f64 {
    let since = Instant::now();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // One thread: waits for whichever child ends.
        scope.spawn(|| {
            if priority == Priority::Idle {
                let none = libc::sched_param { sched_priority: 0 };
                // SAFETY: changes this thread, and so the children it starts.
                unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) };
            }
            let mut running = 0;
            loop {
                while running < in_flight && next.fetch_add(1, Ordering::Relaxed) < count {
                    #[allow(clippy::zombie_processes)] // the waiting is below
                    std::process::Command::new("/usr/bin/true")
                        .spawn()
                        .expect("/usr/bin/true");
                    running += 1;
                }
                if running == 0 {
                    return;
                }
                // SAFETY: no other child is waited for meanwhile.
                unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) };
                running -= 1;
            }
        });
    });
    count as f64 / since.elapsed().as_secs_f64()
}

/// Offers memory and disk space, as a worker does: the spawner then looks at what attempts use.
fn offer(config: &mut SpawnerConfig) {
    config.memory_max = Some(64 << 30);
    config.disk_max = Some(64 << 30);
}

async fn ours(
    base: &std::path::Path,
    count: usize,
    in_flight: usize,
    priority: Priority,
    sandbox: bool,
) -> f64 {
    let pool = ScratchPool::open(base).expect("a folder");
    let mut config = SpawnerConfig::new(pool.base());
    config.priority = priority;
    config.sandbox = sandbox;
    offer(&mut config);
    let spawner = Spawner::start(config).await.expect("a spawner");
    let next = Arc::new(AtomicUsize::new(0));
    let since = Instant::now();
    let mut lanes = Vec::new();
    for _ in 0..in_flight {
        let (pool, spawner, next) = (pool.clone(), spawner.clone(), next.clone());
        lanes.push(tokio::spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < count {
                let scratch = pool.create().expect("a folder");
                let exit = spawner
                    .run(&scratch, Launch::new("true", Vec::<String>::new()))
                    .await;
                assert!(exit.outcome.is_ok(), "{exit:?}");
            }
        }));
    }
    for lane in lanes {
        lane.await.expect("a lane");
    }
    let rate = count as f64 / since.elapsed().as_secs_f64();
    spawner.stop().await;
    rate
}
