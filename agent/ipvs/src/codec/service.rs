use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext, Nla, NlaBuffer, Parseable, emit_u16,
    emit_u16_be, parse_string, parse_u16, parse_u16_be, parse_u32,
};

use super::{StatsAttribute, nested, parse_address, put_string, put_u32};

const IPVS_SVC_ATTR_AF: u16 = 1;
const IPVS_SVC_ATTR_PROTOCOL: u16 = 2;
const IPVS_SVC_ATTR_ADDR: u16 = 3;
const IPVS_SVC_ATTR_PORT: u16 = 4;
const IPVS_SVC_ATTR_FWMARK: u16 = 5;
const IPVS_SVC_ATTR_SCHED_NAME: u16 = 6;
const IPVS_SVC_ATTR_FLAGS: u16 = 7;
const IPVS_SVC_ATTR_TIMEOUT: u16 = 8;
const IPVS_SVC_ATTR_NETMASK: u16 = 9;
const IPVS_SVC_ATTR_STATS: u16 = 10;
const IPVS_SVC_ATTR_PE_NAME: u16 = 11;
const IPVS_SVC_ATTR_STATS64: u16 = 12;

/// An attribute in the nest `IPVS_CMD_ATTR_SERVICE` (`IPVS_SVC_ATTR_*`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ServiceAttribute {
    /// `AF`: the service's address family, `AF_INET` or `AF_INET6`.
    Family(u16),
    /// `PROTOCOL`: the service's IP protocol number, which may be any number.
    Protocol(u16),
    /// `ADDR`: the service's address. An IPv4 address uses only the first four
    /// of the 16 bytes.
    Address([u8; 16]),
    /// `PORT`: the service's port, big endian on the wire.
    Port(u16),
    /// `FWMARK`: the service's firewall mark, which replaces the protocol,
    /// address and port.
    FirewallMark(u32),
    /// `SCHED_NAME`: the scheduler's name, at most 15 bytes, or "none" if the
    /// service has no scheduler.
    Scheduler(String),
    /// `FLAGS`: a change of the service's flags, as new values and a mask. The
    /// kernel computes the new flags as `old & !mask | flags & mask`.
    Flags {
        /// The values of the service's flags (`IP_VS_SVC_F_*`).
        flags: u32,
        /// The mask of the service flags to change. In messages from the
        /// kernel, every bit of the mask is set.
        mask: u32,
    },
    /// `TIMEOUT`: the persistence timeout in seconds.
    Timeout(u32),
    /// `NETMASK`: an IPv4 mask in network byte order, or the length of an IPv6
    /// prefix in host byte order.
    Netmask([u8; 4]),
    /// `STATS`: 32-bit counters, sent by the kernel only.
    Stats(Vec<StatsAttribute>),
    /// `PE_NAME`: the name of the persistence engine. A service without a
    /// persistence engine lacks this attribute.
    PersistenceEngine(String),
    /// `STATS64`: 64-bit counters, sent by the kernel only; since Linux 4.1.
    Stats64(Vec<StatsAttribute>),
    /// A service attribute that this crate does not know.
    Other(DefaultNla),
}

impl<'a> Parseable<NlaBuffer<&'a [u8]>> for ServiceAttribute {
    fn parse(nla: &NlaBuffer<&'a [u8]>) -> Result<Self, DecodeError> {
        let value = nla.value();
        Ok(match nla.kind() {
            IPVS_SVC_ATTR_AF => Self::Family(parse_u16(value).context("IPVS_SVC_ATTR_AF")?),
            IPVS_SVC_ATTR_PROTOCOL => {
                Self::Protocol(parse_u16(value).context("IPVS_SVC_ATTR_PROTOCOL")?)
            }
            IPVS_SVC_ATTR_ADDR => {
                Self::Address(parse_address(value).context("IPVS_SVC_ATTR_ADDR")?)
            }
            IPVS_SVC_ATTR_PORT => Self::Port(parse_u16_be(value).context("IPVS_SVC_ATTR_PORT")?),
            IPVS_SVC_ATTR_FWMARK => {
                Self::FirewallMark(parse_u32(value).context("IPVS_SVC_ATTR_FWMARK")?)
            }
            IPVS_SVC_ATTR_SCHED_NAME => {
                Self::Scheduler(parse_string(value).context("IPVS_SVC_ATTR_SCHED_NAME")?)
            }
            IPVS_SVC_ATTR_FLAGS => parse_flags(value).context("IPVS_SVC_ATTR_FLAGS")?,
            IPVS_SVC_ATTR_TIMEOUT => {
                Self::Timeout(parse_u32(value).context("IPVS_SVC_ATTR_TIMEOUT")?)
            }
            IPVS_SVC_ATTR_NETMASK => {
                let bytes = value
                    .try_into()
                    .map_err(|_| DecodeError::invalid_number(4, value.len()))
                    .context("IPVS_SVC_ATTR_NETMASK")?;
                Self::Netmask(bytes)
            }
            IPVS_SVC_ATTR_STATS => Self::Stats(nested(value).context("IPVS_SVC_ATTR_STATS")?),
            IPVS_SVC_ATTR_PE_NAME => {
                Self::PersistenceEngine(parse_string(value).context("IPVS_SVC_ATTR_PE_NAME")?)
            }
            IPVS_SVC_ATTR_STATS64 => Self::Stats64(nested(value).context("IPVS_SVC_ATTR_STATS64")?),
            kind => Self::Other(
                DefaultNla::parse(nla).with_context(|| format!("IPVS_SVC_ATTR {kind}"))?,
            ),
        })
    }
}

