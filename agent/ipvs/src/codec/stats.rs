use netlink_packet_core::{
    DecodeError, DefaultNla, ErrorContext, Nla, NlaBuffer, Parseable, emit_u64, parse_u32,
    parse_u64,
};

use super::put_u32;
use crate::Stats;

const IPVS_STATS_ATTR_CONNS: u16 = 1;
const IPVS_STATS_ATTR_INPKTS: u16 = 2;
const IPVS_STATS_ATTR_OUTPKTS: u16 = 3;
const IPVS_STATS_ATTR_INBYTES: u16 = 4;
const IPVS_STATS_ATTR_OUTBYTES: u16 = 5;
const IPVS_STATS_ATTR_CPS: u16 = 6;
const IPVS_STATS_ATTR_INPPS: u16 = 7;
const IPVS_STATS_ATTR_OUTPPS: u16 = 8;
const IPVS_STATS_ATTR_INBPS: u16 = 9;
const IPVS_STATS_ATTR_OUTBPS: u16 = 10;
const IPVS_STATS_ATTR_PAD: u16 = 11;

/// An attribute in the nest `STATS` or `STATS64` (`IPVS_STATS_ATTR_*`). A
/// statistics attribute has the same number in the nests `STATS` and `STATS64`,
/// but its width may differ.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StatsAttribute {
    /// `CONNS`: the number of connections that were scheduled.
    Connections(Number),
    /// `INPKTS`: the number of packets from clients.
    PacketsIn(Number),
    /// `OUTPKTS`: the number of packets from servers.
    PacketsOut(Number),
    /// `INBYTES`: the number of bytes from clients, 64 bits wide even in the
    /// nest `STATS`.
    BytesIn(Number),
    /// `OUTBYTES`: the number of bytes from servers, 64 bits wide even in the
    /// nest `STATS`.
    BytesOut(Number),
    /// `CPS`: the number of new connections per second.
    ConnectionRate(Number),
    /// `INPPS`: the number of packets from clients per second.
    PacketRateIn(Number),
    /// `OUTPPS`: the number of packets from servers per second.
    PacketRateOut(Number),
    /// `INBPS`: the number of bytes from clients per second.
    ByteRateIn(Number),
    /// `OUTBPS`: the number of bytes from servers per second.
    ByteRateOut(Number),
    /// `PAD`: an empty attribute that aligns the 64-bit number after it; since
    /// Linux 4.7.
    Pad,
    /// A statistics attribute that this crate does not know.
    Other(DefaultNla),
}

/// A counter of a service or destination, in the width that the kernel used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Number {
    /// A counter that the kernel sent as 4 bytes.
    U32(u32),
    /// A counter that the kernel sent as 8 bytes, which may be unaligned.
    U64(u64),
}

impl Number {
    fn parse(value: &[u8]) -> Result<Self, DecodeError> {
        match value.len() {
            8 => parse_u64(value).map(Self::U64),
            _ => parse_u32(value).map(Self::U32),
        }
    }
}

impl From<Number> for u64 {
    fn from(number: Number) -> Self {
        match number {
            Number::U32(number) => number.into(),
            Number::U64(number) => number,
        }
    }
}

impl FromIterator<StatsAttribute> for Stats {
    fn from_iter<T: IntoIterator<Item = StatsAttribute>>(attributes: T) -> Self {
        let mut stats = Self::default();
        for attribute in attributes {
            match attribute {
                StatsAttribute::Connections(number) => stats.connections = number.into(),
                StatsAttribute::PacketsIn(number) => stats.packets_in = number.into(),
                StatsAttribute::PacketsOut(number) => stats.packets_out = number.into(),
                StatsAttribute::BytesIn(number) => stats.bytes_in = number.into(),
                StatsAttribute::BytesOut(number) => stats.bytes_out = number.into(),
                StatsAttribute::ConnectionRate(number) => stats.connection_rate = number.into(),
                StatsAttribute::PacketRateIn(number) => stats.packet_rate_in = number.into(),
                StatsAttribute::PacketRateOut(number) => stats.packet_rate_out = number.into(),
                StatsAttribute::ByteRateIn(number) => stats.byte_rate_in = number.into(),
                StatsAttribute::ByteRateOut(number) => stats.byte_rate_out = number.into(),
                StatsAttribute::Pad | StatsAttribute::Other(_) => {}
            }
        }
        stats
    }
}

