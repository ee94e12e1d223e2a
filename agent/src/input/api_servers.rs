//! Finds the addresses at which the agent reaches its API server. Services must
//! not take the API server's addresses ([`crate::decide::protect`]).
//!
//! In a pod, the agent connects to the API server's cluster IP. kube-proxy
//! translates this address before the packets reach IPVS. The agent must
//! therefore also know the API servers' own addresses. The EndpointSlices of
//! the Service `default/kubernetes` contain these addresses. A NAT rule that is
//! not from kube-proxy may translate the connection, too. The agent therefore
//! also asks the kernel's connection tracking where its own connection goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, io,
    net::{IpAddr, SocketAddr},
    sync::mpsc::Sender,
    time::{Duration, Instant},
};

use crds::advice;
use hyper::http::Uri;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, Config, api::ListParams};
use tokio::{net::lookup_host, task::spawn_blocking, time};

use crate::{
    event::Event,
    host::{conntrack::real_remote, sockets::own_connections},
    pauses::Pauses,
    said::Said,
};

/// The interval at which the API server's host name is resolved again.
const INTERVAL: Duration = Duration::from_secs(30);
/// The longest pause before the EndpointSlices are read again while the API
/// server does not answer, without the random part.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The interval at which the EndpointSlices are read again. This interval is
/// long, because API servers rarely change and every agent of a fleet reads the
/// EndpointSlices.
const ENDPOINTS_INTERVAL: Duration = Duration::from_secs(300);
/// The label selector for the EndpointSlices of the Service `kubernetes`.
const ENDPOINTS_OF: &str = "kubernetes.io/service-name=kubernetes";
/// The maximum wait for an answer of DNS.
const DNS_TIME: Duration = Duration::from_secs(5);
/// The maximum wait for an answer of the API server. A busy API server may need
/// this long.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// After this many internal errors, the agent no longer waits for the
/// EndpointSlices.
const MOST_ERRORS: usize = 5;
/// How long an address is kept after DNS or the API server last returned the
/// address. If a name has many addresses, some DNS servers return only a few of
/// them in each answer. A connection may also outlive the DNS record of its
/// address.
const KEEP_TIME: Duration = Duration::from_secs(600);

/// The known addresses of the API server.
#[derive(Debug)]
pub struct ApiServers {
    /// Each host name or IP address at which the API server can be reached,
    /// with the port.
    places: BTreeSet<(String, u16)>,
    /// The addresses that DNS returned.
    named: Seen,
    /// The addresses in the EndpointSlices.
    endpoints: Seen,
    /// The addresses to which the agent's own connections really go.
    translated: Seen,
    /// When the EndpointSlices must be read again, or `None` if the API server
    /// did not answer the last time.
    endpoints_due: Option<Instant>,
    /// The number of internal errors with which the API server has answered.
    errors: usize,
    /// The last logged problem with the EndpointSlices.
    said: Said,
    told: Option<BTreeSet<SocketAddr>>,
}

/// The time at which each address was last found.
type Seen = BTreeMap<SocketAddr, Instant>;

