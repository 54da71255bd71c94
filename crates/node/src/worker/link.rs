//! The worker's connection: dialled again with jittered back-off for as long as the worker lives.

use super::{Input, beat_interval};
use hedge_model::msg::{Beat, Role, ToWorker, Welcome};
use hedge_net::{CloseReason, Hello, Link, LinkSender, Net, NetError, Ticket};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const BACK_OFF_MIN: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);

pub(super) struct Dialler {
    net: Net,
    ticket: Ticket,
    inputs: mpsc::Sender<Input>,
}

impl Dialler {
    pub fn new(net: Net, ticket: Ticket, inputs: mpsc::Sender<Input>) -> Self {
        Self {
            net,
            ticket,
            inputs,
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
        drop(beats);
        let linked = Input::Linked {
            sender: sender.clone(),
            conn,
            epoch: welcome.epoch,
        };
        self.inputs.send(linked).await.map_err(drop)?;
        let beating = tokio::spawn(beat(sender.clone(), beat_interval(welcome.beat_interval)));
        while let Ok(orders) = receiver.recv::<ToWorker>().await {
            self.inputs
                .send(Input::Orders { conn, orders })
                .await
                .map_err(drop)?;
        }
        beating.abort();
        let reason = sender.closed().await;
        tracing::info!(%reason, "connection closed");
        self.inputs
            .send(Input::Unlinked { conn })
            .await
            .map_err(drop)
    }
}

async fn beat(sender: LinkSender, interval: Duration) {
    let start = Instant::now();
    let mut timer = tokio::time::interval(interval);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    for seq in 1.. {
        timer.tick().await;
        let sent_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let Ok(bytes) = postcard::to_stdvec(&Beat {
            seq,
            sent_ns,
            in_hand: 0,
            ..Beat::default()
        }) else {
            return;
        };
        if sender.send_beat(bytes.into()).is_err() && sender.is_closed() {
            return;
        }
    }
}

/// Between half of `wait` and all of it, so that many workers do not come back at one moment.
fn jittered(wait: Duration) -> Duration {
    let mut byte = [0; 1];
    _ = getrandom::fill(&mut byte);
    wait / 2 + wait * u32::from(byte[0]) / 510
}
