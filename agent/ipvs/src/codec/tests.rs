use std::collections::{BTreeMap, BTreeSet};

use netlink_packet_core::{
    Emitable, NLA_F_NESTED, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_generic::GenlMessage;

use self::requests::{config, persistent, requests, server, web};
use super::*;
use crate::{Family, Info, Op, ServiceConfig, ServiceFlags, ServiceKey, Stats};

mod properties;
mod requests;

/// An ipvsadm command line, and the netlink messages that ipvsadm sent and
/// received.
struct Capture {
    command: &'static str,
    sent: Vec<Vec<u8>>,
    received: Vec<Vec<u8>>,
}

fn captures() -> Vec<Capture> {
    let mut captures: Vec<Capture> = Vec::new();
    for line in include_str!("captures.txt").lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            captures.push(Capture {
                command,
                sent: Vec::new(),
                received: Vec::new(),
            });
        } else if let Some(hex) = line.strip_prefix("> ") {
            captures.last_mut().unwrap().sent.push(bytes(hex));
        } else if let Some(hex) = line.strip_prefix("< ") {
            captures.last_mut().unwrap().received.push(bytes(hex));
        }
    }
    captures
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap() as u8;
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    assert!(rest.is_empty());
    pairs
        .iter()
        .map(|[high, low]| digit(high) << 4 | digit(low))
        .collect()
}

/// Returns the netlink messages that were captured for an ipvsadm command line.
fn capture(command: &str) -> Capture {
    captures()
        .into_iter()
        .find(|capture| capture.command == command)
        .unwrap_or_else(|| panic!("no capture of {command}"))
}

fn parse(datagram: &[u8]) -> Message {
    let messages: Vec<_> = messages(datagram).collect::<Result<_, _>>().unwrap();
    let [message] = <[_; 1]>::try_from(messages).unwrap();
    let NetlinkPayload::InnerMessage(message) = message.payload else {
        panic!("not a message of the family: {message:?}");
    };
    message.payload
}

fn emit(message: &NetlinkMessage<GenlMessage<Message>>) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Returns a message without the flag NLA_F_NESTED on its top-level attributes.
/// libnl sets NLA_F_NESTED on nested attributes, while the kernel and this
/// crate do not.
fn without_nested_flag(mut message: Vec<u8>) -> Vec<u8> {
    let mut position = 20;
    while position < message.len() {
        let length = u16::from_ne_bytes([message[position], message[position + 1]]);
        let kind = u16::from_ne_bytes([message[position + 2], message[position + 3]]);
        let kind = (kind & !NLA_F_NESTED).to_ne_bytes();
        message[position + 2..position + 4].copy_from_slice(&kind);
        position += usize::from(length).next_multiple_of(4);
    }
    message
}

#[test]
fn every_captured_message_comes_back_byte_for_byte() {
    let mut count = 0;
    for capture in captures() {
        for captured in capture.sent.into_iter().chain(capture.received) {
            let messages: Vec<_> = messages(&captured).collect::<Result<_, _>>().unwrap();
            let [message] = <[_; 1]>::try_from(messages).unwrap();
            assert_eq!(emit(&message), without_nested_flag(captured));
            count += 1;
        }
    }
    assert!(count > 40, "only {count} messages are captured");
}

/// The captured ipvsadm messages contain every attribute that this crate knows,
/// and no other attribute.
#[test]
fn the_captures_hold_every_attribute() {
    let mut seen: BTreeMap<&str, BTreeSet<u16>> = BTreeMap::new();
    let mut see = |nest, kind| {
        seen.entry(nest).or_default().insert(kind);
    };
    for capture in captures() {
        for message in capture.sent.iter().chain(&capture.received) {
            let message = parse(message);
            for attribute in message.attributes {
                match attribute {
                    Attribute::Service(attributes) => {
                        for attribute in attributes {
                            see("service", attribute.kind());
                            if let ServiceAttribute::Stats(list) = &attribute {
                                list.iter().for_each(|nla| see("stats", nla.kind()));
                            }
                            if let ServiceAttribute::Stats64(list) = &attribute {
                                list.iter().for_each(|nla| see("stats64", nla.kind()));
                            }
                        }
                    }
                    Attribute::Destination(attributes) => {
                        attributes
                            .iter()
                            .for_each(|nla| see("destination", nla.kind()));
                    }
                    other if message.command == Command::SetInfo => see("info", other.kind()),
                    other => see("config", other.kind()),
                }
            }
        }
    }
    let kinds = |range: std::ops::RangeInclusive<u16>| range.collect::<BTreeSet<_>>();
    assert_eq!(
        seen,
        BTreeMap::from([
            ("config", kinds(4..=6)),
            ("destination", kinds(1..=15)),
            ("info", kinds(1..=2)),
            ("service", kinds(1..=12)),
            ("stats", kinds(1..=11)),
            ("stats64", kinds(1..=11)),
        ])
    );
}