impl ApiServers {
    /// Takes the URLs of the API server and of its proxy from a configuration.
    /// If no kubeconfig was named (`is_inferred`), also takes the address that
    /// the kubelet sets in a pod's environment.
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
            named: Seen::new(),
            endpoints: Seen::new(),
            translated: Seen::new(),
            endpoints_due: None,
            errors: 0,
            said: Said::default(),
            told: None,
        }
    }

    /// Looks up the API server's addresses until the API server has answered.
    /// The agent must not read objects before this function returns. Without
    /// the addresses, the agent cannot tell whether a service takes an address
    /// of the API server.
    pub async fn look_first(&mut self, client: &Client, events: &Sender<Event>) {
        let mut was_away = false;
        let mut pauses = Pauses::up_to(LONGEST_PAUSE);
        while let Err(problem) = self.look(client, events).await {
            was_away = true;
            self.said.warn([format!(
                "{problem}. Trying again; the kernel's table stays as it is"
            )]);
            time::sleep(pauses.next()).await;
        }
        if was_away {
            tracing::info!("the API server answers now");
        }
    }

    /// Resolves the host names, and reads the EndpointSlices if a reading is
    /// due. Sends the API server's addresses to the loop if the addresses
    /// changed. If a look-up fails, the addresses from earlier look-ups stay.
    ///
    /// # Errors
    /// Returns a text that says why the API server did not answer.
    async fn look(&mut self, client: &Client, events: &Sender<Event>) -> Result<(), String> {
        let now = Instant::now();
        self.resolve(now).await;
        let mut answer = Ok(());
        if self.endpoints_due.is_none_or(|due| due <= now) {
            answer = self.read_endpoints(client, now).await;
            self.endpoints_due = answer.is_ok().then_some(now + ENDPOINTS_INTERVAL);
            // If the API server answered, the agent has a connection now.
            self.read_connections(now).await;
        }
        self.tell(events);
        answer
    }

    async fn read_endpoints(&mut self, client: &Client, now: Instant) -> Result<(), String> {
        const WHAT: &str = "list the EndpointSlices of default/kubernetes";
        const SO: &str = "so a service may take the API servers' own addresses";
        let slices = Api::<EndpointSlice>::namespaced(client.clone(), "default");
        let listed = ListParams::default().labels(ENDPOINTS_OF);
        let problem = match time::timeout(ANSWER_TIME, slices.list(&listed)).await {
            Ok(Ok(slices)) => {
                let found = slices.iter().flat_map(addresses);
                self.endpoints
                    .extend(found.map(|found| (canonical(found), now)));
                None
            }
            Ok(Err(kube::Error::Api(status))) if !is_away(status.code, self.errors) => {
                advice::api_error(WHAT, &status)
            }
            Ok(Err(error)) => {
                self.errors += usize::from(is_internal(&error));
                return Err(format!("cannot {WHAT}: {}", advice::with_sources(&error)));
            }
            Err(_) => return Err(format!("cannot {WHAT}: no answer within {ANSWER_TIME:?}")),
        };
        let problem = problem.map(|problem| format!("{problem}; {SO}"));
        self.said.warn(problem.into_iter().collect::<BTreeSet<_>>());
        Ok(())
    }

    /// Asks the kernel where the agent's own connections to the API server go.
    async fn read_connections(&mut self, now: Instant) {
        let known = self.named.keys().chain(self.endpoints.keys());
        let known: BTreeSet<_> = known.copied().collect();
        // The kernel may take a while to list the sockets of a busy host.
        let Ok(found) = spawn_blocking(move || translated(&known)).await else {
            // The agent is ending.
            return;
        };
        match found {
            Ok(found) => self
                .translated
                .extend(found.into_iter().map(|address| (address, now))),
            Err(error) => tracing::debug!("cannot list the agent's own connections: {error}"),
        }
    }

    async fn resolve(&mut self, now: Instant) {
        for (host, port) in &self.places {
            let found = time::timeout(DNS_TIME, lookup_host((host.as_str(), *port))).await;
            match found {
                Ok(Ok(addresses)) => self
                    .named
                    .extend(addresses.map(|found| (canonical(found), now))),
                Ok(Err(error)) => tracing::debug!("cannot resolve {host}: {error}"),
                Err(_) => tracing::debug!("cannot resolve {host}: no answer in time"),
            }
        }
    }

    fn tell(&mut self, events: &Sender<Event>) {
        let mut known = BTreeSet::new();
        for seen in [&mut self.named, &mut self.endpoints, &mut self.translated] {
            // An address expires only if newer answers no longer contain it.
            // While answers are missing, no address expires.
            if let Some(newest) = seen.values().max().copied() {
                seen.retain(|_, at| *at + KEEP_TIME > newest);
            }
            known.extend(seen.keys().copied());
        }
        if !known.is_empty() && self.told.as_ref() != Some(&known) {
            // Sending fails when the loop has ended.
            events
                .send(Event::ApiServers(known.clone()))
                .unwrap_or_default();
            self.told = Some(known);
        }
    }

    /// Looks up the API server's addresses again and again, without end.
    pub async fn watch(mut self, client: Client, events: Sender<Event>) {
        let mut places = self.places.iter();
        let interval = match places.all(|(host, _)| host.parse::<IpAddr>().is_ok()) {
            true => ENDPOINTS_INTERVAL,
            false => INTERVAL,
        };
        let mut pauses = Pauses::up_to(LONGEST_PAUSE);
        loop {
            time::sleep(match self.endpoints_due {
                Some(_) => {
                    pauses.reset();
                    interval
                }
                None => pauses.next(),
            })
            .await;
            // Nothing is logged here if the API server does not answer, because
            // the watches of objects already log a line.
            self.look(&client, &events).await.unwrap_or_default();
        }
    }
}

/// Whether a status code means that the API server, or a proxy in front of it,
/// cannot answer now. `errors` is the number of internal errors before.
fn is_away(code: u16, errors: usize) -> bool {
    match code {
        // kube gives code 0 to an answer that is JSON, but no Status. Such an
        // answer comes from a proxy.
        0 | 429 | 502 | 503 | 504 => true,
        // This request may fail for as long as others succeed.
        500.. => errors < MOST_ERRORS,
        _ => false,
    }
}

fn is_internal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 500)
}

