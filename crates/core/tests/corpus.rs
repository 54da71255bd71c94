//! What fuzzing found worth keeping for journals and for the state machines, once more.

#[path = "../../../fuzz/feeds/core.rs"]
mod feed;
#[path = "../../../fuzz/feeds/journal.rs"]
mod journal;
#[path = "../../../fuzz/feeds/replay.rs"]
mod replay;

#[test]
fn no_record_or_snapshot_of_the_corpus_breaks_the_state() {
    replay::replay("journal", journal::journal);
}

#[test]
fn whatever_peers_of_the_corpus_send_every_invariant_holds() {
    replay::replay("core", feed::core);
}
