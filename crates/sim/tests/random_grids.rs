//! Random jobs on random grids with random faults, every invariant checked after each event.

mod seeds;

use hedge_sim::random_run;

#[test]
fn every_job_that_can_end_done_does_and_leaves_nothing_behind() {
    seeds::all(random_run, "random_grids");
}

#[test]
fn the_same_seed_gives_the_same_actions() {
    seeds::same(random_run);
}
