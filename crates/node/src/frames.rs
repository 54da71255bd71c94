//! Messages to one peer, in as few frames as they fit.

use hedge_net::{CloseReason, LinkSender};
use serde::Serialize;

/// Sends a batch in one frame, or in as many as it needs. A peer that does not keep up is disconnected: on
/// its next connection each side says again what the other has not settled.
pub(crate) fn send<T: Serialize>(sender: &LinkSender, batch: &[T]) {
    match hedge_net::encode(batch) {
        Ok(frame) => {
            if let Err(error) = sender.try_send(frame) {
                tracing::warn!(peer = %sender.peer().short(), %error, "a peer does not keep up; disconnected");
                sender.close(CloseReason::Lost);
            }
        }
        Err(_) if batch.len() > 1 => {
            let (first, second) = batch.split_at(batch.len() / 2);
            send(sender, first);
            send(sender, second);
        }
        Err(error) => tracing::error!(%error, "a message is too long to be sent"),
    }
}