/// Returns the service attributes and the destination attributes of a request,
/// each sorted by number.
fn nests(message: Message) -> (Vec<ServiceAttribute>, Vec<DestinationAttribute>) {
    let (mut service, mut destination) = (Vec::new(), Vec::new());
    for attribute in message.attributes {
        match attribute {
            Attribute::Service(attributes) => service = attributes,
            Attribute::Destination(attributes) => destination = attributes,
            other => panic!("unexpected in a request: {other:?}"),
        }
    }
    service.sort_by_key(ServiceAttribute::kind);
    destination.sort_by_key(DestinationAttribute::kind);
    (service, destination)
}

/// To create or edit an entry, this crate sends the same attributes as ipvsadm,
/// but in another order. In addition, ipvsadm repeats a service's configuration
/// where the key would be enough. ipvsadm also sends tunnel attributes for
/// destinations without a tunnel.
#[test]
fn requests_say_what_those_of_ipvsadm_say() {
    for (command, op) in requests() {
        let theirs = capture(command).sent.pop().unwrap();
        let theirs = parse(&theirs);
        let ours = Message::from(&op);
        assert_eq!(ours.command, theirs.command, "{command}");
        let (service, destination) = nests(ours);
        let (mut their_service, mut their_destination) = nests(theirs);
        if op.destination().is_some() || op.removes() {
            their_service.retain(|nla| {
                !matches!(
                    nla,
                    ServiceAttribute::Scheduler(_)
                        | ServiceAttribute::Flags { .. }
                        | ServiceAttribute::Timeout(_)
                        | ServiceAttribute::Netmask(_)
                )
            });
        }
        if op.removes() {
            their_destination.retain(|nla| {
                matches!(
                    nla,
                    DestinationAttribute::Family(_)
                        | DestinationAttribute::Address(_)
                        | DestinationAttribute::Port(_)
                )
            });
        }
        if !destination
            .iter()
            .any(|nla| matches!(nla, DestinationAttribute::TunnelKind(_)))
        {
            their_destination.retain(|nla| {
                !matches!(
                    nla,
                    DestinationAttribute::TunnelKind(0)
                        | DestinationAttribute::TunnelPort(0)
                        | DestinationAttribute::TunnelFlags(0)
                )
            });
        }
        assert_eq!(service, their_service, "{command}");
        assert_eq!(destination, their_destination, "{command}");
    }
}

#[test]
fn the_questions_are_those_of_ipvsadm() {
    let all = capture("ipvsadm -Sn").sent;
    assert_eq!(Message::services(), parse(&all[0]));
    assert_eq!(Message::destinations(&web()), parse(&all[1]));
    let info = &captures()[0].sent[0];
    assert_eq!(Message::info(), parse(info));
}

