//! Gathering calls: what comes in while a call is under way goes out together in the next one.
//!
//! No timer and no added delay: an idle batcher sends a single item at once.

use std::future::Future;

use tokio::sync::{mpsc, oneshot};
use vstack_api::{ApiError, ErrorCode, Problem};

type Waiting<I, O> = (I, oneshot::Sender<Result<O, Problem>>);

/// Hands items to one task that sends them in batches. The task ends with the last handle.
#[derive(Debug)]
pub(super) struct Batcher<I, O> {
    queue: mpsc::Sender<Waiting<I, O>>,
}

impl<I, O> Clone for Batcher<I, O> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
        }
    }
}

impl<I: Send + 'static, O: Send + 'static> Batcher<I, O> {
    /// `send` answers a batch of at most `largest` items, in their order.
    pub(super) fn new<F, Sent>(largest: usize, send: F) -> Self
    where
        F: Fn(Vec<I>) -> Sent + Send + 'static,
        Sent: Future<Output = Result<Vec<Result<O, Problem>>, ApiError>> + Send,
    {
        let (queue, mut waiting) = mpsc::channel::<Waiting<I, O>>(largest);
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while waiting.recv_many(&mut batch, largest).await > 0 {
                let (items, callers): (Vec<I>, Vec<_>) = batch.drain(..).unzip();
                answer(callers, send(items).await);
            }
        });
        Self { queue }
    }

    /// Sends an item with others and waits for its own result.
    pub(super) async fn call(&self, item: I) -> Result<O, Problem> {
        let (sender, receiver) = oneshot::channel();
        let gone = |_| Problem::new(ErrorCode::Internal, "the sender of batches has ended");
        self.queue.send((item, sender)).await.map_err(|_| gone(()))?;
        receiver.await.map_err(|_| gone(()))?
    }
}

/// A caller that went away is no loss; a batch that failed fails for each of its callers.
fn answer<O>(
    callers: Vec<oneshot::Sender<Result<O, Problem>>>,
    results: Result<Vec<Result<O, Problem>>, ApiError>,
) {
    let results = match results {
        Ok(results) => results,
        Err(error) => {
            let problem = error.into_problem();
            callers.iter().map(|_| Err(problem.clone())).collect()
        }
    };
    let missing = || {
        Err(Problem::new(
            ErrorCode::Internal,
            "the batch was answered in part",
        ))
    };
    let padded = results.into_iter().chain(std::iter::repeat_with(missing));
    for (caller, result) in callers.into_iter().zip(padded) {
        if caller.send(result).is_err() {
            tracing::debug!("the caller of a batched item has gone");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn what_waits_during_a_call_goes_out_together() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let gate = Arc::new(Semaphore::new(0));
        let (seen, open) = (Arc::clone(&sizes), Arc::clone(&gate));
        let batcher: Batcher<u32, u32> = Batcher::new(4, move |items: Vec<u32>| {
            seen.lock().unwrap().push(items.len());
            let open = Arc::clone(&open);
            async move {
                open.acquire().await.unwrap().forget();
                Ok(items.into_iter().map(|item| Ok(item * 2)).collect())
            }
        });
        let call = |item: u32| {
            let batcher = batcher.clone();
            tokio::spawn(async move { batcher.call(item).await })
        };
        let first = call(0);
        while sizes.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let rest: Vec<_> = (1..8).map(call).collect();
        // All seven are in the queue or at its door before the first call may end.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        gate.add_permits(10);
        assert_eq!(first.await.unwrap(), Ok(0));
        for (item, call) in (1..).zip(rest) {
            assert_eq!(call.await.unwrap(), Ok(item * 2));
        }
        let sizes = sizes.lock().unwrap();
        assert_eq!(sizes[0], 1);
        assert!(
            sizes.len() <= 4 && sizes.iter().all(|size| *size <= 4),
            "{sizes:?}"
        );
    }

    #[tokio::test]
    async fn a_failed_or_short_answer_reaches_every_caller() {
        let batcher: Batcher<u32, u32> = Batcher::new(4, |_| async { Ok(Vec::new()) });
        assert_eq!(batcher.call(1).await.unwrap_err().code, ErrorCode::Internal);
        let refusing: Batcher<u32, u32> = Batcher::new(4, |_| async {
            Err(ApiError::Refused(Box::new(Problem::new(
                ErrorCode::Unavailable,
                "busy",
            ))))
        });
        assert_eq!(refusing.call(1).await.unwrap_err().code, ErrorCode::Unavailable);
    }
}
