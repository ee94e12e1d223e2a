use std::net::Ipv4Addr;

use crds::Probe;
use hickory_proto::rr::{
    RData, Record,
    rdata::{A, CNAME},
};
use tokio::net::UdpSocket;

use super::*;
use crate::probe::fixtures::{SOON, said, said_within};

/// Starts a DNS server that answers a query with the messages from `answers`,
/// one after another.
async fn server(answers: impl Fn(Message) -> Vec<Message> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = [0; 4096];
        while let Ok((count, from)) = socket.recv_from(&mut query).await {
            let query = Message::from_vec(&query[..count]).unwrap();
            for answer in answers(query) {
                let answer = answer.to_vec().unwrap();
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    address
}

fn with_addresses(query: Message, addresses: &[[u8; 4]]) -> Message {
    let name = query.queries[0].name().clone();
    let mut answer = query.into_response();
    for address in addresses {
        let data = RData::A(A(Ipv4Addr::from(*address)));
        answer.add_answer(Record::from_rdata(name.clone(), 60, data));
    }
    answer
}

fn with_code(query: Message, code: ResponseCode) -> Message {
    let mut answer = query.into_response();
    answer.metadata.response_code = code;
    answer
}

fn ask(expect: Option<&str>) -> Probe {
    Probe::Dns(DnsProbe {
        name: "shop.example".to_owned(),
        record_type: "A".to_owned(),
        expect: expect.map(str::to_owned),
    })
}

#[tokio::test]
async fn an_answer_is_good_when_one_of_its_records_is_as_expected() {
    let address =
        server(|query| vec![with_addresses(query, &[[192, 0, 2, 7], [192, 0, 2, 9]])]).await;
    for (expect, words) in [
        (None, "success"),
        (Some("192.0.2.7"), "success"),
        (Some("192.0.2.9"), "success"),
        (
            Some("192.0.2.8"),
            "DNS answer 192.0.2.7, expected 192.0.2.8",
        ),
    ] {
        assert_eq!(said(ask(expect), address).await, words);
    }
}

#[tokio::test]
async fn an_answer_without_a_record_is_good_unless_one_is_expected() {
    let address = server(|query| vec![with_addresses(query, &[])]).await;
    assert_eq!(said(ask(None), address).await, "success");
    assert_eq!(
        said(ask(Some("192.0.2.8")), address).await,
        "DNS answer without a record, expected 192.0.2.8"
    );
}

#[tokio::test]
async fn names_read_alike_in_capitals_and_with_a_last_dot() {
    let address = server(|query| {
        let name = query.queries[0].name().clone();
        let mut answer = query.into_response();
        let data = RData::CNAME(CNAME(Name::from_ascii("WWW.shop.example.").unwrap()));
        answer.add_answer(Record::from_rdata(name, 60, data));
        vec![answer]
    })
    .await;
    for expect in ["www.shop.example", "www.Shop.example."] {
        assert_eq!(said(ask(Some(expect)), address).await, "success");
    }
}

#[tokio::test]
async fn an_error_is_reported_by_its_name() {
    for (code, words) in [
        (ResponseCode::ServFail, "DNS SERVFAIL"),
        (ResponseCode::NXDomain, "DNS NXDOMAIN"),
        (ResponseCode::Refused, "DNS REFUSED"),
    ] {
        let address = server(move |query| vec![with_code(query, code)]).await;
        assert_eq!(said(ask(None), address).await, words);
    }
}

#[tokio::test]
async fn a_server_that_cannot_read_the_query_need_not_repeat_it() {
    let address = server(|query| {
        let mut answer = with_code(query, ResponseCode::FormErr);
        answer.queries.clear();
        vec![answer]
    })
    .await;
    assert_eq!(said(ask(None), address).await, "DNS FORMERR");
}

#[tokio::test]
async fn answers_to_other_questions_are_passed_over() {
    let address = server(|query| {
        let mut other_id = with_code(query.clone(), ResponseCode::ServFail);
        other_id.metadata.id = query.metadata.id.wrapping_add(1);
        let mut other_name = with_code(query.clone(), ResponseCode::ServFail);
        other_name.queries[0].set_name(Name::from_ascii("else.example.").unwrap());
        vec![
            other_id,
            other_name,
            query.clone(),
            with_addresses(query, &[]),
        ]
    })
    .await;
    assert_eq!(said(ask(None), address).await, "success");
    let address = server(|query| vec![query]).await;
    assert_eq!(
        said_within(SOON, ask(None), address).await,
        "no answer in 0.3 s"
    );
}

#[tokio::test]
async fn a_closed_port_is_unreachable() {
    let socket = UdpSocket::bind("127.5.5.5:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    drop(socket);
    assert_eq!(said(ask(None), address).await, "port unreachable (ICMP)");
}

#[tokio::test]
async fn what_is_no_query_says_nothing_of_the_server() {
    let probe = Probe::Dns(DnsProbe {
        name: "shop..example".to_owned(),
        record_type: "A".to_owned(),
        expect: None,
    });
    let words = said(probe, "127.5.5.5:53".parse().unwrap()).await;
    assert!(
        words.starts_with("void: the check cannot be made"),
        "{words}"
    );
}
