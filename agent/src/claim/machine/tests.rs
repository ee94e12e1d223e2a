use super::*;

const LOW: Mac = Mac([2, 0, 0, 0, 0, 1]);
const HIGH: Mac = Mac([2, 0, 0, 0, 0, 9]);
const SECOND: Duration = Duration::from_secs(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn card(mac: Mac) -> Card {
    Card {
        index: 2,
        mac,
        up: true,
    }
}

/// A host that probes for or has one address.
struct Host {
    claims: Claims,
    address: IpAddr,
    card: Card,
    verdict: Verdict,
    /// The frames that the host sent, each with the time of sending.
    said: Vec<(Duration, Word)>,
}

impl Host {
    fn asking(address: &str, mac: Mac, seed: u64) -> Self {
        let mut host = Self {
            claims: Claims::new(seed),
            address: ip(address),
            card: card(mac),
            verdict: Verdict::Asking,
            said: Vec::new(),
        };
        host.order(Order::Ask(card(mac)), Duration::ZERO);
        host
    }

    fn order(&mut self, order: Order, now: Duration) {
        self.card = order.card();
        self.claims.order(&[(self.address, order)].into(), now);
        self.read();
    }

    fn hear(&mut self, word: Word, from: Mac, now: Duration) {
        let heard = Heard {
            address: self.address,
            word,
            from,
        };
        self.claims.hear(2, &heard, now);
        self.read();
    }

    fn say(&mut self, now: Duration) -> Vec<Say> {
        let said = self.claims.say(now);
        self.said.extend(said.iter().map(|say| (now, say.word)));
        self.read();
        said
    }

    fn read(&mut self) {
        if let Some(verdict) = self.claims.news().get(&self.address) {
            self.verdict = *verdict;
        }
    }
}

/// Lets time pass from `from` to `end`. Hosts receive each other's frames
/// without delay. A host that finds its address free takes the address.
fn live(hosts: &mut [Host], from: Duration, end: Duration) {
    let mut now = from;
    loop {
        let due = hosts.iter().filter_map(|host| host.claims.next_deadline());
        match due.min() {
            Some(due) if due <= end => now = now.max(due),
            _ => return,
        }
        for index in 0..hosts.len() {
            for say in hosts[index].say(now) {
                for other in 0..hosts.len() {
                    if other != index {
                        hosts[other].hear(say.word, say.card.mac, now);
                        // If a host has the address, its kernel answers the
                        // probe.
                        if say.word == Word::Asks && hosts[other].is_holder() {
                            let mac = hosts[other].card.mac;
                            hosts[index].hear(Word::Has, mac, now);
                        }
                    }
                }
            }
            if let Verdict::Free(_) = hosts[index].verdict {
                let order = Order::Hold(hosts[index].card, 1);
                hosts[index].order(order, now);
            }
        }
        let holders = hosts.iter().filter(|host| host.is_holder());
        assert!(
            holders.count() <= 1,
            "two hosts have it at {now:?}: {:?}",
            said(hosts)
        );
    }
}

fn said(hosts: &[Host]) -> Vec<&[(Duration, Word)]> {
    hosts.iter().map(|host| host.said.as_slice()).collect()
}

impl Host {
    fn is_holder(&self) -> bool {
        matches!(self.verdict, Verdict::Held | Verdict::Contested(_))
    }
}

#[test]
fn an_address_is_free_after_three_probes_without_an_answer() {
    for (address, spacing, last) in [("192.0.2.15", 1..=2, 2), ("2001:db8::15", 1..=1, 1)] {
        let mut host = Host::asking(address, LOW, 7);
        let mut at = Vec::new();
        let mut now = Duration::ZERO;
        while host.verdict == Verdict::Asking {
            now = host.claims.next_deadline().expect("something is due");
            at.extend(host.say(now).iter().map(|say| (now, say.word)));
        }
        assert_eq!(host.verdict, Verdict::Free(2), "{address}");
        assert_eq!(at.len(), 3, "{address}: {at:?}");
        assert!(
            at[0].0 <= SECOND,
            "{address}: the first after {:?}",
            at[0].0
        );
        for two in at.windows(2) {
            let between = two[1].0 - two[0].0;
            let [least, most] = [*spacing.start(), *spacing.end()].map(Duration::from_secs);
            assert!((least..=most).contains(&between), "{address}: {between:?}");
        }
        assert_eq!(now - at[2].0, last * SECOND, "{address}: after the last");
    }
}

#[test]
fn an_address_that_another_host_has_is_taken_until_it_stops_answering() {
    for address in ["192.0.2.15", "2001:db8::15"] {
        let mut host = Host::asking(address, LOW, 7);
        let mut now = Duration::ZERO;
        for _ in 0..30 {
            now = host.claims.next_deadline().expect("something is due");
            for say in host.say(now) {
                assert_eq!(say.word, Word::Asks);
                host.hear(Word::Has, HIGH, now);
            }
            assert_eq!(host.verdict, Verdict::Taken(HIGH), "{address} at {now:?}");
        }
        let asked = host.said.len();
        let long = now / u32::try_from(asked).unwrap();
        assert!(long > 5 * SECOND, "it asks less often in the end: {long:?}");
        let gone = now;
        while host.verdict == Verdict::Taken(HIGH) {
            now = host.claims.next_deadline().expect("something is due");
            host.say(now);
        }
        assert_eq!(host.verdict, Verdict::Free(2), "{address}");
        assert!(now - gone <= 17 * SECOND, "{address}: {:?}", now - gone);
    }
}

#[test]
fn of_two_hosts_that_ask_at_once_one_gets_it_and_the_other_knows_which() {
    for seed in 0..500 {
        for address in ["192.0.2.15", "2001:db8::15"] {
            let mut hosts = [
                Host::asking(address, LOW, seed),
                // If `seed` is even, both hosts have the same random waits.
                Host::asking(address, HIGH, seed + (seed & 1)),
            ];
            live(&mut hosts, Duration::ZERO, 60 * SECOND);
            let [low, high] = &hosts;
            let expected = match low.is_holder() {
                true => (Verdict::Held, Verdict::Taken(LOW)),
                false => (Verdict::Taken(HIGH), Verdict::Held),
            };
            assert_eq!(
                (low.verdict, high.verdict),
                expected,
                "seed {seed}, {address}: {:?}",
                said(&hosts)
            );
        }
    }
}

#[test]
fn the_second_host_gets_nothing() {
    for seed in 0..50 {
        let mut hosts = [Host::asking("192.0.2.15", HIGH, seed)];
        live(&mut hosts, Duration::ZERO, 20 * SECOND);
        let [first] = hosts;
        assert_eq!(first.verdict, Verdict::Held);
        let mut second = Host::asking("192.0.2.15", LOW, seed);
        second.order(
            Order::Ask(Card {
                up: false,
                ..second.card
            }),
            20 * SECOND,
        );
        second.order(Order::Ask(card(LOW)), 20 * SECOND);
        let mut hosts = [first, second];
        live(&mut hosts, 20 * SECOND, 80 * SECOND);
        assert_eq!(hosts[1].verdict, Verdict::Taken(HIGH), "seed {seed}");
        assert_eq!(hosts[0].verdict, Verdict::Held, "seed {seed}");
    }
}

#[test]
fn what_was_put_up_is_announced_at_once_after_5_and_after_30_seconds() {
    let mut host = Host::asking("192.0.2.15", LOW, 7);
    let hold = |number| Order::Hold(card(LOW), number);
    let announced = |host: &mut Host| {
        let mut at = Vec::new();
        while let Some(due) = host.claims.next_deadline() {
            at.extend(host.say(due).iter().map(|say| (due.as_secs(), say.word)));
        }
        at
    };
    let has = |at: [u64; 3]| at.map(|at| (at, Word::Has)).to_vec();
    host.order(hold(1), 10 * SECOND);
    assert_eq!(announced(&mut host), has([10, 15, 40]));
    host.order(hold(1), 100 * SECOND);
    assert_eq!(announced(&mut host), [], "it is where it was");
    host.order(hold(2), 200 * SECOND);
    assert_eq!(announced(&mut host), has([200, 205, 230]), "put there anew");
    host.order(
        Order::Hold(
            Card {
                up: false,
                ..host.card
            },
            2,
        ),
        300 * SECOND,
    );
    host.order(hold(2), 310 * SECOND);
    assert_eq!(
        announced(&mut host),
        has([310, 315, 340]),
        "the link is back"
    );
}

#[test]
fn an_address_that_is_here_is_defended_every_10_seconds_at_most() {
    let mut host = Host::asking("192.0.2.15", LOW, 7);
    host.order(Order::Hold(card(LOW), 1), Duration::ZERO);
    for second in 0..100 {
        let now = second * SECOND;
        host.say(now);
        if (40..70).contains(&second) {
            host.hear(Word::Has, HIGH, now);
            host.say(now);
            assert_eq!(host.verdict, Verdict::Contested(HIGH), "at {now:?}");
        }
    }
    let defended: Vec<_> = host.said[3..].iter().map(|(at, _)| at.as_secs()).collect();
    assert_eq!(defended, [40, 50, 60, 70], "after the announcements");
    host.say(69 * SECOND + CONTESTED_FOR);
    assert_eq!(
        host.verdict,
        Verdict::Held,
        "the other host is no longer heard"
    );
}

#[test]
fn nothing_is_sent_on_a_segment_that_is_not_connected() {
    let mut host = Host::asking("192.0.2.15", LOW, 7);
    let down = Card {
        up: false,
        ..host.card
    };
    host.order(Order::Ask(down), SECOND);
    assert_eq!(host.claims.next_deadline(), None, "it waits for the link");
    assert_eq!(host.verdict, Verdict::Asking);
}

#[test]
fn an_address_counts_as_free_only_for_a_while() {
    let mut hosts = Host::asking("192.0.2.15", LOW, 7);
    while hosts.verdict != Verdict::Free(2) {
        let due = hosts.claims.next_deadline().expect("something is due");
        hosts.say(due);
    }
    let due = hosts.claims.next_deadline().expect("something is due");
    hosts.say(due);
    assert_eq!(
        hosts.verdict,
        Verdict::Asking,
        "it was not put up, so it is asked for again"
    );
}

#[test]
fn a_watched_address_is_asked_for_every_ten_seconds_and_neither_announced_nor_defended() {
    let mut host = Host::asking("192.0.2.10", LOW, 7);
    host.order(Order::Hold(card(LOW), 1), Duration::ZERO);
    host.order(Order::Watch(card(LOW)), SECOND);
    let mut now = SECOND;
    while let Some(due) = host.claims.next_deadline().filter(|due| *due < 61 * SECOND) {
        now = due;
        host.say(now);
    }
    let words: Vec<_> = host.said.iter().map(|(_, word)| *word).collect();
    assert_eq!(words, [Word::Asks; 6]);
    assert_eq!(host.verdict, Verdict::Held);

    host.hear(Word::Asks, HIGH, now);
    assert_eq!(host.verdict, Verdict::Held, "the other host only asks");
    host.hear(Word::Has, HIGH, now);
    assert_eq!(host.verdict, Verdict::Taken(HIGH));
    host.order(Order::Hold(card(LOW), 1), now);
    assert_eq!(host.verdict, Verdict::Held, "it is announced again");
    assert_eq!(host.say(now)[0].word, Word::Has);
}
