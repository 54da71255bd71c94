//! A client names by hash only what it holds: it sends an input, proves that it holds it, or a job of its own named or made
//! it.

mod support;

use hedge_core::supervisor::Event;
use hedge_model::msg::Outcome;
use hedge_model::spec::Group;
use hedge_model::{Data, Hash, JobSpec, PeerId};
use std::sync::Arc;
use std::time::Duration;
use support::*;

/// A job whose only task reads this blob.
fn reads(number: u8) -> Arc<JobSpec> {
    plain(vec![Group {
        stdin: Some(Data::Blob {
            hash: hash(number),
            size: 70_000,
        }),
        ..group("a", &[])
    }])
}

fn fetched(rig: &mut Rig, number: u8, sender: Option<PeerId>) {
    rig.event(Event::Fetched {
        hash: hash(number),
        result: Ok(sender),
    });
}

fn proved(rig: &mut Rig, holder: u8, proofs: &[(u8, bool)]) {
    let proof = |(number, holds): &(u8, bool)| -> (Hash, Result<(), String>) {
        let why = || format!("cannot fetch {number}: it does not hold the content");
        (hash(*number), if *holds { Ok(()) } else { Err(why()) })
    };
    rig.event(Event::Proved {
        holder: client(holder),
        proofs: proofs.iter().map(proof).collect(),
    });
}

/// A leader that has accepted job 1 of client 5, which reads blob 3.
fn with_input() -> Rig {
    let mut rig = Rig::new();
    rig.submit(5, 1, &reads(3));
    rig.expect(&["pull 3 from client 5"]);
    fetched(&mut rig, 3, Some(client(5)));
    rig.commit();
    rig.expect(&["append accepted", "client 5 #1: accepted 1"]);
    rig
}

#[test]
fn who_knows_the_hash_of_anothers_input_alone_is_refused() {
    let mut rig = with_input();
    rig.submit(6, 2, &reads(3));
    rig.expect(&["client 6: prove 3"]);
    for wait_ms in [200, 400, 800, 1600] {
        proved(&mut rig, 6, &[(3, false)]);
        rig.expect(&[]);
        rig.pass(Duration::from_millis(wait_ms));
        rig.expect(&["client 6: prove 3"]);
    }
    proved(&mut rig, 6, &[(3, false)]);
    rig.expect(&[
        "client 6 #2: no, Busy: the inputs could not be fetched from the client: cannot fetch 3: it does not hold the \
         content; nothing was accepted",
    ]);
    rig.commit();
    rig.expect(&[]);
}

#[test]
fn another_client_that_holds_the_same_file_need_not_send_it() {
    let mut rig = with_input();
    rig.submit(6, 2, &reads(3));
    rig.expect(&["client 6: prove 3"]);
    proved(&mut rig, 6, &[(3, true)]);
    rig.commit();
    rig.expect(&["append accepted", "client 6 #2: accepted 2"]);
}

#[test]
fn a_client_names_its_own_input_again_without_a_proof_or_a_transfer() {
    let mut rig = with_input();
    rig.submit(5, 2, &reads(3));
    rig.commit();
    rig.expect(&["append accepted", "client 5 #2: accepted 2"]);
}

/// The store has what nobody needs any more for a while: a pull ends at once and brings nothing.
#[test]
fn a_client_names_the_input_of_its_ended_job_again_and_another_proves_it() {
    let mut rig = with_input();
    let cancel = hedge_model::msg::Request::Cancel(hedge_model::JobId(1));
    rig.ask(5, cancel);
    rig.commit();
    rig.expect(&["append job 1 cancelled", "drop 3", "client 5 #99: Ok"]);
    rig.submit(6, 2, &reads(3));
    rig.expect(&["pull 3 from client 6"]);
    fetched(&mut rig, 3, None);
    rig.expect(&["client 6: prove 3"]);
    rig.submit(5, 3, &reads(3));
    rig.commit();
    rig.expect(&["append accepted", "client 5 #3: accepted 2"]);
    proved(&mut rig, 6, &[(3, true)]);
    rig.commit();
    rig.expect(&["append accepted", "client 6 #2: accepted 3"]);
}

#[test]
fn an_output_is_its_clients_to_name() {
    let mut rig = Rig::new();
    rig.attach(1, 4);
    rig.submit(5, 1, &plain(vec![group("a", &[]), group("b", &["a"])]));
    rig.commit();
    rig.reports(1, attempt(0, 1), Outcome::Done(vec![blob("out", 8)]));
    rig.commit();
    rig.skip("how the first job runs is for other tests");
    rig.submit(5, 2, &reads(8));
    rig.expect(&["pull 8 from worker 1, client 5"]);
    rig.submit(6, 3, &reads(8));
    rig.expect(&[]);
    fetched(&mut rig, 8, Some(worker(1)));
    rig.expect(&["append accepted", "client 6: prove 8"]);
    proved(&mut rig, 6, &[(8, true)]);
    rig.expect(&["append accepted"]);
}

#[test]
fn one_transfer_proves_a_blob_for_all_submissions_of_a_client() {
    let mut rig = Rig::new();
    for key in [1, 2] {
        rig.submit(5, key, &reads(3));
    }
    rig.submit(6, 3, &reads(3));
    rig.expect(&["pull 3 from client 5"]);
    fetched(&mut rig, 3, Some(client(5)));
    rig.expect(&["append accepted", "append accepted", "client 6: prove 3"]);
    rig.gone_client(6);
    rig.expect(&[]);
    proved(&mut rig, 6, &[(3, true)]);
    rig.expect(&[]);
}

#[test]
fn a_proof_is_for_the_leader_that_asked_for_it() {
    let mut before = with_input();
    before.submit(6, 2, &reads(3));
    before.expect(&["client 6: prove 3"]);
    let mut rig = Rig::with(before.core.state().clone(), &[hash(3)]);
    proved(&mut rig, 6, &[(3, true)]);
    rig.expect(&[]);
    rig.submit(6, 2, &reads(3));
    rig.expect(&["client 6: prove 3"]);
    proved(&mut rig, 6, &[(3, true)]);
    rig.expect(&["append accepted"]);
    // What the journal says of a client's jobs is known to each leader.
    rig.submit(5, 3, &reads(3));
    rig.expect(&["append accepted"]);
}
