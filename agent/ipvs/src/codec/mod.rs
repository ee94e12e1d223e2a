//! Generic-netlink messages of the family `IPVS` (`include/uapi/linux/ip_vs.h`,
//! `net/netfilter/ipvs/ip_vs_ctl.c`). The codec converts bytes to attributes,
//! attributes to values of the types in `model.rs`, and back. The netlink codec
//! does no I/O.

mod answer;
mod ask;
mod batch;
mod destination;
mod request;
mod service;
mod stats;
mod value;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext, NetlinkMessage, Nla, NlaBuffer, NlasIterator,
    Parseable, ParseableParametrized, emit_u32, parse_u32,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};

pub use destination::DestinationAttribute;
pub use request::append_request;
pub use service::ServiceAttribute;
pub use stats::{Number, StatsAttribute};

pub(crate) use answer::{DumpedDestination, DumpedService};
pub(crate) use batch::Batch;

const IPVS_GENL_NAME: &str = "IPVS";
const IPVS_GENL_VERSION: u8 = 1;

const IPVS_CMD_ATTR_SERVICE: u16 = 1;
const IPVS_CMD_ATTR_DEST: u16 = 2;
const IPVS_CMD_ATTR_TIMEOUT_TCP: u16 = 4;
const IPVS_CMD_ATTR_TIMEOUT_TCP_FIN: u16 = 5;
const IPVS_CMD_ATTR_TIMEOUT_UDP: u16 = 6;

const IPVS_INFO_ATTR_VERSION: u16 = 1;
const IPVS_INFO_ATTR_CONN_TAB_SIZE: u16 = 2;

const IPVS_CMD_NEW_SERVICE: u8 = 1;
const IPVS_CMD_SET_SERVICE: u8 = 2;
const IPVS_CMD_DEL_SERVICE: u8 = 3;
const IPVS_CMD_GET_SERVICE: u8 = 4;
const IPVS_CMD_NEW_DEST: u8 = 5;
const IPVS_CMD_SET_DEST: u8 = 6;
const IPVS_CMD_DEL_DEST: u8 = 7;
const IPVS_CMD_GET_DEST: u8 = 8;
const IPVS_CMD_SET_CONFIG: u8 = 12;
const IPVS_CMD_GET_CONFIG: u8 = 13;
const IPVS_CMD_SET_INFO: u8 = 14;
const IPVS_CMD_GET_INFO: u8 = 15;

/// A command of the netlink family `IPVS`. `Command` deliberately lacks the
/// kernel's command that empties the table (`IPVS_CMD_FLUSH`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command {
    /// Creates an IPVS service. In an answer to
    /// [`GetService`](Self::GetService), the kernel describes a service with
    /// `NewService`.
    NewService,
    /// Edits the configuration of a service.
    SetService,
    /// Deletes a service with its destinations.
    DeleteService,
    /// Reads one IPVS service, or all services as a dump.
    GetService,
    /// Creates a destination of a service. In an answer to
    /// [`GetDestination`](Self::GetDestination), the kernel describes a
    /// destination with `NewDestination`.
    NewDestination,
    /// Edits the configuration of a destination.
    SetDestination,
    /// Deletes a destination from its service.
    DeleteDestination,
    /// Reads the destinations of a service, always as a dump.
    GetDestination,
    /// Sets the kernel's IPVS connection timeouts. In an answer to
    /// [`GetConfig`](Self::GetConfig), the kernel reports the timeouts with
    /// `SetConfig`.
    SetConfig,
    /// Reads the kernel's IPVS connection timeouts.
    GetConfig,
    /// Answers [`GetInfo`](Self::GetInfo); `SetInfo` is never a request.
    SetInfo,
    /// Reads the version of IPVS and the size of its connection table.
    GetInfo,
    /// A command of the netlink family `IPVS` that this crate does not use.
    Other(u8),
}

impl From<Command> for u8 {
    fn from(command: Command) -> Self {
        match command {
            Command::NewService => IPVS_CMD_NEW_SERVICE,
            Command::SetService => IPVS_CMD_SET_SERVICE,
            Command::DeleteService => IPVS_CMD_DEL_SERVICE,
            Command::GetService => IPVS_CMD_GET_SERVICE,
            Command::NewDestination => IPVS_CMD_NEW_DEST,
            Command::SetDestination => IPVS_CMD_SET_DEST,
            Command::DeleteDestination => IPVS_CMD_DEL_DEST,
            Command::GetDestination => IPVS_CMD_GET_DEST,
            Command::SetConfig => IPVS_CMD_SET_CONFIG,
            Command::GetConfig => IPVS_CMD_GET_CONFIG,
            Command::SetInfo => IPVS_CMD_SET_INFO,
            Command::GetInfo => IPVS_CMD_GET_INFO,
            Command::Other(command) => command,
        }
    }
}

