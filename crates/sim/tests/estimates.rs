//! Estimates of the time remaining on grids that several clients share.

use hedge_sim::eval::{Estimated, estimates};

/// What `docs/scheduling.md` promises, on the seeds of which it has the figures.
#[test]
fn most_estimates_on_a_shared_grid_are_close() {
    let runs: Vec<_> = (1..=20)
        .map(|seed| estimates(seed).expect("a run"))
        .collect();
    let all: Vec<Estimated> = runs.iter().flat_map(|run| run.remaining.clone()).collect();
    let close = all.iter().filter(|one| one.within(1.5)).count();
    assert!(
        close * 10 >= all.len() * 8,
        "{close} of {} are within a factor of 1.5; repeat with `hedge-lab sim estimates --runs 20`: {all:#?}",
        all.len()
    );
    let holds = all.iter().filter(|one| one.holds()).count();
    assert!(
        holds * 10 >= all.len() * 6,
        "{holds} of {} intervals hold the truth",
        all.len()
    );
}
