//! The worker's connection: dialled again with jittered back-off for as long as the worker lives.

use super::Input;
use super::beats::Beats;
use hedge_model::msg::{Role, StatusRequest, ToWorker, Welcome};
use hedge_net::{BeatReceiver, CloseReason, Hello, Link, Net, NetError, Ticket};
use std::time::Duration;
use tokio::sync::mpsc;

const BACK_OFF_MIN: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
/// Questions for signs of life taken from the transport at once.
const QUESTIONS_AT_ONCE: usize = 8;

pub(super) struct Dialler {
    net: Net,
    ticket: Ticket,
    inputs: mpsc::Sender<Input>,
    beats: Beats,
}

impl Dialler {
    pub fn new(net: Net, ticket: Ticket, inputs: mpsc::Sender<Input>, beats: Beats) -> Self {
        Self {
            net,
            ticket,
            inputs,
            beats,
        }
    }

    pub async fn keep_connected(self) {
        let hello = Hello {
            role: Role::Worker,
            proof: Some(self.ticket.secret),
            payload: Vec::new(),
        };
        let mut wait = BACK_OFF_MIN;
        let mut told = false;
        for conn in 1.. {
            match self.dial(&hello).await {
                Ok((link, welcome)) => {
                    (wait, told) = (BACK_OFF_MIN, false);
                    if self.serve(conn, link, welcome).await.is_err() {
                        return;
                    }
                }
                Err(NetError::Closed(reason)) if !reason.may_retry() => {
                    _ = self
                        .inputs
                        .send(Input::Rejected(format!("not let in: {reason}")))
                        .await;
                    return;
                }
                Err(error) if told => tracing::debug!(%error, "still no supervisor"),
                Err(error) => {
                    told = true;
                    tracing::info!(%error, "no supervisor answers; trying again until one does");
                }
            }
            tokio::time::sleep(jittered(wait)).await;
            wait = (wait * 2).min(BACK_OFF_MAX);
        }
    }

    async fn dial(&self, hello: &Hello) -> Result<(Link, Welcome), NetError> {
        let mut last = NetError::Closed(CloseReason::Lost);
        for addr in &self.ticket.supervisors {
            match self.net.connect(addr, hello).await {
                Ok((link, welcome)) => match postcard::from_bytes(&welcome) {
                    Ok(welcome) => return Ok((link, welcome)),
                    Err(_) => last = NetError::Closed(CloseReason::Malformed),
                },
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Reads orders and sends beats until the connection ends; an error when the worker has ended.
    async fn serve(&self, conn: u64, link: Link, welcome: Welcome) -> Result<(), ()> {
        let Link {
            sender,
            mut receiver,
            beats,
        } = link;
        let linked = Input::Linked {
            sender: sender.clone(),
            conn,
            epoch: welcome.epoch,
        };
        self.inputs.send(linked).await.map_err(drop)?;
        self.beats
            .connect(conn, sender.clone(), welcome.beat_interval);
        let answering = tokio::spawn(answer(self.beats.clone(), conn, beats));
        while let Ok(orders) = receiver.recv::<ToWorker>().await {
            for order in &orders {
                if let ToWorker::Beat(plan) = order {
                    self.beats.follow(conn, plan);
                }
            }
            self.inputs
                .send(Input::Orders { conn, orders })
                .await
                .map_err(drop)?;
        }
        answering.abort();
        self.beats.disconnect(conn);
        let reason = sender.closed().await;
        tracing::info!(%reason, "connection closed");
        self.inputs
            .send(Input::Unlinked { conn })
            .await
            .map_err(drop)
    }
}

/// Answers the supervisor's questions for signs of life where they arrive.
async fn answer(beats: Beats, conn: u64, mut questions: BeatReceiver) {
    let mut batch = vec![bytes::Bytes::new(); QUESTIONS_AT_ONCE];
    while let Ok(count) = questions.recv(&mut batch).await {
        for bytes in batch.iter().take(count) {
            if let Ok(StatusRequest { seq }) = postcard::from_bytes(bytes) {
                beats.answer(conn, seq);
            }
        }
    }
}

/// Between half of `wait` and all of it, so that many workers do not come back at one moment.
fn jittered(wait: Duration) -> Duration {
    let mut byte = [0; 1];
    _ = getrandom::fill(&mut byte);
    wait / 2 + wait * u32::from(byte[0]) / 510
}
