use std::{os::unix::fs::FileTypeExt, thread};

use crds::condition;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::*;
use crate::tell::report::tests::well;

struct Scene {
    folder: TempDir,
    observe: watch::Sender<Option<Observed>>,
    reach: Reach,
    _runtime: Runtime,
}

/// Serves the socket of an agent whose loop last worked `silent` ago.
fn serving(silent: Duration) -> Scene {
    let folder = tempfile::tempdir().expect("a folder");
    let (observe, observed) = watch::channel(None);
    let runtime = Runtime::new().expect("a runtime");
    let reach = Reach::default();
    let sources = Sources {
        name: "lb-1".to_owned(),
        first: DirectorStatus {
            director_group_name: "edge".to_owned(),
            ..DirectorStatus::default()
        },
        observed,
        heartbeat: Heartbeat::aged(silent),
        book: Arc::default(),
        reach: reach.clone(),
    };
    let path = folder.path().to_owned();
    runtime.spawn(async move { serve(&path, sources).await });
    while !folder.path().join(SOCKET).exists() {
        thread::sleep(Duration::from_millis(1));
    }
    Scene {
        folder,
        observe,
        reach,
        _runtime: runtime,
    }
}

impl Scene {
    fn ask(&self) -> Result<Answer, String> {
        ask(self.folder.path(), Question::Status)
    }
}

#[test]
fn the_socket_tells_the_status_that_the_agent_would_report() {
    let scene = serving(Duration::ZERO);
    let early = scene.ask().expect("an answer");
    assert_eq!(early.observed_at, None);
    assert_eq!(early.status.director_group_name, "edge");

    let found = well();
    let expected = report::status(&found, &early.status, 0);
    scene.observe.send_replace(Some(found.clone()));
    let mut answer = scene.ask().expect("an answer");
    while answer.observed_at.is_none() {
        answer = scene.ask().expect("an answer");
    }
    assert_eq!(answer.observed_at, Some(Time(found.at)));
    assert_eq!(answer.status, expected);
    let text = answer.text(found.at + Duration::from_secs(3), false);
    for words in [
        "Director lb-1 of group",
        "As the agent saw it 3 s ago",
        "  Programmed=True Programmed: ",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("NOT ANSWERED"), "{text}");
}

#[test]
fn only_the_owner_may_use_the_socket() {
    let scene = serving(Duration::ZERO);
    let metadata = fs::metadata(scene.folder.path().join(SOCKET)).expect("the socket");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_loop_that_hangs_is_told_first() {
    let scene = serving(Duration::from_secs(100));
    let answer = scene.ask().expect("an answer although the loop hangs");
    assert!(answer.loop_silent_seconds >= 100, "{answer:?}");
    let text = answer.text(Timestamp::now(), false);
    assert!(text.contains("THE LOOP HAS NOT ANSWERED FOR 10"), "{text}");
}

#[test]
fn an_api_server_that_does_not_answer_is_told_with_what_to_look_at() {
    let scene = serving(Duration::ZERO);
    assert_eq!(scene.ask().expect("an answer").api_server_away, None);
    let told = |reach: &Reach| {
        reach.failed("connection refused".to_owned());
        let answer = scene.ask().expect("an answer");
        let away = answer.api_server_away.as_ref().expect("it is away");
        answer.text(away.since + Duration::from_secs(42), false)
    };
    let text = told(&scene.reach);
    for words in [
        "THE API SERVER HAS NOT ANSWERED FOR 42 s, since 20",
        "connection refused\nThis director keeps serving what it last knew",
        "--kubeconfig",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    scene.reach.is_at("https://192.0.2.1:6443/".to_owned());
    let text = told(&scene.reach);
    for words in [
        "THE API SERVER at https://192.0.2.1:6443/ HAS NOT ANSWERED",
        "On this host: curl -k https://192.0.2.1:6443/readyz\n",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn what_needs_attention_is_marked() {
    let mut answer = serving(Duration::ZERO).ask().expect("an answer");
    answer.status.conditions = vec![
        condition::director_not_programmed("VipTaken", "192.0.2.1 is taken", 0),
        condition::no_removals_held(0),
    ];
    let text = answer.text(Timestamp::now(), false);
    for line in [
        "! Programmed=False VipTaken: 192.0.2.1 is taken",
        "  RemovalsHeld=False NothingHeld: No removal is held",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}

#[test]
fn without_an_agent_the_answer_says_what_still_works() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = ask(folder.path(), Question::Status).expect_err("no agent runs");
    assert!(
        error.starts_with("no agent runs with the state folder"),
        "{error}"
    );
    assert!(error.contains("ipvsadm -Ln"), "{error}");
    // The socket of an agent that was killed stays.
    let scene = serving(Duration::ZERO);
    let Scene {
        folder, _runtime, ..
    } = scene;
    drop(_runtime);
    let error = ask(folder.path(), Question::Status).expect_err("the agent has ended");
    assert!(error.starts_with("no agent runs"), "{error}");
}
