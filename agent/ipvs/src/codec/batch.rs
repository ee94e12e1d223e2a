use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader};

use super::append_request;
use crate::Op;

/// Netlink requests that are sent together in one datagram. Only the last
/// request of a batch asks for an acknowledgement. The kernel answers the other
/// requests of a batch only if they fail, and sends the failures before the
/// acknowledgement.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    /// The number of netlink requests in the batch.
    pub(crate) count: usize,
    /// The offset of the batch's last request in `bytes`.
    last: usize,
    /// The index of the batch's first operation among the caller's operations.
    pub(crate) first_index: usize,
    /// The netlink sequence number of the batch's first request. Each request's
    /// sequence number is one higher than the previous request's.
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

    /// Marks the batch's last request so that the kernel acknowledges that
    /// request.
    pub(crate) fn finish(&mut self) {
        // A netlink header begins with 4 bytes for the length, 2 for the type
        // and 2 for the flags.
        if let Some(flags) = self.bytes.get_mut(self.last + 6..self.last + 8) {
            flags.copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        }
    }
}
