use super::*;

const ME: Mac = Mac([2, 0, 0, 0, 0, 0x0a]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 0x0b]);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn heard(address: &str, word: Word, from: Mac) -> Option<Heard> {
    let address = ip(address);
    Some(Heard {
        address,
        word,
        from,
    })
}

#[test]
fn what_is_said_is_what_is_heard() {
    for address in ["192.0.2.15", "2001:db8::15"] {
        assert_eq!(
            parse(&probe(ip(address), ME)),
            heard(address, Word::Asks, ME),
            "a probe for {address}"
        );
        assert_eq!(
            parse(&announcement(ip(address), ME)),
            heard(address, Word::Has, ME),
            "an announcement of {address}"
        );
    }
}

#[test]
fn a_probe_claims_no_address() {
    let arp = probe(ip("192.0.2.15"), ME);
    assert_eq!(arp[..6], [0xff; 6], "it goes to all hosts");
    assert_eq!(arp[28..32], [0; 4], "and claims no address");
    let solicitation = probe(ip("2001:db8::12:3456"), ME);
    assert_eq!(
        solicitation[..6],
        [0x33, 0x33, 0xff, 0x12, 0x34, 0x56],
        "it goes to the group of the address"
    );
    assert_eq!(solicitation[22..38], [0; 16], "it comes from no address");
    assert_eq!(solicitation[21], 255, "no router lets it through");
}

#[test]
fn an_arp_reply_says_which_host_has_an_address() {
    let reply = ArpEthIpv4Packet {
        operation: ArpOperation::REPLY,
        sender_mac: OTHER.0,
        sender_ipv4: [192, 0, 2, 15],
        target_mac: ME.0,
        target_ipv4: [0, 0, 0, 0],
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(OTHER.0, ME.0)
        .arp(reply.into())
        .write(&mut frame)
        .unwrap();
    assert_eq!(parse(&frame), heard("192.0.2.15", Word::Has, OTHER));
    assert_eq!(
        Mac([1, 2, 3, 0xa, 0xb, 0xc]).to_string(),
        "01:02:03:0a:0b:0c"
    );
}

#[test]
fn an_advertisement_without_an_option_is_its_senders() {
    let address = ip("2001:db8::15");
    let IpAddr::V6(target) = address else {
        unreachable!()
    };
    let header = NeighborAdvertisementHeader {
        router: true,
        solicited: false,
        r#override: true,
    };
    let frame = icmp(
        (OTHER, multicast(ALL_NODES)),
        (target, ALL_NODES),
        Icmpv6Type::NeighborAdvertisement(header),
        &target.octets(),
    );
    assert_eq!(parse(&frame), heard("2001:db8::15", Word::Has, OTHER));
    let mut routed = frame;
    routed[21] = 254;
    assert_eq!(
        parse(&routed),
        None,
        "what came through a router is not of the segment"
    );
}

#[test]
fn a_neighbor_that_looks_for_an_address_says_nothing_of_it() {
    let IpAddr::V6(target) = ip("2001:db8::15") else {
        unreachable!()
    };
    let IpAddr::V6(asker) = ip("fe80::1") else {
        unreachable!()
    };
    let group = solicited_node(target);
    let frame = icmp(
        (OTHER, multicast(group)),
        (asker, group),
        Icmpv6Type::NeighborSolicitation,
        &target.octets(),
    );
    assert_eq!(parse(&frame), None);
}

#[test]
fn anything_else_is_nothing() {
    for frame in [
        &[][..],
        &[0; 14],
        &[0xff; 60],
        &probe(ip("192.0.2.15"), ME)[..30],
    ] {
        assert_eq!(parse(frame), None, "{frame:?}");
    }
}