fn parse_flags(value: &[u8]) -> Result<ServiceAttribute, DecodeError> {
    let (flags, mask) = value
        .split_at_checked(4)
        .ok_or_else(|| DecodeError::invalid_number(8, value.len()))?;
    Ok(ServiceAttribute::Flags {
        flags: parse_u32(flags)?,
        mask: parse_u32(mask).context("its mask")?,
    })
}

impl Nla for ServiceAttribute {
    #[inline]
    fn value_len(&self) -> usize {
        match self {
            Self::Family(_) | Self::Protocol(_) | Self::Port(_) => 2,
            Self::Address(_) => 16,
            Self::FirewallMark(_) | Self::Timeout(_) | Self::Netmask(_) => 4,
            Self::Scheduler(name) | Self::PersistenceEngine(name) => name.len() + 1,
            Self::Flags { .. } => 8,
            Self::Stats(attributes) | Self::Stats64(attributes) => {
                attributes.as_slice().buffer_len()
            }
            Self::Other(nla) => nla.value_len(),
        }
    }

    #[inline]
    fn kind(&self) -> u16 {
        match self {
            Self::Family(_) => IPVS_SVC_ATTR_AF,
            Self::Protocol(_) => IPVS_SVC_ATTR_PROTOCOL,
            Self::Address(_) => IPVS_SVC_ATTR_ADDR,
            Self::Port(_) => IPVS_SVC_ATTR_PORT,
            Self::FirewallMark(_) => IPVS_SVC_ATTR_FWMARK,
            Self::Scheduler(_) => IPVS_SVC_ATTR_SCHED_NAME,
            Self::Flags { .. } => IPVS_SVC_ATTR_FLAGS,
            Self::Timeout(_) => IPVS_SVC_ATTR_TIMEOUT,
            Self::Netmask(_) => IPVS_SVC_ATTR_NETMASK,
            Self::Stats(_) => IPVS_SVC_ATTR_STATS,
            Self::PersistenceEngine(_) => IPVS_SVC_ATTR_PE_NAME,
            Self::Stats64(_) => IPVS_SVC_ATTR_STATS64,
            Self::Other(nla) => nla.kind(),
        }
    }

    #[inline]
    fn emit_value(&self, buffer: &mut [u8]) {
        match self {
            Self::Family(number) | Self::Protocol(number) => {
                emit_u16(buffer, *number).expect("value_len is 2");
            }
            Self::Port(port) => emit_u16_be(buffer, *port).expect("value_len is 2"),
            Self::Address(address) => buffer.copy_from_slice(address),
            Self::FirewallMark(number) | Self::Timeout(number) => put_u32(buffer, *number),
            Self::Netmask(bytes) => buffer.copy_from_slice(bytes),
            Self::Scheduler(name) | Self::PersistenceEngine(name) => put_string(buffer, name),
            Self::Flags { flags, mask } => {
                let (first, second) = buffer.split_at_mut(4);
                put_u32(first, *flags);
                put_u32(second, *mask);
            }
            Self::Stats(attributes) | Self::Stats64(attributes) => {
                attributes.as_slice().emit(buffer);
            }
            Self::Other(nla) => nla.emit_value(buffer),
        }
    }
}
