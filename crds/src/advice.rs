//! Writes errors as one line of text for people: what went wrong, and what to
//! do about it.

use std::error::Error;

use kube::core::Status;

/// Returns an error and its sources on one line. A source is left out if the
/// line already contains its text.
pub fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let why = error.to_string();
        if !text.contains(&why) {
            text.push_str(": ");
            text.push_str(&why);
        }
        source = error.source();
    }
    text.replace('\n', " ")
}

/// Shortens a text to at most `longest` bytes, and appends a mark if text was
/// cut off.
pub fn shortened(mut text: String, longest: usize) -> String {
    if text.len() > longest {
        let end = (0..=longest).rfind(|&end| text.is_char_boundary(end));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}

/// Says why an API server refused a request, and what to do about it. `what`
/// names the action that was tried: "watch realservers", for example.
///
/// Returns None for status 410, which means that the API server no longer has
/// the resourceVersion of a watch. The caller only has to start the watch
/// again.
pub fn api_error(what: &str, answer: &Status) -> Option<String> {
    let message = answer.message.trim();
    let why = match answer.code {
        410 => return None,
        401 => format!(
            "the API server does not accept the token or certificate of this process; check its \
             kubeconfig or service account ({message})"
        ),
        // The API server's message names user, verb, resource and namespace.
        403 => {
            format!("{message}; the chart's roles allow it: helm upgrade --install ipvs-operator")
        }
        404 if names_an_object(answer) => {
            format!("{message}; the chart creates it: helm upgrade --install ipvs-operator")
        }
        404 => format!(
            "the API server does not know this kind; install the chart's CRDs: {APPLY_DEFINITIONS}"
        ),
        _ if message.contains("not declared in schema") => format!(
            "the custom resource definitions are older than this program; install the chart's \
             CRDs: {APPLY_DEFINITIONS}"
        ),
        _ => message.to_owned(),
    };
    Some(format!("cannot {what}: {why}"))
}

/// The command that upgrades the definitions. Without --force-conflicts, kubectl
/// refuses to change definitions that helm installed.
pub const APPLY_DEFINITIONS: &str =
    "kubectl apply --server-side --force-conflicts -f charts/ipvs-operator/crds";

/// Returns whether the API server's answer names an object (a namespace, for
/// example). If an answer is about a whole kind, its details are missing (as in
/// "404 page not found") or have an empty name.
fn names_an_object(answer: &Status) -> bool {
    let details = answer.details.as_ref();
    details.is_some_and(|details| !details.name.is_empty())
}

#[cfg(test)]
mod tests {
    use std::{fmt, io};

    use serde_json::json;

    use super::*;

    #[derive(Debug)]
    struct Outer(io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("no\nconnection")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn an_error_is_written_with_its_sources_on_one_line_and_no_words_twice() {
        let outer = |source: &str| Outer(io::Error::other(source.to_owned()));
        for (error, expected) in [
            (outer("timed out"), "no connection: timed out"),
            (outer("connection"), "no connection"),
        ] {
            assert_eq!(with_sources(&error), expected);
        }
    }

    fn answer(code: u16, message: &str) -> Status {
        Status::failure(message, "").with_code(code)
    }

    #[test]
    fn every_refusal_says_what_to_do_on_one_line() {
        let details = serde_json::from_value(json!({"name": "ipvs-operator"})).unwrap();
        let no_namespace =
            answer(404, "namespaces \"ipvs-operator\" not found").with_details(details);
        for (answer, expected) in [
            (
                answer(401, "Unauthorized"),
                "cannot watch realservers: the API server does not accept the token or \
                 certificate of this process; check its kubeconfig or service account \
                 (Unauthorized)",
            ),
            (
                answer(403, "User \"x\" cannot list resource \"realservers\""),
                "cannot watch realservers: User \"x\" cannot list resource \"realservers\"; the \
                 chart's roles allow it: helm upgrade --install ipvs-operator",
            ),
            (
                answer(404, "404 page not found\n"),
                "cannot watch realservers: the API server does not know this kind; install the \
                 chart's CRDs: kubectl apply --server-side --force-conflicts -f charts/ipvs-operator/crds",
            ),
            (
                no_namespace,
                "cannot watch realservers: namespaces \"ipvs-operator\" not found; the chart \
                 creates it: helm upgrade --install ipvs-operator",
            ),
            (
                answer(500, ".status.health: field not declared in schema"),
                "cannot watch realservers: the custom resource definitions are older than this \
                 program; install the chart's CRDs: kubectl apply --server-side --force-conflicts -f \
                 charts/ipvs-operator/crds",
            ),
            (
                answer(503, "etcdserver: no leader"),
                "cannot watch realservers: etcdserver: no leader",
            ),
        ] {
            assert_eq!(
                api_error("watch realservers", &answer).as_deref(),
                Some(expected)
            );
        }
    }

    #[test]
    fn a_watch_that_was_forgotten_needs_no_advice() {
        assert_eq!(api_error("watch realservers", &answer(410, "Gone")), None);
    }
}
