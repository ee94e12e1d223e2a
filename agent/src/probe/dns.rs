//! Sends a DNS query over UDP. A DNS probe does not use a resolver, because a
//! resolver repeats queries, asks other servers, and caches answers.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use crds::DnsProbe;
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};

use super::{trouble::Failed, udp, words::Words};

/// The size in bytes of the longest datagram that a probe reads.
const MOST: usize = 64 << 10;

/// The DNS queries of one check.
pub(super) struct Dns {
    query: Query,
    expect: Option<String>,
}

impl Dns {
    /// # Errors
    /// Returns an error, with the reason, if the DNS query cannot be made.
    pub(super) fn new(probe: &DnsProbe) -> Result<Self, String> {
        let mut name = Name::from_ascii(&probe.name).map_err(|error| error.to_string())?;
        name.set_fqdn(true);
        let record_type = RecordType::from_str(&probe.record_type.to_ascii_uppercase());
        let record_type = record_type.map_err(|error| error.to_string())?;
        Ok(Self {
            query: Query::query(name, record_type),
            expect: probe.expect.as_deref().map(comparable),
        })
    }

    /// Sends the query to the server, and judges the first answer to the
    /// query's own question.
    pub(super) async fn probe(&self, address: SocketAddr) -> Result<(), Failed> {
        let mut question = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
        question.metadata.recursion_desired = true;
        question.add_query(self.query.clone());
        let bytes = question.to_vec();
        let bytes =
            bytes.map_err(|error| Failed::answer(format!("cannot make the DNS query: {error}")))?;
        let socket = udp::connect(address).await?;
        socket
            .send(&bytes)
            .await
            .map_err(|error| udp::failed(&error))?;
        let mut came = vec![0; MOST];
        loop {
            let count = socket
                .recv(&mut came)
                .await
                .map_err(|error| udp::failed(&error))?;
            // An answer to another question may be forged, and the real answer
            // may still arrive.
            if let Ok(answer) = Message::from_vec(&came[..count])
                && answer.metadata.id == question.metadata.id
                && answer.metadata.message_type == MessageType::Response
                && is_to(&answer, &question)
            {
                return self.judge(&answer);
            }
        }
    }

    fn judge(&self, answer: &Message) -> Result<(), Failed> {
        let code = answer.metadata.response_code;
        if code != ResponseCode::NoError {
            return Err(Failed::answer(format!("DNS {}", mnemonic(code))));
        }
        let Some(expect) = &self.expect else {
            return Ok(());
        };
        let found = answer.answers.iter().map(|record| record.data.to_string());
        let found: Vec<_> = found.collect();
        if found.iter().any(|data| comparable(data) == *expect) {
            return Ok(());
        }
        Err(Failed::Answer(match found.as_slice() {
            [] => format!("DNS answer without a record, expected {expect}").into(),
            [first, ..] => Words::quoting(
                format!("DNS answer without the record {expect}"),
                format!("DNS answer {first}, expected {expect}"),
            ),
        }))
    }
}

/// Returns true if `answer` is an answer to `question`. A server that cannot
/// parse a query returns an error without the question.
fn is_to(answer: &Message, question: &Message) -> bool {
    answer.queries == question.queries
        || answer.queries.is_empty() && answer.metadata.response_code != ResponseCode::NoError
}

/// Returns the name of a response code, as in RFC 1035.
fn mnemonic(code: ResponseCode) -> String {
    format!("{code:?}").to_ascii_uppercase()
}

/// Normalizes a record's text, so that equivalent records compare as equal.
fn comparable(data: &str) -> String {
    match data.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => data.trim_end_matches('.').to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests;
