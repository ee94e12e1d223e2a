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
    /// The bytes are those that
    /// [`NetlinkMessage`](netlink_packet_core::NetlinkMessage) would write.
    /// `NetlinkMessage` takes twice as long, because it computes the length of
    /// each nest many times. `header` must name the netlink family; this
    /// function fills in the length in `header`.
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

/// Appends the request for an operation. The request has the same bytes as the
/// operation's [`Message`]. To save time, `append_request` does not build a
/// `Message`.
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

/// Returns the size of an operation's attributes and of two nest headers, even
/// if the operation needs only one nest.
#[inline]
fn room(op: &Op) -> usize {
    let (mut service, mut destination) = (Length::default(), Length::default());
    service_attributes(op, &mut service);
    destination_attributes(op, &mut destination);
    NLA_HDRLEN + service.0 + NLA_HDRLEN + destination.0
}

/// Counts the bytes that attributes take in a datagram.
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

/// The end of a datagram, into which a message is being written.
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

    // Where the compiler knows the kind of attribute, it reduces this function
    // to a few moves.
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
