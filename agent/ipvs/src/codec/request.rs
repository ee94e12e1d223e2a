use netlink_packet_core::{Emitable, NetlinkHeader, Nla};
use netlink_packet_generic::{GenlFamily, GenlHeader};

use super::{Attribute, Message};

const NLMSG_HDRLEN: usize = 16;
const GENL_HDRLEN: usize = 4;
const NLA_HDRLEN: usize = 4;
const NLA_ALIGNTO: usize = 4;

impl Message {
    /// Appends the message to a datagram, in one pass.
    ///
    /// The bytes are those of [`NetlinkMessage`](netlink_packet_core::NetlinkMessage),
    /// which asks every nest for its length many times over and takes twice
    /// the time for it.
    /// `header` names the family; its length is filled in.
    pub fn append_to(&self, datagram: &mut Vec<u8>, mut header: NetlinkHeader) {
        let start = datagram.len();
        datagram.resize(start + NLMSG_HDRLEN + GENL_HDRLEN, 0);
        for attribute in &self.attributes {
            match attribute {
                Attribute::Service(nest) => append_nest(datagram, attribute.kind(), nest),
                Attribute::Destination(nest) => append_nest(datagram, attribute.kind(), nest),
                plain => append(datagram, plain),
            }
        }
        header.length = u32::try_from(datagram.len() - start).expect("a message is below 4 GiB");
        header.emit(&mut datagram[start..]);
        let generic = GenlHeader {
            cmd: self.command(),
            version: self.version(),
        };
        generic.emit(&mut datagram[start + NLMSG_HDRLEN..]);
    }
}

fn append_nest<N: Nla>(datagram: &mut Vec<u8>, kind: u16, attributes: &[N]) {
    let start = datagram.len();
    datagram.resize(start + NLA_HDRLEN, 0);
    for attribute in attributes {
        append(datagram, attribute);
    }
    let length = datagram.len() - start;
    put_header(&mut datagram[start..], length, kind);
}

fn append<N: Nla>(datagram: &mut Vec<u8>, attribute: &N) {
    let start = datagram.len();
    let length = NLA_HDRLEN + attribute.value_len();
    datagram.resize(start + length.next_multiple_of(NLA_ALIGNTO), 0);
    let bytes = &mut datagram[start..start + length];
    put_header(bytes, length, attribute.kind());
    attribute.emit_value(&mut bytes[NLA_HDRLEN..]);
}

fn put_header(bytes: &mut [u8], length: usize, kind: u16) {
    let length = u16::try_from(length).expect("an attribute is below 64 KiB");
    bytes[..2].copy_from_slice(&length.to_ne_bytes());
    bytes[2..4].copy_from_slice(&kind.to_ne_bytes());
}
