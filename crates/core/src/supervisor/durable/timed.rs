//! Encodes tasks and ended attempts with the times of their records, for snapshots. Formats 1 and 2 do not hold these
//! times.

/// Tasks, each done one with the time at which it was done.
pub(crate) mod tasks {
    use crate::supervisor::durable::job::Task;
    use hedge_model::Time;
    use imbl::Vector;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        tasks: &Vector<Task>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let timed = tasks.iter().map(|task| {
            let at: Option<Time> = task.done().and_then(|done| done.at);
            (task, at)
        });
        serializer.collect_seq(timed)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vector<Task>, D::Error> {
        let timed = Vec::<(Task, Option<Time>)>::deserialize(deserializer)?;
        let tasks = timed.into_iter().map(|(mut task, at)| {
            task.set_done_at(at);
            task
        });
        Ok(tasks.collect())
    }
}

/// Ended attempts, each with the time at which it ended.
pub(crate) mod history {
    use crate::supervisor::durable::job::EndedAttempt;
    use hedge_model::{AttemptId, Time};
    use imbl::OrdMap;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    pub(crate) fn serialize<S: Serializer>(
        history: &OrdMap<AttemptId, Arc<EndedAttempt>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(history.iter().map(|(id, ended)| (id, (ended, ended.at))))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<OrdMap<AttemptId, Arc<EndedAttempt>>, D::Error> {
        let timed = BTreeMap::<AttemptId, (EndedAttempt, Option<Time>)>::deserialize(deserializer)?;
        let history = timed.into_iter();
        let history = history.map(|(id, (ended, at))| (id, Arc::new(EndedAttempt { at, ..ended })));
        Ok(history.collect())
    }
}
