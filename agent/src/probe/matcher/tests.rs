use std::time::Duration;

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

fn shop() -> Arc<str> {
    "shop".into()
}

#[tokio::test]
async fn a_text_matches_or_does_not() {
    let matcher = Matcher::default();
    let pattern = Arc::new(Pattern::new("^status: (ok|fine)$"));
    for (text, is_match) in [("status: ok", true), ("status: down", false)] {
        let found = matcher.is_match(&shop(), &pattern, text.into()).await;
        assert_eq!(found, Ok(is_match), "{text}");
    }
}

#[tokio::test]
async fn a_pattern_that_does_not_compile_says_nothing_of_the_server() {
    let matcher = Matcher::default();
    let pattern = Arc::new(Pattern::new("(well"));
    let found = matcher.is_match(&shop(), &pattern, Vec::new()).await;
    let Err(Failed::Own(why)) = found else {
        panic!("{found:?}");
    };
    assert!(why.starts_with("the check cannot be made: "), "{why}");
}

#[tokio::test]
async fn a_namespace_with_too_many_waiting_texts_is_refused_and_another_is_not() {
    let matcher = Matcher::default();
    // The flag `has_thread` keeps the matcher from starting a thread.
    *matcher.has_thread.lock().unwrap() = true;
    let pattern = Arc::new(Pattern::new("ok"));
    let mut waiting = Vec::new();
    for _ in 0..MOST_WAITING {
        let mut wait = Box::pin(matcher.is_match_of("many", &pattern));
        assert!(futures::poll!(&mut wait).is_pending());
        waiting.push(wait);
    }
    let refused = matcher.is_match_of("many", &pattern).await;
    assert_eq!(refused, Err(too_slow("many")));
    let mut other = Box::pin(matcher.is_match_of("shop", &pattern));
    assert!(futures::poll!(&mut other).is_pending(), "it may wait");

    // The texts of probes that have ended are not matched.
    drop(waiting);
    let desk = matcher.desk.clone();
    thread::spawn(move || desk.work());
    assert_eq!(tokio::time::timeout(PATIENCE, other).await, Ok(Ok(true)));
    let state = matcher.desk.state.lock().unwrap();
    assert_eq!(state.queues.waiting("many"), 0);
}

impl Matcher {
    async fn is_match_of(&self, namespace: &str, pattern: &Arc<Pattern>) -> Result<bool, Failed> {
        let namespace = namespace.into();
        self.is_match(&namespace, pattern, b"ok".to_vec()).await
    }
}

#[tokio::test]
async fn the_thread_ends_with_the_matcher() {
    let matcher = Matcher::default();
    let desk = Arc::downgrade(&matcher.desk);
    let pattern = Arc::new(Pattern::new("ok"));
    assert_eq!(matcher.is_match_of("shop", &pattern).await, Ok(true));
    drop(matcher);
    let end = Instant::now() + PATIENCE;
    while desk.strong_count() > 0 {
        assert!(Instant::now() < end, "the thread holds the desk");
        thread::sleep(Duration::from_millis(10));
    }
}
