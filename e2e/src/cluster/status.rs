//! Reads the statuses of objects, and waits for them.

use super::PATIENCE;
use crate::{
    Host,
    control::{self, kubectl},
    eventually, ipvsadm,
};

/// Waits with `kubectl wait` until a condition of an object in the namespace
/// `default` has the given status. Example:
/// `wait_for("ivs/web", "Ready", "True")`.
///
/// # Panics
/// Panics if the condition does not get the given status in time. The panic
/// message shows the current state of the object.
#[track_caller]
pub fn wait_for(object: &str, condition: &str, status: &str) {
    let timeout = format!("--timeout={}s", PATIENCE.as_secs());
    let until = |what: &str| control::try_kubectl(&["wait", object, what, &timeout]);
    let has_condition = format!("--for=condition={condition}={status}");
    let mut waited = until(&has_condition);
    // The object may not exist yet. For example, an agent creates its Director
    // only after it has started.
    if waited.stderr.contains("NotFound") {
        let made = until("--for=create");
        assert!(
            made.is_success(),
            "{object} was expected to be made: {}",
            made.stderr
        );
        waited = until(&has_condition);
    }
    assert!(
        waited.is_success(),
        "{object} was expected to become {condition}={status}: {}\n{}",
        waited.stderr,
        kubectl(&["get", object, "-o", "yaml"]),
    );
}

/// Waits until each of the named VirtualServices in the namespace `default` is
/// Ready.
///
/// # Panics
/// Panics if a VirtualService is not Ready in time.
#[track_caller]
pub fn wait_until_ready(services: &[&str]) {
    for service in services {
        wait_for(&format!("ivs/{service}"), "Ready", "True");
    }
}

/// Waits until a condition's reason and message together contain all of
/// `words`, and returns `Reason: message`. An earlier reason of the condition
/// does not end the wait.
///
/// # Panics
/// Panics if the condition does not contain the words in time. The panic
/// message shows the condition's current reason and message.
#[track_caller]
pub fn wait_for_words(object: &str, condition: &str, words: &[&str]) -> String {
    let parts = format!("{{range .status.conditions[?(@.type==\"{condition}\")]}}");
    let path = format!("jsonpath={parts}{{.reason}}: {{.message}}{{end}}");
    let what = format!("{object} to have {condition} with the words {words:?}");
    eventually(&what, PATIENCE, || {
        let said = control::try_kubectl(&["get", object, "-o", &path]);
        match words.iter().all(|word| said.stdout.contains(word)) {
            true => Ok(said.stdout),
            false => Err(format!("{}{}", said.stdout, said.stderr)),
        }
    })
}

/// Deletes a Director whose agent has ended, and waits until `services` are no
/// longer Ready. After this call, `services` become Ready only when another
/// agent reports them, because the old agent's report is gone.
///
/// # Panics
/// Panics if one of the VirtualServices stays Ready.
#[track_caller]
pub fn forget_director(director: &str, services: &[&str]) {
    // A garbage collector would delete the DirectorGroupMember together with the
    // Director, but the lab has none.
    kubectl(&["delete", "idir,idgm", director]);
    for service in services {
        wait_for(&format!("ivs/{service}"), "Ready", "False");
    }
}

/// Returns the value at a JSONPath of a Kubernetes object. Example:
/// `value("ivs/web", ".status.directors.summary")`.
///
/// # Panics
/// Panics if the object does not exist.
#[track_caller]
pub fn value(object: &str, path: &str) -> String {
    kubectl(&["get", object, "-o", &format!("jsonpath={{{path}}}")])
}

/// Returns one field, such as `reason`, of an object's condition.
///
/// # Panics
/// Panics if the object does not exist.
#[track_caller]
pub fn condition(object: &str, kind: &str, part: &str) -> String {
    value(
        object,
        &format!(".status.conditions[?(@.type==\"{kind}\")].{part}"),
    )
}

/// Waits until the saved IPVS table of a host has exactly the lines `expected`,
/// in any order.
///
/// # Panics
/// Panics if the table does not match in time. The panic message shows the
/// current table.
#[track_caller]
pub fn expect_table(host: &Host, expected: &[&str]) {
    let mut expected: Vec<_> = expected.iter().map(|line| (*line).to_owned()).collect();
    expected.sort();
    eventually("the table of ipvsadm -Sn", PATIENCE, || {
        let mut found = ipvsadm::sorted(host);
        found.sort();
        if found == expected {
            Ok(())
        } else {
            Err(format!("found {found:#?}, expected {expected:#?}"))
        }
    });
}
