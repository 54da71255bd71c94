//! Sends messages to one peer in as few frames as possible.

use hedge_model::Ending;
use hedge_model::ending::OutputFault;
use hedge_model::msg::{
    Answer, FromWorker, MESSAGE_BYTES_MAX, Outcome, Refusal, RefusalKind, Reply, Report, ToWorker,
};
use hedge_model::units::show_bytes;
use hedge_net::{CloseReason, LinkSender, NetError};
use serde::Serialize;

/// A message between two peers.
pub(crate) trait Message: Serialize + Sized {
    /// Returns the message to send instead if this one is longer than a frame, so that its receiver does not wait in
    /// vain. None if no receiver waits.
    fn in_place(&self) -> Option<Self>;
}

impl Message for Answer {
    fn in_place(&self) -> Option<Self> {
        let why = format!(
            "the answer is longer than the {} that fit into one message; nothing was changed; ask for less, for example \
             for one job or one task",
            show_bytes(MESSAGE_BYTES_MAX as u64)
        );
        Some(Answer {
            id: self.id,
            reply: Reply::No(Refusal {
                kind: RefusalKind::Bad,
                why,
            }),
        })
    }
}

impl Message for FromWorker {
    fn in_place(&self) -> Option<Self> {
        let FromWorker::Ended(report) = self else {
            return None;
        };
        let files = match &report.outcome {
            Outcome::Done(files) => &files[..],
            Outcome::Ended(_) | Outcome::Returned => &[],
        };
        let fault = OutputFault::LongList {
            files: files.len() as u64,
            bytes: files.iter().map(|file| file.path.len() as u64).sum(),
            limit: MESSAGE_BYTES_MAX as u64,
        };
        let path = String::new();
        Some(FromWorker::Ended(Box::new(Report {
            attempt: report.attempt,
            outcome: Outcome::Ended(Ending::Output { path, fault }),
            usage: report.usage,
            log: None,
        })))
    }
}

impl Message for ToWorker {
    /// The core bounds messages to workers: it splits lists, and fails a task that does not fit into one message
    /// before it is assigned.
    fn in_place(&self) -> Option<Self> {
        None
    }
}

/// Sends a batch in one frame, or in as many as it needs. A peer that does not keep up is disconnected. On the next
/// connection each side repeats what the other has not settled.
pub(crate) fn send<T: Message>(sender: &LinkSender, batch: &[T]) {
    match hedge_net::encode(batch) {
        Ok(frame) => {
            match sender.try_send(frame) {
                Ok(()) => {}
                // A client may leave before its last message.
                Err(NetError::Closed(reason)) => {
                    tracing::debug!(peer = %sender.peer().short(), %reason, "a message to a peer that has left");
                }
                Err(error) => {
                    tracing::warn!(peer = %sender.peer().short(), %error, "a peer does not keep up; disconnected");
                    sender.close(CloseReason::Lost);
                }
            }
        }
        Err(_) if batch.len() > 1 => {
            let (first, second) = batch.split_at(batch.len() / 2);
            send(sender, first);
            send(sender, second);
        }
        Err(error) => {
            let instead: Vec<T> = batch.iter().filter_map(Message::in_place).collect();
            tracing::error!(%error, replaced = instead.len(), "a message is too long to be sent");
            if let Some(Ok(frame)) = (!instead.is_empty()).then(|| hedge_net::encode(&instead)) {
                _ = sender.try_send(frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hedge_model::msg::Usage;
    use hedge_model::{AttemptId, Epoch, FileEntry, JobId, TaskId};

    #[test]
    fn a_message_that_does_not_fit_is_replaced_by_a_short_one() {
        let long = Reply::Ticket("x".repeat(MESSAGE_BYTES_MAX + 100));
        let answer = Answer { id: 7, reply: long };
        assert!(hedge_net::encode(std::slice::from_ref(&answer)).is_err());
        let instead = answer.in_place().unwrap();
        assert!(matches!(&instead.reply, Reply::No(no) if no.kind == RefusalKind::Bad));
        assert_eq!(instead.id, 7);
        assert!(hedge_net::encode(&[instead]).is_ok());

        let (job, number) = (JobId(1), 0);
        let attempt = AttemptId {
            task: TaskId { job, number },
            generation: 0,
            epoch: Epoch(1),
            number: 1,
        };
        let file = FileEntry {
            path: "x".repeat(MESSAGE_BYTES_MAX + 100).into(),
            executable: false,
            data: hedge_model::Data::Inline([].into()),
        };
        let report = FromWorker::Ended(Box::new(Report {
            attempt,
            outcome: Outcome::Done(vec![file]),
            usage: Usage::default(),
            log: None,
        }));
        let Some(FromWorker::Ended(instead)) = report.in_place() else {
            panic!("no report in its place");
        };
        assert_eq!(instead.attempt, attempt);
        assert!(matches!(
            instead.outcome,
            Outcome::Ended(Ending::Output { .. })
        ));
    }
}
