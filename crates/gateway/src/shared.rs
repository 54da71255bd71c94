//! Answers that several pages want at about the same time: the grid is asked once for all that say that they take an
//! answer of that age.

use crate::problem::Problem;
use bytes::Bytes;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// Answers that are kept at a time: the pages of one job with 300,000 attempts. Each has about a megabyte at most.
const ANSWERS_MAX: usize = 64;
/// An answer that is older is dropped.
const AGE_MAX: Duration = Duration::from_secs(2);

/// Answers as JSON, by the path and query that they answer.
#[derive(Clone, Debug, Default)]
pub struct SharedAnswers(Arc<Mutex<HashMap<String, Answer>>>);

/// An answer, or the one that asks for it.
#[derive(Clone, Debug)]
struct Answer {
    asked: Instant,
    body: Arc<OnceCell<Bytes>>,
}

impl SharedAnswers {
    /// An answer that was asked for within `max_age`, also while it has not come yet; else the one that `ask` gives.
    ///
    /// # Errors
    /// That of `ask`. The next who wants the answer asks again.
    pub async fn get<F>(
        &self,
        what: &str,
        max_age: Duration,
        ask: impl FnOnce() -> F,
    ) -> Result<Bytes, Problem>
    where
        F: Future<Output = Result<Bytes, Problem>>,
    {
        if max_age.is_zero() {
            return ask().await;
        }
        let answer = self.answer(Instant::now(), what, max_age);
        answer.body.get_or_try_init(ask).await.cloned()
    }

    fn answer(&self, now: Instant, what: &str, max_age: Duration) -> Answer {
        let mut known = self.lock();
        if let Some(answer) = known.get(what)
            && now.duration_since(answer.asked) < max_age.min(AGE_MAX)
        {
            return answer.clone();
        }
        if known.len() >= ANSWERS_MAX {
            let oldest = known.iter().min_by_key(|(_, answer)| answer.asked);
            if let Some(what) = oldest.map(|(what, _)| what.clone()) {
                known.remove(&what);
            }
        }
        let answer = Answer {
            asked: now,
            body: Arc::default(),
        };
        if known.is_empty() {
            tokio::spawn(drop_old(self.clone()));
        }
        known.insert(what.to_owned(), answer.clone());
        answer
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Answer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops old answers until there is none.
async fn drop_old(answers: SharedAnswers) {
    loop {
        tokio::time::sleep(AGE_MAX).await;
        let mut known = answers.lock();
        known.retain(|_, answer| answer.asked.elapsed() < AGE_MAX);
        if known.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn who_takes_an_old_answer_shares_it_and_nobody_else_does() {
        let answers = SharedAnswers::default();
        let (begun, age) = (Instant::now(), Duration::from_millis(250));
        let first = answers.answer(begun, "a", age).body;
        let shares = |after: u64, what: &str, age| {
            let now = begun + Duration::from_millis(after);
            Arc::ptr_eq(&first, &answers.answer(now, what, age).body)
        };
        assert!(shares(249, "a", age));
        assert!(!shares(249, "b", age));
        assert!(!shares(250, "a", age), "it has grown old");
        assert!(!shares(251, "a", age), "there is a newer one");
        assert!(!shares(0, "a", Duration::ZERO), "this one wants it new");
        for number in 0..2 * ANSWERS_MAX {
            answers.answer(begun, &number.to_string(), age);
        }
        assert_eq!(answers.lock().len(), ANSWERS_MAX);
    }

    #[tokio::test]
    async fn one_waits_for_the_answer_of_another_and_a_problem_is_not_kept() {
        let (answers, asked) = (SharedAnswers::default(), AtomicUsize::new(0));
        let ask = || async {
            let count = asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            match count {
                0 => Err(Problem::busy("not now")),
                count => Ok(Bytes::from(count.to_string())),
            }
        };
        let age = AGE_MAX;
        let lost = answers.get("a", age, ask).await;
        assert_eq!(lost.unwrap_err().status, 503);
        let (one, other) = tokio::join!(answers.get("a", age, ask), answers.get("a", age, ask));
        assert_eq!((one.unwrap(), other.unwrap()), ("1".into(), "1".into()));
    }
}
