//! Finds the addresses at which the agent reaches its API server. Services must
//! not take these addresses ([`crate::decide::protect`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::{IpAddr, SocketAddr},
    sync::mpsc::Sender,
    time::{Duration, Instant},
};

use hyper::http::Uri;
use kube::Config;
use tokio::{net::lookup_host, time};

use crate::event::Event;

/// How often the API server's host name is resolved again.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long to wait for DNS to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long an address counts after DNS last returned it. Some DNS servers
/// return a few of many addresses in turn, and a connection outlives the answer
/// with which it was opened.
const KEEP_TIME: Duration = Duration::from_secs(600);

/// The known addresses of the API server.
#[derive(Debug)]
pub struct ApiServers {
    /// The host name or IP address of each place to reach the API server, with
    /// its port.
    places: BTreeSet<(String, u16)>,
    /// The time at which DNS last returned each address.
    seen: BTreeMap<SocketAddr, Instant>,
    told: Option<BTreeSet<SocketAddr>>,
}

impl ApiServers {
    /// Takes the API server's URL from a configuration, and the URL of the
    /// proxy in front of it. Inside a cluster (`is_inferred`: no kubeconfig was
    /// named), also takes the address that the kubelet sets in the environment.
    pub fn of(config: &Config, is_inferred: bool) -> Self {
        let urls = [config.proxy_url.as_ref(), Some(&config.cluster_url)];
        let urls = urls.into_iter().flatten().filter_map(place);
        let variable = |name: &str| env::var(name).ok();
        let inside = variable("KUBERNETES_SERVICE_HOST")
            .zip(variable("KUBERNETES_SERVICE_PORT"))
            .and_then(|(host, port)| Some((host, port.parse().ok()?)));
        Self::new(urls.chain(inside.filter(|_| is_inferred)))
    }

    fn new(places: impl IntoIterator<Item = (String, u16)>) -> Self {
        Self {
            places: places.into_iter().collect(),
            seen: BTreeMap::new(),
            told: None,
        }
    }

    /// Resolves the host names, and sends the addresses to the loop if they
    /// changed. A name that cannot be resolved now keeps its addresses.
    pub async fn look(&mut self, events: &Sender<Event>) {
        self.look_at(Instant::now(), events).await;
    }

    async fn look_at(&mut self, now: Instant, events: &Sender<Event>) {
        for (host, port) in &self.places {
            let found = time::timeout(ANSWER_TIME, lookup_host((host.as_str(), *port))).await;
            match found {
                Ok(Ok(addresses)) => self
                    .seen
                    .extend(addresses.map(|found| (canonical(found), now))),
                Ok(Err(error)) => tracing::debug!("cannot resolve {host}: {error}"),
                Err(_) => tracing::debug!("cannot resolve {host}: no answer in time"),
            }
        }
        // Ages are compared with the newest answer, so nothing expires while
        // DNS does not answer.
        let newest = self.seen.values().max().copied();
        if let Some(newest) = newest {
            self.seen.retain(|_, at| *at + KEEP_TIME > newest);
        }
        let known: BTreeSet<_> = self.seen.keys().copied().collect();
        if !known.is_empty() && self.told.as_ref() != Some(&known) {
            // Sending fails when the loop has ended.
            events
                .send(Event::ApiServers(known.clone()))
                .unwrap_or_default();
            self.told = Some(known);
        }
    }

    /// Resolves the host names again and again, forever. Returns at once if all
    /// hosts are given as IP addresses.
    pub async fn watch(mut self, events: Sender<Event>) {
        let mut places = self.places.iter();
        if places.all(|(host, _)| host.parse::<IpAddr>().is_ok()) {
            return;
        }
        loop {
            time::sleep(INTERVAL).await;
            self.look(&events).await;
        }
    }
}

fn place(url: &Uri) -> Option<(String, u16)> {
    let host = url.host()?.trim_matches(['[', ']']).to_owned();
    let port = url.port_u16().unwrap_or(match url.scheme_str() {
        Some("http") => 80,
        Some("socks5" | "socks5h") => 1080,
        _ => 443,
    });
    Some((host, port))
}

/// Converts an IPv4-mapped IPv6 address to IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn the_place_of_a_url_is_its_host_and_the_port_that_it_means() {
        for (url, host, port) in [
            ("https://10.77.0.1:6443", "10.77.0.1", 6443),
            ("https://[2001:db8::1]:6443/", "2001:db8::1", 6443),
            (
                "https://kubernetes.default.svc/",
                "kubernetes.default.svc",
                443,
            ),
            ("http://proxy.example", "proxy.example", 80),
        ] {
            let url: Uri = url.parse().unwrap();
            assert_eq!(place(&url), Some((host.to_owned(), port)), "{url}");
        }
    }

    #[tokio::test]
    async fn what_a_name_resolves_to_is_sent_once() {
        let mut servers = ApiServers::new([
            ("::ffff:192.0.2.1".to_owned(), 6443),
            ("192.0.2.2".to_owned(), 443),
            ("no.such.name.invalid".to_owned(), 443),
        ]);
        let (events, heard) = mpsc::channel();
        servers.look(&events).await;
        servers.look(&events).await;
        drop(events);
        let told: Vec<_> = heard.iter().collect();
        let [Event::ApiServers(told)] = told.as_slice() else {
            panic!("the addresses are sent once: {told:?}");
        };
        let expected = ["192.0.2.1:6443", "192.0.2.2:443"];
        assert_eq!(*told, expected.map(|text| text.parse().unwrap()).into());
    }

    #[tokio::test]
    async fn an_address_that_dns_no_longer_gives_counts_for_a_while() {
        let mut servers = ApiServers::new([("192.0.2.2".to_owned(), 443)]);
        let (old, began) = ("192.0.2.1:443".parse().unwrap(), Instant::now());
        servers.seen.insert(old, began);
        let (events, _heard) = mpsc::channel();
        let second = Duration::from_secs(1);
        for (later, is_known) in [(KEEP_TIME - second, true), (KEEP_TIME + second, false)] {
            servers.look_at(began + later, &events).await;
            let told = servers.told.as_ref().expect("the other address is known");
            assert_eq!(told.contains(&old), is_known, "after {later:?}: {told:?}");
        }
    }
}
