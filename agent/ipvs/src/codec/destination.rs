use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, ErrorContext, Nla, NlaBuffer, Parseable, emit_u16,
    emit_u16_be, parse_u8, parse_u16, parse_u16_be, parse_u32,
};

use super::{StatsAttribute, nested, parse_address, put_u32};

const IPVS_DEST_ATTR_ADDR: u16 = 1;
const IPVS_DEST_ATTR_PORT: u16 = 2;
const IPVS_DEST_ATTR_FWD_METHOD: u16 = 3;
const IPVS_DEST_ATTR_WEIGHT: u16 = 4;
const IPVS_DEST_ATTR_U_THRESH: u16 = 5;
const IPVS_DEST_ATTR_L_THRESH: u16 = 6;
const IPVS_DEST_ATTR_ACTIVE_CONNS: u16 = 7;
const IPVS_DEST_ATTR_INACT_CONNS: u16 = 8;
const IPVS_DEST_ATTR_PERSIST_CONNS: u16 = 9;
const IPVS_DEST_ATTR_STATS: u16 = 10;
const IPVS_DEST_ATTR_ADDR_FAMILY: u16 = 11;
const IPVS_DEST_ATTR_STATS64: u16 = 12;
const IPVS_DEST_ATTR_TUN_TYPE: u16 = 13;
const IPVS_DEST_ATTR_TUN_PORT: u16 = 14;
const IPVS_DEST_ATTR_TUN_FLAGS: u16 = 15;

/// An attribute in the nest `IPVS_CMD_ATTR_DEST` (`IPVS_DEST_ATTR_*`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DestinationAttribute {
    /// `ADDR`: the destination's address. An IPv4 address uses only the first
    /// four of the 16 bytes.
    Address([u8; 16]),
    /// `PORT`: the destination's port, big endian on the wire.
    Port(u16),
    /// `FWD_METHOD`: the forwarding method, `IP_VS_CONN_F_*` masked with
    /// `IP_VS_CONN_F_FWD_MASK`.
    ForwardingMethod(u32),
    /// `WEIGHT`: the destination's weight, up to 2^31-1.
    Weight(u32),
    /// `U_THRESH`: the upper connection threshold.
    UpperThreshold(u32),
    /// `L_THRESH`: the lower connection threshold.
    LowerThreshold(u32),
    /// `ACTIVE_CONNS`: the number of established connections, sent by the
    /// kernel only.
    ActiveConnections(u32),
    /// `INACT_CONNS`: the number of connections that are not established, sent
    /// by the kernel only.
    InactiveConnections(u32),
    /// `PERSIST_CONNS`: the number of persistence templates, sent by the kernel
    /// only.
    PersistentConnections(u32),
    /// `STATS`: 32-bit counters, sent by the kernel only.
    Stats(Vec<StatsAttribute>),
    /// `ADDR_FAMILY`: the destination's address family, which defaults to the
    /// service's; since Linux 3.18.
    Family(u16),
    /// `STATS64`: 64-bit counters, sent by the kernel only; since Linux 4.1.
    Stats64(Vec<StatsAttribute>),
    /// `TUN_TYPE`: the kind of tunnel; since Linux 5.2.
    TunnelKind(u8),
    /// `TUN_PORT`: the tunnel's UDP port, big endian on the wire; since Linux
    /// 5.2.
    TunnelPort(u16),
    /// `TUN_FLAGS`: the checksum flags of the tunnel; since Linux 5.3.
    TunnelFlags(u16),
    /// A destination attribute that this crate does not know.
    Other(DefaultNla),
}