#[test]
fn the_dumped_table_is_the_one_that_was_made() {
    let mut services = BTreeMap::new();
    let mut destinations = BTreeMap::new();
    for message in capture("ipvsadm -Sn").received {
        let message = parse(&message);
        if message.command == Command::NewService {
            let service = DumpedService::try_from(message).unwrap();
            services.insert(service.key, service);
        } else {
            let destination = DumpedDestination::parse(message, Family::V4).unwrap();
            destinations.insert(destination.key, destination);
        }
    }

    let mut wanted_services = BTreeMap::new();
    let mut wanted_destinations = BTreeMap::new();
    for (_, op) in requests() {
        match op {
            Op::NewService(key, config) | Op::SetService(key, config) => {
                wanted_services.insert(key, config);
            }
            Op::NewDestination(_, key, config) | Op::SetDestination(_, key, config) => {
                wanted_destinations.insert(key, config);
            }
            // ipvsadm deleted the operation's entry after the captured dump, so
            // the dump still contains the entry.
            Op::DeleteDestination(..) | Op::DeleteService(_) => {}
        }
    }
    let configs = |dump: &BTreeMap<ServiceKey, DumpedService>| -> BTreeMap<_, _> {
        dump.values()
            .map(|dumped| (dumped.key, dumped.config.clone()))
            .collect()
    };
    assert_eq!(configs(&services), wanted_services);
    let configs: BTreeMap<_, _> = destinations
        .values()
        .map(|dumped| (dumped.key, dumped.config))
        .collect();
    assert_eq!(configs, wanted_destinations);

    // The values that `ipvsadm -Ln --stats` and `ipvsadm -Ln --rate` printed at
    // the time of the dump.
    let traffic = Stats {
        connections: 5,
        packets_in: 44,
        packets_out: 36,
        bytes_in: 2688,
        bytes_out: 102_857,
        connection_rate: 1,
        packet_rate_in: 5,
        packet_rate_out: 4,
        byte_rate_in: 336,
        byte_rate_out: 12_857,
    };
    assert_eq!(services[&web()].stats, traffic);
    let busy = &destinations[&server("10.2.0.2", 80)];
    assert_eq!(busy.stats, traffic);
    assert_eq!(busy.connections.active, 0);
    assert_eq!(busy.connections.inactive, 5);
    assert_eq!(busy.connections.persistent, 1);
    assert_eq!(
        destinations[&server("10.2.0.4", 80)].stats,
        Stats::default()
    );
}

#[test]
fn the_kernel_says_its_version_and_table_size() {
    let message = parse(&captures()[0].received[0]);
    assert_eq!(
        Info::try_from(message).unwrap(),
        Info {
            version: (1, 2, 1),
            connection_table_size: 4096
        }
    );
}

#[test]
fn timeouts_are_seconds() {
    let message = parse(&capture("ipvsadm -L --timeout").received[0]);
    assert_eq!(
        message.attributes,
        [
            Attribute::TimeoutTcp(901),
            Attribute::TimeoutTcpFin(121),
            Attribute::TimeoutUdp(301),
        ]
    );
}

/// Builds a datagram with one netlink message, whose attributes are the given
/// bytes.
fn datagram(command: Command, attributes: &[u8]) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let message = Message {
        command,
        attributes: Vec::new(),
    };
    let mut message = NetlinkMessage::new(header, GenlMessage::from_payload(message).into());
    message.finalize();
    let mut bytes = emit(&message);
    bytes.extend(attributes);
    let length = u32::try_from(bytes.len()).unwrap().to_ne_bytes();
    bytes[..4].copy_from_slice(&length);
    bytes
}

