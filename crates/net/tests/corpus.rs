//! What fuzzing found worth keeping for what the transport reads, once more.

#[path = "../../../fuzz/feeds/net.rs"]
mod net;
#[path = "../../../fuzz/feeds/replay.rs"]
mod replay;

#[test]
fn nothing_of_the_corpus_breaks_what_the_transport_reads() {
    replay::replay("net", net::net);
}