/// Returns the addresses to which NAT sends the agent's connections to the
/// `known` addresses.
fn translated(known: &BTreeSet<SocketAddr>) -> io::Result<BTreeSet<SocketAddr>> {
    let mut found = BTreeSet::new();
    for connection in own_connections()? {
        if known.contains(&connection.remote) {
            match real_remote(&connection) {
                Ok(real) => found.extend(real),
                Err(error) => tracing::debug!("cannot ask the connection tracking: {error}"),
            }
        }
    }
    Ok(found)
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

/// Returns the addresses in an EndpointSlice, each combined with every port.
fn addresses(slice: &EndpointSlice) -> Vec<SocketAddr> {
    let ports = slice.ports.iter().flatten();
    let ports: Vec<_> = ports
        .filter_map(|port| u16::try_from(port.port?).ok())
        .collect();
    let endpoints = slice.endpoints.iter();
    let addresses = endpoints.flat_map(|endpoint| &endpoint.addresses);
    // An endpoint whose address is a host name is skipped, because a
    // VirtualService has an IP address.
    let addresses = addresses.filter_map(|address| address.parse::<IpAddr>().ok());
    addresses
        .flat_map(|address| {
            ports
                .iter()
                .map(move |port| SocketAddr::new(address, *port))
        })
        .collect()
}

/// Converts an IPv4-mapped IPv6 address to IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    };

    use hyper::{Request, Response};
    use tower::service_fn;

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
        for _ in 0..2 {
            servers.resolve(Instant::now()).await;
            servers.tell(&events);
        }
        drop(events);
        let told: Vec<_> = heard.iter().collect();
        let [Event::ApiServers(told)] = told.as_slice() else {
            panic!("the addresses are sent once: {told:?}");
        };
        let expected = ["192.0.2.1:6443", "192.0.2.2:443"];
        assert_eq!(*told, expected.map(|text| text.parse().unwrap()).into());
    }

    /// The first request fails with `ConnectionRefused`. The second request is
    /// answered with 503. All later requests are answered with 403: the agent
    /// may not list EndpointSlices.
    #[tokio::test]
    async fn the_first_look_ends_when_the_api_server_has_answered() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let client = Client::new(
            service_fn(move |_: Request<kube::client::Body>| {
                let asked = count.fetch_add(1, Ordering::Relaxed);
                async move {
                    let code = match asked {
                        0 => return Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                        1 => 503,
                        _ => 403,
                    };
                    let status = serde_json::json!({
                        "kind": "Status", "status": "Failure", "message": "no", "code": code,
                    });
                    let answer = Response::builder().status(code);
                    Ok(answer.body(status.to_string()).expect("a valid answer"))
                }
            }),
            "default",
        );
        let (events, heard) = mpsc::channel();
        let mut servers = ApiServers::new([("192.0.2.2".to_owned(), 443)]);
        servers.look_first(&client, &events).await;
        assert_eq!(asked.load(Ordering::Relaxed), 3, "requests until an answer");
        assert!(
            matches!(heard.try_recv(), Ok(Event::ApiServers(_))),
            "the loop knows the kubeconfig's address at once"
        );
    }

    #[test]
    fn a_request_that_always_fails_does_not_keep_the_agent_from_starting() {
        for (code, errors, expected) in [
            (0, 9, true),
            (429, 9, true),
            (503, 9, true),
            (500, MOST_ERRORS - 1, true),
            (500, MOST_ERRORS, false),
            (401, 0, false),
            (403, 0, false),
            (404, 0, false),
        ] {
            assert_eq!(is_away(code, errors), expected, "{code} after {errors}");
        }
    }

    #[tokio::test]
    async fn an_address_that_dns_no_longer_gives_counts_for_a_while() {
        let mut servers = ApiServers::new([("192.0.2.2".to_owned(), 443)]);
        let (old, began) = ("192.0.2.1:443".parse().unwrap(), Instant::now());
        servers.named.insert(old, began);
        let endpoint = "192.0.2.9:6443".parse().unwrap();
        servers.endpoints.insert(endpoint, began);
        let (events, _heard) = mpsc::channel();
        let second = Duration::from_secs(1);
        for (later, is_known) in [(KEEP_TIME - second, true), (KEEP_TIME + second, false)] {
            servers.resolve(began + later).await;
            servers.tell(&events);
            let told = servers.told.as_ref().expect("the other address is known");
            assert_eq!(told.contains(&old), is_known, "after {later:?}: {told:?}");
            assert!(told.contains(&endpoint), "the API server did not answer");
        }
    }

    #[test]
    fn an_endpoint_slice_has_each_address_with_each_port() {
        let slice = serde_json::from_value(serde_json::json!({
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["192.0.2.1", "192.0.2.2"]},
                {"addresses": ["api.example"]},
            ],
            "ports": [{"name": "https", "port": 6443}, {"name": "old", "port": 8443}, {}],
        }));
        let found = addresses(&slice.expect("it parses"));
        let expected = [
            "192.0.2.1:6443",
            "192.0.2.1:8443",
            "192.0.2.2:6443",
            "192.0.2.2:8443",
        ];
        assert_eq!(found, expected.map(|text| text.parse().unwrap()));
    }
}
