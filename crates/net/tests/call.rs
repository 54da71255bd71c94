//! Questions, answers and notes between supervisors, over real links.

mod common;

use bytes::Bytes;
use common::*;
use hedge_net::{Caller, CloseReason, Heard, Hearing, NetError, calls, encode};
use std::time::Duration;

async fn pair() -> ((Caller, Hearing), (Caller, Hearing)) {
    let (one, other) = (net().await, net().await);
    let (a, b) = linked(&one, &other).await;
    // The ports stay open for as long as the test runs.
    std::mem::forget((one, other));
    (calls(a), calls(b))
}

/// Answers every question with its own bytes, turned around.
async fn echo(mut hearing: Hearing) -> NetError {
    loop {
        match hearing.next().await {
            Ok(Heard::Call(call)) => {
                assert_eq!(call.kind, 3);
                let mut bytes = call.request.to_vec();
                bytes.reverse();
                tokio::spawn(call.answer(bytes.into()));
            }
            Ok(Heard::Note(_)) => {}
            Err(error) => return error,
        }
    }
}

async fn ignore(mut hearing: Hearing) {
    while hearing.next().await.is_ok() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_each_way_at_once_whatever_their_length() {
    let ((a, hears_a), (b, hears_b)) = pair().await;
    tokio::spawn(echo(hears_a));
    tokio::spawn(echo(hears_b));
    let ask = |caller: Caller, length: usize, first: u8| async move {
        let mut bytes = vec![first; length];
        if let Some(last) = bytes.last_mut() {
            *last = 99;
        }
        let answer = caller.call(3, bytes.clone().into(), LIMIT).await.unwrap();
        bytes.reverse();
        assert!(answer == bytes, "{length}");
    };
    within(async {
        let mut all = tokio::task::JoinSet::new();
        for (number, length) in [0, 1, 300, 262_144, 262_145, 9_000_000]
            .into_iter()
            .enumerate()
        {
            all.spawn(ask(a.clone(), length, number as u8));
            all.spawn(ask(b.clone(), length, number as u8));
        }
        all.join_all().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_question_does_not_wait_for_a_long_one_and_may_be_given_up() {
    let ((a, hears_a), (b, mut hears_b)) = pair().await;
    tokio::spawn(ignore(hears_a));
    let long = tokio::spawn({
        let a = a.clone();
        async move { a.call(3, vec![1; 100_000_000].into(), LIMIT).await }
    });
    let short = tokio::spawn(async move { a.call(3, Bytes::from_static(b"short"), LIMIT).await });
    let mut seen = Vec::new();
    within(async {
        while seen.len() < 2 {
            if let Heard::Call(call) = hears_b.next().await.unwrap() {
                seen.push(call.request.len());
                call.answer(Bytes::from_static(b"yes")).await.unwrap();
            }
        }
    })
    .await;
    assert_eq!(seen, [5, 100_000_000]);
    assert_eq!(long.await.unwrap().unwrap(), "yes");
    assert_eq!(short.await.unwrap().unwrap(), "yes");
    // Nobody answers on the other side: it is given up in time, and the next question is not confused.
    let unanswered = b
        .call(3, Bytes::from_static(b"?"), Duration::from_millis(50))
        .await;
    assert!(
        matches!(unanswered, Err(NetError::NoAnswer { .. })),
        "{unanswered:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_an_answer_hears_of_the_end_of_the_link() {
    let ((a, hears_a), (b, hears_b)) = pair().await;
    tokio::spawn(ignore(hears_b));
    let hearing = tokio::spawn(echo(hears_a));
    let asked = tokio::spawn(async move { a.call(3, Bytes::from_static(b"?"), LIMIT).await });
    b.link().close(CloseReason::ShuttingDown);
    let error = within(asked).await.unwrap().unwrap_err();
    assert!(matches!(error, NetError::Closed(_)), "{error:?}");
    let error = within(hearing).await.unwrap();
    assert!(
        matches!(error, NetError::Closed(CloseReason::ShuttingDown)),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_arrive_in_order_and_nonsense_ends_that_link() {
    let ((a, mut hears_a), (b, mut hears_b)) = pair().await;
    for number in 0..100u8 {
        a.note(vec![number].into()).unwrap();
    }
    within(async {
        for number in 0..100u8 {
            match hears_b.next().await.unwrap() {
                Heard::Note(note) => assert_eq!(note[..], [number]),
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    // No such kind of message.
    b.link().send(encode(&[9u8]).unwrap()).await.unwrap();
    assert!(within(hears_a.next()).await.is_err());
    assert_eq!(within(b.link().closed()).await, CloseReason::Malformed);
}
