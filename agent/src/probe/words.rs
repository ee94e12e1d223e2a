//! The message of a failed probe, with and without text that the server chose.

use std::borrow::Cow;

/// A message about a failed probe in two forms. Everybody who may read an
/// object can read its status. So a status quotes text of a server only if the
/// group's `spec.realServerAddresses` grants the server's address, or if the
/// server is from a file. Numbers and names from a fixed list, such as an HTTP
/// status or a TLS alert, are in both forms of the message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Words {
    own: Cow<'static, str>,
    quoting: Option<String>,
}

impl Words {
    /// Creates a message from its two forms: `own` contains no text of the
    /// server, and `quoting` contains text of the server.
    pub(super) fn quoting(own: impl Into<Cow<'static, str>>, quoting: String) -> Self {
        Self {
            own: own.into(),
            quoting: Some(quoting),
        }
    }

    /// Returns the message. The message quotes the server's text only if
    /// `may_quote` is true.
    pub(super) fn text(&self, may_quote: bool) -> &str {
        let quoting = self.quoting.as_deref().filter(|_| may_quote);
        quoting.unwrap_or(&self.own)
    }
}

/// Makes a message without text of the server.
impl From<&'static str> for Words {
    fn from(own: &'static str) -> Self {
        Self {
            own: own.into(),
            quoting: None,
        }
    }
}

/// Makes a message without text of the server.
impl From<String> for Words {
    fn from(own: String) -> Self {
        Self {
            own: own.into(),
            quoting: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_the_server_stands_in_one_form_only() {
        let words = Words::quoting("gRPC NOT_FOUND", "gRPC NOT_FOUND: no cart".to_owned());
        assert_eq!(words.text(true), "gRPC NOT_FOUND: no cart");
        assert_eq!(words.text(false), "gRPC NOT_FOUND");
        let words = Words::from("connection reset");
        assert_eq!(words.text(true), words.text(false));
    }
}
