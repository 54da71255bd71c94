//! Formats the cost of a job as text and as CSV.

use super::escape;
use super::table::{Column, table};
use super::time;
use hedge_model::ledger::Part;
use hedge_model::view::JobView;

fn parts(job: &JobView) -> [(&'static str, &Part); 3] {
    [
        ("useful", &job.cost.useful),
        ("redundant", &job.cost.redundant),
        ("lost", &job.cost.lost),
    ]
}

/// Formats micro-units of the currency as an exact decimal fraction.
pub fn money(micro: u64) -> String {
    format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000)
}

/// Formats the parts of a job's cost as a table, and how much of the total is billed.
pub fn text(job: &JobView) -> String {
    let row = |(name, part): (&str, &Part)| {
        vec![
            name.to_owned(),
            part.attempts.to_string(),
            time(part.occupied_ns as f64 / 1e6),
            time(part.higher_ns as f64 / 1e6),
            money(part.micro),
        ]
    };
    let rows = parts(job).map(row).to_vec();
    const COLUMNS: [Column; 5] = [
        Column::new("PART"),
        Column::drop("ATTEMPTS#", 1),
        Column::drop("TIME#", 2),
        Column::drop("IN HIGHER CLASS#", 3),
        Column::new("COST#"),
    ];
    let mut text = table(&COLUMNS, rows);
    let so_far = if job.state.ended() {
        ""
    } else {
        " so far; it is final once the job has ended"
    };
    text.push_str(&format!(
        "{} {} in all, {} billed{so_far}\n",
        money(job.cost.total_micro),
        escape::line(&job.cost.currency),
        money(job.cost.billed_micro)
    ));
    text
}

/// Formats the parts as CSV, with amounts in micro-units and times in milliseconds.
pub fn csv(job: &JobView) -> String {
    let mut text = String::from("job,part,attempts,occupied_ms,higher_ms,micro,currency\n");
    for (name, part) in parts(job) {
        text.push_str(&format!(
            "{},{name},{},{},{},{},{}\n",
            job.id,
            part.attempts,
            part.occupied_ns as f64 / 1e6,
            part.higher_ns as f64 / 1e6,
            part.micro,
            escape::line(&job.cost.currency)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::money;

    #[test]
    fn money_is_exact() {
        assert_eq!(money(0), "0.000000");
        assert_eq!(money(1_000_001), "1.000001");
        assert_eq!(money(u64::MAX), "18446744073709.551615");
    }
}
