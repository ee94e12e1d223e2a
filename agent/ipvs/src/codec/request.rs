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
    /// Appends the netlink message to a datagram.
    ///
    /// `append_to` writes the same bytes as
    /// [`NetlinkMessage`](netlink_packet_core::NetlinkMessage).
    /// `NetlinkMessage` takes twice as long, because it computes the length of
    /// each nested attribute many times. `header` must name the netlink family;
    /// `append_to` fills in the length.
    pub fn append_to(&self, datagram: &mut Vec<u8>, header: NetlinkHeader) {
        append_message(datagram, header, self.command, |rest| {
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

/// Appends the netlink request for an operation to a datagram. The request has
/// the same bytes as the operation's [`Message`]. To save time,
/// `append_request` does not build a `Message`.
pub fn append_request(op: &Op, datagram: &mut Vec<u8>, header: NetlinkHeader) {
    append_message(datagram, header, command(op), |rest| {
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

#[inline]
fn append_message(
    datagram: &mut Vec<u8>,
    mut header: NetlinkHeader,
    command: Command,
    attributes: impl FnOnce(&mut Rest<'_>),
) {
    let start = datagram.len();
    datagram.resize(start + NLMSG_HDRLEN + GENL_HDRLEN, 0);
    attributes(&mut Rest { datagram });
    let message = &mut datagram[start..];
    header.length = u32::try_from(message.len()).expect("a message is below 4 GiB");
    header.emit(message);
    let generic = GenlHeader {
        cmd: command.into(),
        version: IPVS_GENL_VERSION,
    };
    generic.emit(&mut message[NLMSG_HDRLEN..]);
}

/// Appends attributes to a datagram. The datagram grows with each attribute, so
/// the caller need not compute the length of all attributes in advance.
struct Rest<'a> {
    datagram: &'a mut Vec<u8>,
}

impl Rest<'_> {
    #[inline]
    fn put_nest(&mut self, kind: u16, attributes: impl FnOnce(&mut Self)) {
        let start = self.datagram.len();
        self.datagram.extend_from_slice(&[0; NLA_HDRLEN]);
        attributes(self);
        let nest = &mut self.datagram[start..];
        let length = nest.len();
        put_header(nest, length, kind);
    }

    // The compiler inlines this function. If it knows the attribute's kind,
    // only a few machine instructions remain.
    #[inline(always)]
    fn put_attribute<N: Nla>(&mut self, attribute: &N) {
        let length = NLA_HDRLEN + attribute.value_len();
        let start = self.datagram.len();
        self.datagram
            .resize(start + length.next_multiple_of(NLA_ALIGNTO), 0);
        let bytes = &mut self.datagram[start..][..length];
        put_header(bytes, length, attribute.kind());
        attribute.emit_value(&mut bytes[NLA_HDRLEN..]);
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
