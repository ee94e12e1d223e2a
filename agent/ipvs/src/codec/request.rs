use netlink_packet_core::{Emitable, NetlinkHeader, Nla};
use netlink_packet_generic::GenlHeader;

use super::{
    Attribute, Command, IPVS_CMD_ATTR_DEST, IPVS_CMD_ATTR_SERVICE, IPVS_GENL_VERSION, Message,
    ask::{Nest, command, destination_attributes, service_attributes},
};
use crate::Op;

const NLMSG_HDRLEN: usize = 16;
const GENL_HDRLEN: usize = 4;
const NLA_HDRLEN: usize = 4;
const NLA_ALIGNTO: usize = 4;

impl Message {
    /// Appends the message to a datagram.
    ///
    /// The bytes are the same as those of
    /// [`NetlinkMessage`](netlink_packet_core::NetlinkMessage), which takes
    /// twice as long because it asks each nest for its length many times.
    /// `header` names the family; its length is filled in.
    pub fn append_to(&self, datagram: &mut Vec<u8>, header: NetlinkHeader) {
        let room = self.buffer_len();
        append_message(datagram, header, self.command, room, |rest| {
            for attribute in &self.attributes {
                let kind = attribute.kind();
                match attribute {
                    Attribute::Service(nest) => rest.put_nest(kind, |rest| {
                        nest.iter()
                            .for_each(|attribute| rest.put_attribute(attribute));
                    }),
                    Attribute::Destination(nest) => rest.put_nest(kind, |rest| {
                        nest.iter()
                            .for_each(|attribute| rest.put_attribute(attribute));
                    }),
                    plain => rest.put_attribute(plain),
                }
            }
        });
    }
}

/// Appends the request for an operation. The bytes are those of its
/// [`Message`], which is not built, to save time.
pub fn append_request(op: &Op, datagram: &mut Vec<u8>, header: NetlinkHeader) {
    append_message(datagram, header, command(op), room(op), |rest| {
        rest.put_nest(IPVS_CMD_ATTR_SERVICE, |rest| {
            service_attributes(op, rest);
        });
        if op.destination().is_some() {
            rest.put_nest(IPVS_CMD_ATTR_DEST, |rest| {
                destination_attributes(op, rest);
            });
        }
    });
}

/// The size of an operation's attributes and of the headers of both nests, even
/// if there is only one nest.
#[inline]
fn room(op: &Op) -> usize {
    let (mut service, mut destination) = (Length::default(), Length::default());
    service_attributes(op, &mut service);
    destination_attributes(op, &mut destination);
    NLA_HDRLEN + service.0 + NLA_HDRLEN + destination.0
}

/// Counts the bytes of attributes.
#[derive(Default)]
struct Length(usize);

impl<N: Nla> Nest<N> for Length {
    #[inline(always)]
    fn put(&mut self, attribute: N) {
        self.0 += length(&attribute).next_multiple_of(NLA_ALIGNTO);
    }
}

#[inline(always)]
fn length<N: Nla>(attribute: &N) -> usize {
    NLA_HDRLEN + attribute.value_len()
}

#[inline]
fn append_message(
    datagram: &mut Vec<u8>,
    mut header: NetlinkHeader,
    command: Command,
    room: usize,
    attributes: impl FnOnce(&mut Rest<'_>),
) {
    let start = datagram.len();
    datagram.resize(start + NLMSG_HDRLEN + GENL_HDRLEN + room, 0);
    let mut rest = Rest {
        bytes: &mut datagram[start..],
        filled: NLMSG_HDRLEN + GENL_HDRLEN,
    };
    attributes(&mut rest);
    let Rest { bytes, filled } = rest;
    header.length = u32::try_from(filled).expect("a message is below 4 GiB");
    header.emit(bytes);
    let generic = GenlHeader {
        cmd: command.into(),
        version: IPVS_GENL_VERSION,
    };
    generic.emit(&mut bytes[NLMSG_HDRLEN..]);
    datagram.truncate(start + filled);
}

/// The bytes at the end of a datagram that are still zero.
struct Rest<'a> {
    bytes: &'a mut [u8],
    filled: usize,
}

impl Rest<'_> {
    #[inline]
    fn put_nest(&mut self, kind: u16, attributes: impl FnOnce(&mut Self)) {
        let start = self.filled;
        self.filled += NLA_HDRLEN;
        attributes(self);
        let length = self.filled - start;
        put_header(&mut self.bytes[start..], length, kind);
    }

    // The compiler reduces this to a few moves where the kind of attribute is
    // known.
    #[inline(always)]
    fn put_attribute<N: Nla>(&mut self, attribute: &N) {
        let length = length(attribute);
        let bytes = &mut self.bytes[self.filled..][..length];
        put_header(bytes, length, attribute.kind());
        attribute.emit_value(&mut bytes[NLA_HDRLEN..]);
        self.filled += length.next_multiple_of(NLA_ALIGNTO);
    }
}

impl<N: Nla> Nest<N> for Rest<'_> {
    #[inline(always)]
    fn put(&mut self, attribute: N) {
        self.put_attribute(&attribute);
    }
}

#[inline(always)]
fn put_header(bytes: &mut [u8], length: usize, kind: u16) {
    let length = u16::try_from(length).expect("an attribute is below 64 KiB");
    bytes[..2].copy_from_slice(&length.to_ne_bytes());
    bytes[2..4].copy_from_slice(&kind.to_ne_bytes());
}