impl<'a> Parseable<NlaBuffer<&'a [u8]>> for StatsAttribute {
    fn parse(nla: &NlaBuffer<&'a [u8]>) -> Result<Self, DecodeError> {
        let number = |name| Number::parse(nla.value()).context(name);
        Ok(match nla.kind() {
            IPVS_STATS_ATTR_CONNS => Self::Connections(number("IPVS_STATS_ATTR_CONNS")?),
            IPVS_STATS_ATTR_INPKTS => Self::PacketsIn(number("IPVS_STATS_ATTR_INPKTS")?),
            IPVS_STATS_ATTR_OUTPKTS => Self::PacketsOut(number("IPVS_STATS_ATTR_OUTPKTS")?),
            IPVS_STATS_ATTR_INBYTES => Self::BytesIn(number("IPVS_STATS_ATTR_INBYTES")?),
            IPVS_STATS_ATTR_OUTBYTES => Self::BytesOut(number("IPVS_STATS_ATTR_OUTBYTES")?),
            IPVS_STATS_ATTR_CPS => Self::ConnectionRate(number("IPVS_STATS_ATTR_CPS")?),
            IPVS_STATS_ATTR_INPPS => Self::PacketRateIn(number("IPVS_STATS_ATTR_INPPS")?),
            IPVS_STATS_ATTR_OUTPPS => Self::PacketRateOut(number("IPVS_STATS_ATTR_OUTPPS")?),
            IPVS_STATS_ATTR_INBPS => Self::ByteRateIn(number("IPVS_STATS_ATTR_INBPS")?),
            IPVS_STATS_ATTR_OUTBPS => Self::ByteRateOut(number("IPVS_STATS_ATTR_OUTBPS")?),
            IPVS_STATS_ATTR_PAD => Self::Pad,
            kind => Self::Other(
                DefaultNla::parse(nla).with_context(|| format!("IPVS_STATS_ATTR {kind}"))?,
            ),
        })
    }
}

impl StatsAttribute {
    fn number(&self) -> Option<Number> {
        match self {
            Self::Connections(number)
            | Self::PacketsIn(number)
            | Self::PacketsOut(number)
            | Self::BytesIn(number)
            | Self::BytesOut(number)
            | Self::ConnectionRate(number)
            | Self::PacketRateIn(number)
            | Self::PacketRateOut(number)
            | Self::ByteRateIn(number)
            | Self::ByteRateOut(number) => Some(*number),
            Self::Pad | Self::Other(_) => None,
        }
    }
}

impl Nla for StatsAttribute {
    fn value_len(&self) -> usize {
        match (self, self.number()) {
            (_, Some(Number::U32(_))) => 4,
            (_, Some(Number::U64(_))) => 8,
            (Self::Other(nla), None) => nla.value_len(),
            (_, None) => 0,
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Connections(_) => IPVS_STATS_ATTR_CONNS,
            Self::PacketsIn(_) => IPVS_STATS_ATTR_INPKTS,
            Self::PacketsOut(_) => IPVS_STATS_ATTR_OUTPKTS,
            Self::BytesIn(_) => IPVS_STATS_ATTR_INBYTES,
            Self::BytesOut(_) => IPVS_STATS_ATTR_OUTBYTES,
            Self::ConnectionRate(_) => IPVS_STATS_ATTR_CPS,
            Self::PacketRateIn(_) => IPVS_STATS_ATTR_INPPS,
            Self::PacketRateOut(_) => IPVS_STATS_ATTR_OUTPPS,
            Self::ByteRateIn(_) => IPVS_STATS_ATTR_INBPS,
            Self::ByteRateOut(_) => IPVS_STATS_ATTR_OUTBPS,
            Self::Pad => IPVS_STATS_ATTR_PAD,
            Self::Other(nla) => nla.kind(),
        }
    }

    fn emit_value(&self, buffer: &mut [u8]) {
        match (self, self.number()) {
            (_, Some(Number::U32(number))) => put_u32(buffer, number),
            (_, Some(Number::U64(number))) => {
                emit_u64(buffer, number).expect("value_len is 8");
            }
            (Self::Other(nla), None) => nla.emit_value(buffer),
            (_, None) => {}
        }
    }
}
