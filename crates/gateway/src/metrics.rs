//! Metrics of the grid and of the gateway, in the text format of OpenMetrics.

use crate::app::App;
use crate::problem::Problem;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hedge_model::msg::{Reply, Request};
use hedge_model::view::{JobState, JobView, WorkerView};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::collections::HashSet;
use std::sync::atomic::AtomicU64;

/// The media type of the format.
const FORM: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The media type of the older one.
const PLAIN_FORM: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A figure of a job.
type Figure = fn(&JobView) -> u64;
type Real = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByUse {
    r#use: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByWorker {
    liveness: String,
    usage: String,
}

/// Show metrics
///
/// They describe the jobs that the gateway's ticket may see, the workers, and the gateway.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "gateway",
    responses(
        (status = 200, description = "OpenMetrics.", body = String, content_type = "application/openmetrics-text"),
        Problem,
    ),
)]
pub async fn metrics(State(app): State<App>) -> Result<Response, Problem> {
    let jobs = app.client().jobs().await?;
    let Reply::Workers(workers) = app.ask(Request::Workers).await? else {
        return Err(Problem::unexpected());
    };
    let mut registry = Registry::with_prefix("hedge");
    of_grid(&mut registry, &jobs, &workers);
    of_attempts(&mut registry, &jobs);
    of_gateway(&mut registry, &app);
    respond(&registry)
}

/// The same for readers that know the older text format alone.
pub fn respond_plain(registry: &Registry) -> Result<Response, Problem> {
    let mut response = plain(&text(registry)?).into_response();
    let form = HeaderValue::from_static(PLAIN_FORM);
    response.headers_mut().insert(CONTENT_TYPE, form);
    Ok(response)
}

/// The older format: counters are described by the names of their series, and units and the end are left out.
fn plain(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let counters = lines.iter().filter_map(|line| {
        let (name, form) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        (form == "counter").then_some(name)
    });
    let counters: HashSet<&str> = counters.collect();
    let mut plain = String::with_capacity(text.len());
    for line in lines {
        let Some(comment) = line.strip_prefix("# ") else {
            plain += line;
            plain.push('\n');
            continue;
        };
        let words: Vec<&str> = comment.splitn(3, ' ').collect();
        if let [kind @ ("HELP" | "TYPE"), name, rest] = words[..] {
            let total = if counters.contains(name) {
                "_total"
            } else {
                ""
            };
            plain += &format!("# {kind} {name}{total} {rest}\n");
        }
    }
    plain
}

/// A response with these metrics.
pub fn respond(registry: &Registry) -> Result<Response, Problem> {
    let mut response = text(registry)?.into_response();
    let form = HeaderValue::from_static(FORM);
    response.headers_mut().insert(CONTENT_TYPE, form);
    Ok(response)
}

fn text(registry: &Registry) -> Result<String, Problem> {
    let mut text = String::new();
    let encoded = encode(&mut text, registry);
    encoded.map_err(|error| Problem::local(format!("the metrics cannot be shown: {error}")))?;
    Ok(text)
}

/// What the grid has now.
pub fn of_grid(registry: &mut Registry, jobs: &[JobView], workers: &[WorkerView]) {
    of_jobs(registry, jobs);
    of_times(registry, jobs);
    of_workers(registry, workers);
}

fn of_jobs(registry: &mut Registry, jobs: &[JobView]) {
    let counts = Family::<ByState, Gauge>::default();
    for (state, name) in [
        (JobState::Waiting, "waiting"),
        (JobState::Running, "running"),
        (JobState::Done, "done"),
        (JobState::Failed, "failed"),
        (JobState::Cancelled, "cancelled"),
    ] {
        let found = jobs.iter().filter(|job| job.state == state).count();
        counts
            .get_or_create(&ByState { state: name })
            .set(found as i64);
    }
    registry.register("jobs", "Jobs that the supervisors keep", counts);
    let sum = |figure: Figure| jobs.iter().map(figure).sum::<u64>() as i64;
    let tasks = Family::<ByState, Gauge>::default();
    let states: [(_, Figure); 7] = [
        ("waiting", |job| job.waiting.into()),
        ("ready", |job| job.ready.into()),
        ("running", |job| job.running.into()),
        ("done", |job| job.done.into()),
        ("failed", |job| job.failed.into()),
        ("lost", |job| job.lost.into()),
        ("skipped", |job| job.skipped.into()),
    ];
    for (state, figure) in states {
        tasks.get_or_create(&ByState { state }).set(sum(figure));
    }
    registry.register("tasks", "Tasks of these jobs", tasks);
    let results = Gauge::<i64>::default();
    results.set(sum(|job| job.result_bytes));
    registry.register_with_unit("results", "Results that are kept", Unit::Bytes, results);
    let risk = Gauge::<i64>::default();
    risk.set(sum(|job| {
        job.deadline.is_some_and(|deadline| deadline.at_risk).into()
    }));
    registry.register("jobs_at_risk", "Jobs whose deadline is at risk", risk);
}