fn emitted(attribute: &Attribute) -> Vec<u8> {
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

/// Returns a dumped IPv4 service after `change` has modified its attributes.
fn dumped(change: impl FnOnce(&mut Vec<ServiceAttribute>)) -> Result<DumpedService, String> {
    let mut message = Message::from(&Op::NewService(web(), persistent("wrr", 360, 24)));
    let Attribute::Service(attributes) = &mut message.attributes[0] else {
        unreachable!("the message has only a service nest");
    };
    change(attributes);
    DumpedService::try_from(message).map_err(|error| error.to_string())
}

#[test]
fn what_only_the_kernel_says_is_masked() {
    let hashed = dumped(|attributes| {
        for attribute in attributes {
            if let ServiceAttribute::Flags { flags, .. } = attribute {
                *flags |= ServiceFlags::HASHED.0;
            }
        }
    });
    assert_eq!(hashed.unwrap().config, persistent("wrr", 360, 24));
}

#[test]
fn a_mask_with_holes_equals_no_prefix() {
    for mask in [[255, 0, 255, 0], [0, 0, 0, 1], [127, 255, 255, 255]] {
        let service = dumped(|attributes| {
            attributes.retain(|nla| !matches!(nla, ServiceAttribute::Netmask(_)));
            attributes.push(ServiceAttribute::Netmask(mask));
        });
        assert_eq!(
            service.unwrap().config.prefix_length,
            ServiceConfig::IRREGULAR_MASK
        );
    }
}

#[test]
fn a_missing_attribute_is_named() {
    let kinds = dumped(|_| {}).map(|_| {
        let Attribute::Service(attributes) =
            Message::from(&Op::NewService(web(), config("wrr", 32)))
                .attributes
                .remove(0)
        else {
            unreachable!("the message has only a service nest");
        };
        attributes
    });
    for missing in kinds.unwrap() {
        let error = dumped(|attributes| {
            attributes.retain(|nla| nla.kind() != missing.kind());
        });
        let error = error.unwrap_err();
        assert!(
            error.contains("a dumped service") && error.contains("no IPVS_SVC_ATTR_"),
            "{error}"
        );
    }
}

#[test]
fn an_old_kernel_without_64_bit_counters_is_read_too() {
    let service = dumped(|attributes| {
        attributes.push(ServiceAttribute::Stats(vec![
            StatsAttribute::Connections(Number::U32(7)),
            StatsAttribute::BytesIn(Number::U64(1 << 40)),
        ]));
    });
    let stats = service.unwrap().stats;
    assert_eq!((stats.connections, stats.bytes_in), (7, 1 << 40));
}

#[test]
fn unaligned_numbers_are_read() {
    let message = capture("ipvsadm -Sn")
        .received
        .into_iter()
        .find(|message| parse(message).command == Command::NewService)
        .unwrap();
    let expected = parse(&message);
    for offset in 1..8 {
        let mut shifted = vec![0; offset];
        shifted.extend(&message);
        assert_eq!(parse(&shifted[offset..]), expected);
    }
}

#[test]
fn odd_attributes_are_taken_or_named() {
    let short_address = datagram(
        Command::NewService,
        &emitted(&Attribute::Other(DefaultNla::new(
            IPVS_CMD_ATTR_SERVICE | NLA_F_NESTED,
            vec![7, 0, 3, 0, 10, 1, 2, 0],
        ))),
    );
    let mut address = [0; 16];
    address[..3].copy_from_slice(&[10, 1, 2]);
    assert_eq!(
        parse(&short_address).attributes,
        [Attribute::Service(vec![ServiceAttribute::Address(address)])]
    );

    let error = |attribute: &[u8]| {
        let nest = DefaultNla::new(IPVS_CMD_ATTR_SERVICE, attribute.to_vec());
        let bytes = datagram(Command::NewService, &emitted(&Attribute::Other(nest)));
        messages(&bytes).next().unwrap().unwrap_err().to_string()
    };
    for (bytes, named) in [
        (&[5, 0, 1, 0, 2, 0, 0, 0][..], "IPVS_SVC_ATTR_AF"),
        (
            &[
                24, 0, 3, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0,
            ],
            "IPVS_SVC_ATTR_ADDR",
        ),
        (&[8, 0, 7, 0, 1, 0, 0, 0], "IPVS_SVC_ATTR_FLAGS"),
        (&[7, 0, 9, 0, 255, 255, 255, 0], "IPVS_SVC_ATTR_NETMASK"),
        (&[7, 0, 6, 0, 0xff, 0xfe, 0, 0], "IPVS_SVC_ATTR_SCHED_NAME"),
        (
            &[12, 0, 12, 0, 7, 0, 1, 0, 1, 2, 3, 0],
            "IPVS_STATS_ATTR_CONNS",
        ),
        (&[99, 0, 1, 0], "IPVS_CMD_ATTR_SERVICE"),
    ] {
        let error = error(bytes);
        assert!(error.contains(named), "{error} does not name {named}");
    }
}

#[test]
fn unknown_attributes_are_kept() {
    let unknown = Attribute::Other(DefaultNla::new(99, vec![1, 2, 3]));
    let bytes = datagram(Command::Other(77), &emitted(&unknown));
    let message = parse(&bytes);
    assert_eq!(message.command, Command::Other(77));
    assert_eq!(message.attributes, [unknown]);
}
