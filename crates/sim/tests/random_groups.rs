//! The same with several supervisors: leadership moves, leaders wake late, disks are lost.

mod seeds;

use hedge_sim::random_group_run;

#[test]
fn every_job_that_can_end_done_does_and_leaves_nothing_behind() {
    seeds::all(random_group_run, "random_groups");
}

#[test]
fn the_same_seed_gives_the_same_actions() {
    seeds::same(random_group_run);
}