impl From<u8> for Command {
    fn from(command: u8) -> Self {
        match command {
            IPVS_CMD_NEW_SERVICE => Self::NewService,
            IPVS_CMD_SET_SERVICE => Self::SetService,
            IPVS_CMD_DEL_SERVICE => Self::DeleteService,
            IPVS_CMD_GET_SERVICE => Self::GetService,
            IPVS_CMD_NEW_DEST => Self::NewDestination,
            IPVS_CMD_SET_DEST => Self::SetDestination,
            IPVS_CMD_DEL_DEST => Self::DeleteDestination,
            IPVS_CMD_GET_DEST => Self::GetDestination,
            IPVS_CMD_SET_CONFIG => Self::SetConfig,
            IPVS_CMD_GET_CONFIG => Self::GetConfig,
            IPVS_CMD_SET_INFO => Self::SetInfo,
            IPVS_CMD_GET_INFO => Self::GetInfo,
            other => Self::Other(other),
        }
    }
}

/// A message of the netlink family `IPVS`: a command and its attributes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// The command that the message requests or answers.
    pub command: Command,
    /// The message's attributes, in the order in which the message contains
    /// them.
    pub attributes: Vec<Attribute>,
}

impl GenlFamily for Message {
    fn family_name() -> &'static str {
        IPVS_GENL_NAME
    }

    fn command(&self) -> u8 {
        self.command.into()
    }

    fn version(&self) -> u8 {
        IPVS_GENL_VERSION
    }
}

impl Emitable for Message {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Message {
    fn parse_with_param(buffer: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let command = Command::from(header.cmd);
        let attributes = NlasIterator::new(buffer)
            .map(|nla| nla.and_then(|nla| Attribute::parse_for(command, &nla)))
            .collect::<Result<_, _>>()
            .with_context(|| format!("attributes of an IPVS message {command:?}"))?;
        Ok(Self {
            command,
            attributes,
        })
    }
}

/// A top-level attribute of a message of the netlink family `IPVS`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Attribute {
    /// `IPVS_CMD_ATTR_SERVICE`: the nested attributes of a service.
    Service(Vec<ServiceAttribute>),
    /// `IPVS_CMD_ATTR_DEST`: the nested attributes of a destination.
    Destination(Vec<DestinationAttribute>),
    /// `IPVS_CMD_ATTR_TIMEOUT_TCP`: the timeout of established TCP connections
    /// in seconds, or 0 to keep the current timeout.
    TimeoutTcp(u32),
    /// `IPVS_CMD_ATTR_TIMEOUT_TCP_FIN`: the timeout of TCP connections after a
    /// FIN, in seconds, or 0 to keep the current timeout.
    TimeoutTcpFin(u32),
    /// `IPVS_CMD_ATTR_TIMEOUT_UDP`: the timeout of UDP flows in seconds, or 0
    /// to keep the current timeout.
    TimeoutUdp(u32),
    /// `IPVS_INFO_ATTR_VERSION`: the version of IPVS, where 0x010201 is 1.2.1.
    /// `InfoVersion` occurs only in [`Command::SetInfo`]. In messages with
    /// other commands, the attribute number of `IPVS_INFO_ATTR_VERSION` means
    /// `IPVS_CMD_ATTR_SERVICE`.
    InfoVersion(u32),
    /// `IPVS_INFO_ATTR_CONN_TAB_SIZE`: the number of buckets in the connection
    /// table. `InfoConnectionTableSize` occurs only in [`Command::SetInfo`].
    InfoConnectionTableSize(u32),
    /// An attribute that this crate does not use, such as an attribute of the
    /// kernel's connection sync daemon.
    Other(DefaultNla),
}

impl Attribute {
    fn parse_for(command: Command, nla: &NlaBuffer<&[u8]>) -> Result<Self, DecodeError> {
        let value = nla.value();
        let number = |name| parse_u32(value).context(name);
        Ok(match (command, nla.kind()) {
            (Command::SetInfo, IPVS_INFO_ATTR_VERSION) => {
                Self::InfoVersion(number("IPVS_INFO_ATTR_VERSION")?)
            }
            (Command::SetInfo, IPVS_INFO_ATTR_CONN_TAB_SIZE) => {
                Self::InfoConnectionTableSize(number("IPVS_INFO_ATTR_CONN_TAB_SIZE")?)
            }
            (_, IPVS_CMD_ATTR_SERVICE) => {
                Self::Service(nested(value).context("IPVS_CMD_ATTR_SERVICE")?)
            }
            (_, IPVS_CMD_ATTR_DEST) => {
                Self::Destination(nested(value).context("IPVS_CMD_ATTR_DEST")?)
            }
            (_, IPVS_CMD_ATTR_TIMEOUT_TCP) => {
                Self::TimeoutTcp(number("IPVS_CMD_ATTR_TIMEOUT_TCP")?)
            }
            (_, IPVS_CMD_ATTR_TIMEOUT_TCP_FIN) => {
                Self::TimeoutTcpFin(number("IPVS_CMD_ATTR_TIMEOUT_TCP_FIN")?)
            }
            (_, IPVS_CMD_ATTR_TIMEOUT_UDP) => {
                Self::TimeoutUdp(number("IPVS_CMD_ATTR_TIMEOUT_UDP")?)
            }
            (_, kind) => Self::Other(
                DefaultNla::parse(nla).with_context(|| format!("IPVS attribute {kind}"))?,
            ),
        })
    }
}

