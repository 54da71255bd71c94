//! One big job: `cargo run --release -p hedge-sim --example big -- TASKS WORKERS REDUNDANCY`.

use hedge_model::spec::{Qos, Redundancy};

fn main() -> Result<(), hedge_sim::Error> {
    let number = |at: usize| std::env::args().nth(at).and_then(|text| text.parse().ok());
    let redundancy = match std::env::args().nth(3).as_deref() {
        Some("auto") => Redundancy::Auto,
        Some("none") => Redundancy::None,
        _ => Redundancy::Critical,
    };
    let qos = Qos {
        redundancy,
        ..Qos::default()
    };
    let tasks = number(1).unwrap_or(10_000);
    let result = hedge_sim::eval::scale(tasks, number(2).unwrap_or(1_000), qos)?;
    println!("{result:?}");
    Ok(())
}
