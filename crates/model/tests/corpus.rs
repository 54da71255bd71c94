//! What fuzzing found worth keeping for the decoders of messages and of text, once more.

#[path = "../../../fuzz/feeds/replay.rs"]
mod replay;
#[path = "../../../fuzz/feeds/text.rs"]
mod text;
#[path = "../../../fuzz/feeds/wire.rs"]
mod wire;

#[test]
fn no_message_of_the_corpus_breaks_its_decoder() {
    replay::replay("wire", wire::wire);
}

#[test]
fn no_text_of_the_corpus_breaks_its_reader() {
    replay::replay("text", text::text);
}
