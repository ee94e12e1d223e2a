use std::time::Duration;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// Gives the worker a job of `namespace` that answers yes, and returns the
/// worker's answer.
async fn say_yes(worker: &Worker, namespace: &str) -> Result<bool, Failed> {
    let namespace = namespace.into();
    let share = Share {
        worker,
        namespace: &namespace,
    };
    share.run(|| Ok(true)).await
}

#[tokio::test]
async fn a_namespace_with_too_many_waiting_jobs_is_refused_and_another_is_not() {
    let worker = Worker::default();
    // Because `has_thread` is true, the worker does not start a thread.
    *worker.has_thread.lock().unwrap() = true;
    let mut waiting = Vec::new();
    for _ in 0..MOST_WAITING {
        let mut wait = Box::pin(say_yes(&worker, "many"));
        assert!(futures::poll!(&mut wait).is_pending());
        waiting.push(wait);
    }
    let refused = say_yes(&worker, "many").await;
    assert_eq!(refused, Err(too_slow("many")));
    let mut other = Box::pin(say_yes(&worker, "shop"));
    assert!(futures::poll!(&mut other).is_pending(), "it may wait");

    // The jobs of probes that have ended are not done.
    drop(waiting);
    let desk = worker.desk.clone();
    thread::spawn(move || desk.work());
    assert_eq!(tokio::time::timeout(PATIENCE, other).await, Ok(Ok(true)));
    let state = worker.desk.state.lock().unwrap();
    assert_eq!(state.queues.waiting("many"), 0);
}

#[tokio::test]
async fn the_thread_ends_with_the_worker() {
    let worker = Worker::default();
    let desk = Arc::downgrade(&worker.desk);
    assert_eq!(say_yes(&worker, "shop").await, Ok(true));
    drop(worker);
    let end = Instant::now() + PATIENCE;
    while desk.strong_count() > 0 {
        assert!(Instant::now() < end, "the thread holds the desk");
        thread::sleep(Duration::from_millis(10));
    }
}