impl Nla for Attribute {
    fn value_len(&self) -> usize {
        match self {
            Self::Service(attributes) => attributes.as_slice().buffer_len(),
            Self::Destination(attributes) => attributes.as_slice().buffer_len(),
            Self::TimeoutTcp(_)
            | Self::TimeoutTcpFin(_)
            | Self::TimeoutUdp(_)
            | Self::InfoVersion(_)
            | Self::InfoConnectionTableSize(_) => 4,
            Self::Other(nla) => nla.value_len(),
        }
    }

    // This function does not set NLA_F_NESTED, because the kernel does not set
    // this flag on nested attributes either.
    fn kind(&self) -> u16 {
        match self {
            Self::Service(_) => IPVS_CMD_ATTR_SERVICE,
            Self::Destination(_) => IPVS_CMD_ATTR_DEST,
            Self::TimeoutTcp(_) => IPVS_CMD_ATTR_TIMEOUT_TCP,
            Self::TimeoutTcpFin(_) => IPVS_CMD_ATTR_TIMEOUT_TCP_FIN,
            Self::TimeoutUdp(_) => IPVS_CMD_ATTR_TIMEOUT_UDP,
            Self::InfoVersion(_) => IPVS_INFO_ATTR_VERSION,
            Self::InfoConnectionTableSize(_) => IPVS_INFO_ATTR_CONN_TAB_SIZE,
            Self::Other(nla) => nla.kind(),
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match self {
            Self::Service(attributes) => attributes.as_slice().emit(buffer),
            Self::Destination(attributes) => attributes.as_slice().emit(buffer),
            Self::TimeoutTcp(number)
            | Self::TimeoutTcpFin(number)
            | Self::TimeoutUdp(number)
            | Self::InfoVersion(number)
            | Self::InfoConnectionTableSize(number) => put_u32(buffer, *number),
            Self::Other(nla) => nla.emit_value(buffer),
        }
    }
}

/// Iterates over the netlink messages of a datagram. A message that cannot be
/// parsed yields an error, and the iterator continues with the next message. A
/// header that cannot be parsed ends the iteration.
pub fn messages(
    datagram: &[u8],
) -> impl Iterator<Item = Result<NetlinkMessage<GenlMessage<Message>>, DecodeError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = NetlinkMessage::deserialize(rest);
        // A netlink header begins with the message's length. `deserialize`
        // checks that the length covers the header and does not exceed the
        // buffer.
        let length = match rest.first_chunk() {
            Some(bytes) => u32::from_ne_bytes(*bytes) as usize,
            None => 0,
        };
        rest = match length {
            0..16 => &[],
            length => rest.get(length.next_multiple_of(4)..).unwrap_or(&[]),
        };
        Some(message)
    })
}

/// Parses the list of attributes inside a nested attribute.
fn nested<T>(value: &[u8]) -> Result<Vec<T>, DecodeError>
where
    T: for<'a> Parseable<NlaBuffer<&'a [u8]>>,
{
    NlasIterator::new(value)
        .map(|nla| nla.and_then(|nla| T::parse(&nla)))
        .collect()
}

/// Parses an IP address in an attribute. Like the kernel, this function uses 16
/// bytes for both address families and pads shorter addresses with zeros.
fn parse_address(value: &[u8]) -> Result<[u8; 16], DecodeError> {
    let mut address = [0; 16];
    match address.get_mut(..value.len()) {
        Some(start) => {
            start.copy_from_slice(value);
            Ok(address)
        }
        None => Err(format!("an address of {} bytes, more than 16", value.len()).into()),
    }
}

fn put_u32(buffer: &mut [u8], number: u32) {
    emit_u32(buffer, number).expect("value_len is 4");
}

fn put_string(buffer: &mut [u8], text: &str) {
    buffer[..text.len()].copy_from_slice(text.as_bytes());
    buffer[text.len()] = 0;
}

#[cfg(test)]
mod tests;