impl<'a> Parseable<NlaBuffer<&'a [u8]>> for DestinationAttribute {
    fn parse(nla: &NlaBuffer<&'a [u8]>) -> Result<Self, DecodeError> {
        let value = nla.value();
        let number = |name| parse_u32(value).context(name);
        Ok(match nla.kind() {
            IPVS_DEST_ATTR_ADDR => {
                Self::Address(parse_address(value).context("IPVS_DEST_ATTR_ADDR")?)
            }
            IPVS_DEST_ATTR_PORT => Self::Port(parse_u16_be(value).context("IPVS_DEST_ATTR_PORT")?),
            IPVS_DEST_ATTR_FWD_METHOD => {
                Self::ForwardingMethod(number("IPVS_DEST_ATTR_FWD_METHOD")?)
            }
            IPVS_DEST_ATTR_WEIGHT => Self::Weight(number("IPVS_DEST_ATTR_WEIGHT")?),
            IPVS_DEST_ATTR_U_THRESH => Self::UpperThreshold(number("IPVS_DEST_ATTR_U_THRESH")?),
            IPVS_DEST_ATTR_L_THRESH => Self::LowerThreshold(number("IPVS_DEST_ATTR_L_THRESH")?),
            IPVS_DEST_ATTR_ACTIVE_CONNS => {
                Self::ActiveConnections(number("IPVS_DEST_ATTR_ACTIVE_CONNS")?)
            }
            IPVS_DEST_ATTR_INACT_CONNS => {
                Self::InactiveConnections(number("IPVS_DEST_ATTR_INACT_CONNS")?)
            }
            IPVS_DEST_ATTR_PERSIST_CONNS => {
                Self::PersistentConnections(number("IPVS_DEST_ATTR_PERSIST_CONNS")?)
            }
            IPVS_DEST_ATTR_STATS => Self::Stats(nested(value).context("IPVS_DEST_ATTR_STATS")?),
            IPVS_DEST_ATTR_ADDR_FAMILY => {
                Self::Family(parse_u16(value).context("IPVS_DEST_ATTR_ADDR_FAMILY")?)
            }
            IPVS_DEST_ATTR_STATS64 => {
                Self::Stats64(nested(value).context("IPVS_DEST_ATTR_STATS64")?)
            }
            IPVS_DEST_ATTR_TUN_TYPE => {
                Self::TunnelKind(parse_u8(value).context("IPVS_DEST_ATTR_TUN_TYPE")?)
            }
            IPVS_DEST_ATTR_TUN_PORT => {
                Self::TunnelPort(parse_u16_be(value).context("IPVS_DEST_ATTR_TUN_PORT")?)
            }
            IPVS_DEST_ATTR_TUN_FLAGS => {
                Self::TunnelFlags(parse_u16(value).context("IPVS_DEST_ATTR_TUN_FLAGS")?)
            }
            kind => Self::Other(
                DefaultNla::parse(nla).with_context(|| format!("IPVS_DEST_ATTR {kind}"))?,
            ),
        })
    }
}

impl Nla for DestinationAttribute {
    #[inline]
    fn value_len(&self) -> usize {
        match self {
            Self::Address(_) => 16,
            Self::Port(_) | Self::Family(_) | Self::TunnelPort(_) | Self::TunnelFlags(_) => 2,
            Self::ForwardingMethod(_)
            | Self::Weight(_)
            | Self::UpperThreshold(_)
            | Self::LowerThreshold(_)
            | Self::ActiveConnections(_)
            | Self::InactiveConnections(_)
            | Self::PersistentConnections(_) => 4,
            Self::TunnelKind(_) => 1,
            Self::Stats(attributes) | Self::Stats64(attributes) => {
                attributes.as_slice().buffer_len()
            }
            Self::Other(nla) => nla.value_len(),
        }
    }

    #[inline]
    fn kind(&self) -> u16 {
        match self {
            Self::Address(_) => IPVS_DEST_ATTR_ADDR,
            Self::Port(_) => IPVS_DEST_ATTR_PORT,
            Self::ForwardingMethod(_) => IPVS_DEST_ATTR_FWD_METHOD,
            Self::Weight(_) => IPVS_DEST_ATTR_WEIGHT,
            Self::UpperThreshold(_) => IPVS_DEST_ATTR_U_THRESH,
            Self::LowerThreshold(_) => IPVS_DEST_ATTR_L_THRESH,
            Self::ActiveConnections(_) => IPVS_DEST_ATTR_ACTIVE_CONNS,
            Self::InactiveConnections(_) => IPVS_DEST_ATTR_INACT_CONNS,
            Self::PersistentConnections(_) => IPVS_DEST_ATTR_PERSIST_CONNS,
            Self::Stats(_) => IPVS_DEST_ATTR_STATS,
            Self::Family(_) => IPVS_DEST_ATTR_ADDR_FAMILY,
            Self::Stats64(_) => IPVS_DEST_ATTR_STATS64,
            Self::TunnelKind(_) => IPVS_DEST_ATTR_TUN_TYPE,
            Self::TunnelPort(_) => IPVS_DEST_ATTR_TUN_PORT,
            Self::TunnelFlags(_) => IPVS_DEST_ATTR_TUN_FLAGS,
            Self::Other(nla) => nla.kind(),
        }
    }

    #[inline]
    fn emit_value(&self, buffer: &mut [u8]) {
        match self {
            Self::Address(address) => buffer.copy_from_slice(address),
            Self::Port(port) | Self::TunnelPort(port) => {
                emit_u16_be(buffer, *port).expect("value_len is 2");
            }
            Self::Family(number) | Self::TunnelFlags(number) => {
                emit_u16(buffer, *number).expect("value_len is 2");
            }
            Self::ForwardingMethod(number)
            | Self::Weight(number)
            | Self::UpperThreshold(number)
            | Self::LowerThreshold(number)
            | Self::ActiveConnections(number)
            | Self::InactiveConnections(number)
            | Self::PersistentConnections(number) => put_u32(buffer, *number),
            Self::TunnelKind(kind) => buffer[0] = *kind,
            Self::Stats(attributes) | Self::Stats64(attributes) => {
                attributes.as_slice().emit(buffer);
            }
            Self::Other(nla) => nla.emit_value(buffer),
        }
    }
}