fn of_attempts(registry: &mut Registry, jobs: &[JobView]) {
    let sum = |figure: Figure| jobs.iter().map(figure).sum::<u64>() as i64;
    let attempts = Family::<ByOutcome, Gauge>::default();
    let outcomes: [(_, Figure); 4] = [
        ("won", |job| job.cost.useful.attempts),
        ("failed", |job| job.attempts.failed),
        ("lost", |job| job.attempts.lost),
        ("cancelled", |job| job.attempts.cancelled),
    ];
    for (outcome, figure) in outcomes {
        attempts
            .get_or_create(&ByOutcome { outcome })
            .set(sum(figure));
    }
    let help = "Attempts of these jobs that have ended";
    registry.register("job_attempts", help, attempts);
    let redundant = Gauge::<i64>::default();
    redundant.set(sum(|job| job.attempts.redundant));
    let help = "Redundant attempts of these jobs";
    registry.register("job_redundant_attempts", help, redundant);
}

fn of_times(registry: &mut Registry, jobs: &[JobView]) {
    let occupied = Family::<ByUse, Real>::default();
    let parts: [(_, Figure); 3] = [
        ("useful", |job| job.cost.useful.occupied_ns),
        ("redundant", |job| job.cost.redundant.occupied_ns),
        ("lost", |job| job.cost.lost.occupied_ns),
    ];
    for (part, figure) in parts {
        let seconds = jobs.iter().map(figure).sum::<u64>() as f64 / 1e9;
        occupied.get_or_create(&ByUse { r#use: part }).set(seconds);
    }
    let help = "Time for which attempts of these jobs held their resources";
    registry.register_with_unit("occupied", help, Unit::Seconds, occupied);
    let cpu = Real::default();
    cpu.set(jobs.iter().map(|job| job.cpu_ms).sum::<f64>() / 1e3);
    let help = "CPU time of attempts of these jobs that have ended";
    registry.register_with_unit("cpu", help, Unit::Seconds, cpu);
}

fn of_workers(registry: &mut Registry, workers: &[WorkerView]) {
    let counts = Family::<ByWorker, Gauge>::default();
    for worker in workers {
        let labels = ByWorker {
            liveness: worker.liveness.clone(),
            usage: worker.usage.clone(),
        };
        counts.get_or_create(&labels).inc();
    }
    registry.register("workers", "Workers by liveness and usage", counts);
    let live = workers.iter().filter(|worker| worker.liveness == "live");
    let mut sums = [0; 4];
    for worker in live {
        sums[0] += worker.total.cpus_milli;
        sums[1] += worker.free.cpus_milli;
        sums[2] += worker.total.memory;
        sums[3] += worker.free.memory;
    }
    let cpus = Family::<ByState, Real>::default();
    let memory = Family::<ByState, Gauge>::default();
    for (at, state) in ["total", "free"].into_iter().enumerate() {
        let state = ByState { state };
        cpus.get_or_create(&state).set(sums[at] as f64 / 1e3);
        memory.get_or_create(&state).set(sums[at + 2] as i64);
    }
    registry.register("worker_cpus", "CPUs that live workers offer", cpus);
    let help = "Memory that live workers offer";
    registry.register_with_unit("worker_memory", help, Unit::Bytes, memory);
    let suspicions = Gauge::<i64>::default();
    suspicions.set(workers.iter().map(|worker| worker.suspicions).sum::<u64>() as i64);
    let help = "Times that connected workers were suspected";
    registry.register("worker_suspicions", help, suspicions);
}

fn of_gateway(registry: &mut Registry, app: &App) {
    let connections = Gauge::<i64>::default();
    connections.set(app.connections().count() as i64);
    registry.register(
        "gateway_connections",
        "Connections to the gateway",
        connections,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_counters_by_their_series() {
        let text = "# HELP hedge_x Things.\n# TYPE hedge_x counter\nhedge_x_total 1\n\
                    # HELP hedge_y_seconds Time.\n# TYPE hedge_y_seconds gauge\n# UNIT hedge_y_seconds seconds\n\
                    hedge_y_seconds 2\n# EOF\n";
        assert_eq!(
            plain(text),
            "# HELP hedge_x_total Things.\n# TYPE hedge_x_total counter\nhedge_x_total 1\n\
             # HELP hedge_y_seconds Time.\n# TYPE hedge_y_seconds gauge\nhedge_y_seconds 2\n"
        );
    }
}
