use super::*;

/// Pings an address and returns the result, or `None` if the test's user may
/// not send ICMP.
async fn said(address: &str) -> Option<Result<(), Failed>> {
    match Pings::default().probe(address.parse().unwrap()).await {
        Err(Failed::Own(words)) if words.contains("CAP_NET_RAW") => None,
        answer => Some(answer),
    }
}

#[tokio::test]
async fn this_host_answers_itself_over_both_families() {
    for address in ["127.0.0.1", "::1"] {
        if let Some(answer) = said(address).await {
            assert_eq!(answer, Ok(()), "{address}");
        }
    }
}

#[tokio::test]
async fn many_can_be_asked_at_once_over_one_socket() {
    let pings = Pings::default();
    let asked = (1..=100).map(|last| pings.probe([127, 0, 0, last].into()));
    for answer in futures::future::join_all(asked).await {
        match answer {
            Err(Failed::Own(words)) if words.contains("CAP_NET_RAW") => {}
            answer => assert_eq!(answer, Ok(())),
        }
    }
}

#[test]
fn an_agent_that_may_not_send_icmp_learns_what_it_needs() {
    let Failed::Own(words) = not_allowed(&io::Error::from(Errno::EACCES)) else {
        panic!("it is not the server's fault");
    };
    assert!(words.ends_with("CAP_NET_RAW"), "{words}");
}
