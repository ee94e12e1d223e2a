use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::arbitrary;

/// Parses bytes as `socket.rs` does, and ignores the result.
fn read(bytes: &[u8]) {
    for message in messages(bytes).flatten() {
        if let NetlinkPayload::InnerMessage(message) = message.payload {
            let message = message.payload;
            let _ = DumpedService::try_from(message.clone());
            let _ = DumpedDestination::parse(message.clone(), Family::V6);
            let _ = Info::try_from(message);
        }
    }
}

proptest! {
    #[test]
    fn a_request_comes_back_from_its_bytes(op in arbitrary::op()) {
        let message = Message::from(&op);
        let mut netlink = NetlinkMessage::new(
            NetlinkHeader::default(),
            GenlMessage::from_payload(message.clone()).into(),
        );
        netlink.finalize();
        // Netlink reserves the message types below 16 for its own messages.
        let mut bytes = emit(&netlink);
        bytes[4..6].copy_from_slice(&28u16.to_ne_bytes());

        let mut header = NetlinkHeader::default();
        header.message_type = 28;
        let mut datagram = vec![1, 2, 3, 4];
        message.append_to(&mut datagram, header);
        prop_assert_eq!(&datagram[4..], &bytes[..]);

        let mut datagram = vec![1, 2, 3, 4];
        append_request(&op, &mut datagram, header);
        prop_assert_eq!(&datagram[4..], &bytes[..], "append_request writes the same bytes");
        prop_assert_eq!(parse(&bytes), message);
    }

    #[test]
    fn a_service_comes_back_from_its_attributes(
        (key, config) in arbitrary::service(),
    ) {
        let message = Message::from(&Op::NewService(key, config.clone()));
        let stats = Stats::default();
        prop_assert_eq!(
            DumpedService::try_from(message).unwrap(),
            DumpedService { key, config, stats }
        );
    }

    #[test]
    fn a_destination_comes_back_from_its_attributes(
        service in arbitrary::service_key(),
        key in arbitrary::destination_key(),
        config in arbitrary::destination_config(),
    ) {
        let message = Message::from(&Op::NewDestination(service, key, config));
        let dumped = DumpedDestination::parse(message, service.family()).unwrap();
        prop_assert_eq!((dumped.key, dumped.config), (key, config));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        read(&bytes);
    }

    #[test]
    fn damaged_messages_never_panic(
        which in any::<Index>(),
        damage in vec((any::<Index>(), any::<u8>()), 1..8),
        cut in any::<Index>(),
    ) {
        let all: Vec<_> = captures().into_iter().flat_map(|capture| capture.received).collect();
        let mut bytes = which.get(&all).clone();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        read(&bytes);
    }

    /// Only the message's payload is arbitrary, so that the message passes
    /// netlink's own checks of the header.
    #[test]
    fn arbitrary_attributes_never_panic(
        command in any::<u8>(),
        attributes in vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = datagram(Command::from(command), &attributes);
        bytes[4..6].copy_from_slice(&28u16.to_ne_bytes());
        read(&bytes);
    }
}
