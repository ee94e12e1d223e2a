use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader};

use super::append_request;
use crate::Op;

/// Requests for one send, of which the last asks for an acknowledgement: the
/// others are answered only if they fail, and before it.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    /// How many requests.
    pub(crate) count: usize,
    /// Where the last request begins.
    last: usize,
    /// Which of the caller's operations is the first.
    pub(crate) first_index: usize,
    /// The first request's sequence number; the others' follow it.
    pub(crate) first_sequence: u32,
}

impl Batch {
    pub(crate) fn start(&mut self, first_index: usize, first_sequence: u32) {
        self.bytes.clear();
        self.count = 0;
        self.first_index = first_index;
        self.first_sequence = first_sequence;
    }

    pub(crate) fn push(&mut self, op: &Op, header: NetlinkHeader) {
        self.last = self.bytes.len();
        self.count += 1;
        append_request(op, &mut self.bytes, header);
    }

    /// Asks for an acknowledgement of the last request.
    pub(crate) fn finish(&mut self) {
        // nlmsghdr: length 4, type 2, flags 2.
        if let Some(flags) = self.bytes.get_mut(self.last + 6..self.last + 8) {
            flags.copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        }
    }
}
