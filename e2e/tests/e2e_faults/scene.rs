//! A director with one IPVS service for each fault in `CASES`. Each service has
//! two servers, and the test makes one of these two servers fail.

use std::net::{IpAddr, Ipv4Addr};

use e2e::{
    Host,
    course::Course,
    fault::{Authority, Behaviour, Certificate, DatagramServer, FaultServer, Protocol},
};
use k8s_openapi::ByteString;

use crate::cases::{CASES, Case, Fault, Speaks};

/// The director's address, from which probes come.
pub(crate) const DIRECTOR: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 2, 5));
const VIP: &str = "192.168.4.5";
const STEADY: &str = "192.168.2.100";
const TROUBLED: &str = "192.168.2.200";
const FIRST_PORT: usize = 8001;

pub(crate) struct Scene {
    pub(crate) course: Course,
    pub(crate) troubled: Vec<Troubled>,
    authority: Authority,
    stranger: Authority,
    _steady: Vec<Server>,
}

/// The failing server in a case of the fault table.
pub(crate) struct Troubled {
    pub(crate) case: &'static Case,
    /// The key of the server's service in the kernel's table: its address and
    /// port.
    pub(crate) service: String,
    pub(crate) address: String,
    server: Server,
    host: Host,
}

enum Server {
    Web(FaultServer),
    Datagrams(DatagramServer),
}

impl Scene {
    pub(crate) fn new() -> Self {
        let course = Course::nat();
        let authority = Authority::new("lab");
        let start = |case: &Case, host: &Host, index| {
            let address = format!("0.0.0.0:{}", port(index));
            match case.speaks {
                Speaks::Http => Server::Web(FaultServer::start(host, &address, PAGE)),
                Speaks::Https => {
                    let good = good(&authority);
                    Server::Web(FaultServer::start_tls(host, &address, PAGE, good))
                }
                Speaks::Dns => datagrams(host, &address, Protocol::Dns),
                Speaks::Echo => datagrams(host, &address, Protocol::Echo),
            }
        };
        let (mut steady, mut troubled) = (Vec::new(), Vec::new());
        for (index, case) in CASES.iter().enumerate() {
            steady.push(start(case, &course.web[0], index));
            let ip = troubled_address(index);
            let host = match case.fault {
                Fault::PoweredOff => course.another_server(case.name, &ip),
                _ => course.web[1].clone(),
            };
            troubled.push(Troubled {
                case,
                service: format!("{VIP}:{}", port(index)),
                address: format!("{ip}:{}", port(index)),
                server: start(case, &host, index),
                host,
            });
        }
        Self {
            course,
            troubled,
            authority,
            stranger: Authority::new("stranger"),
            _steady: steady,
        }
    }

    /// Returns the manifests of all cases of the fault table.
    pub(crate) fn manifests(&self) -> String {
        let bundle = ByteString(self.authority.pem().into_bytes());
        let bundle = serde_json::to_string(&bundle).expect("base64");
        let manifests = CASES.iter().enumerate().map(|(index, case)| {
            let (name, port, troubled) = (case.name, port(index), troubled_address(index));
            let period = case.period;
            let protocol = if case.is_udp() { "UDP" } else { "TCP" };
            let probe = case.probe.replace("CA", &bundle);
            format!(
                "apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  vip: {{address: {VIP}, port: {port}, protocol: {protocol}}}
  forwarding: {{method: NAT}}
  realServerSelector: {{matchLabels: {{case: {name}}}}}
  healthCheck:
    {probe}
    periodSeconds: {period}
    timeoutSeconds: 1
---
apiVersion: ipvs.dev/v1alpha1
kind: RealServer
metadata: {{name: {name}-steady, labels: {{case: {name}}}}}
spec: {{address: {STEADY}}}
---
apiVersion: ipvs.dev/v1alpha1
kind: RealServer
metadata: {{name: {name}-troubled, labels: {{case: {name}}}}}
spec: {{address: {troubled}}}
---
"
            )
        });
        manifests.collect()
    }

    /// Starts the fault of the case with the number `index`.
    pub(crate) fn trouble(&mut self, index: usize) {
        let others = || self.authority.issue("other.example");
        let expired = || self.authority.issue_expired("shop.example");
        let strangers = || good(&self.stranger);
        let troubled = &mut self.troubled[index];
        match troubled.case.fault {
            Fault::Stopped => troubled.server.stop(),
            Fault::PoweredOff => {
                troubled.keep_known_to(&self.course.director);
                troubled.host.ip("link set eth0 down");
            }
            Fault::RepliesDropped => troubled.firewall("-A"),
            Fault::Behaves(behaviour) => troubled.server.behave(behaviour),
            Fault::OthersCertificate => troubled.server.present(others()),
            Fault::ExpiredCertificate => troubled.server.present(expired()),
            Fault::StrangersCertificate => troubled.server.present(strangers()),
        }
    }

    /// Ends the fault of the case with the number `index`.
    pub(crate) fn cure(&mut self, index: usize) {
        let good = || good(&self.authority);
        let troubled = &mut self.troubled[index];
        match troubled.case.fault {
            Fault::Stopped => troubled.server.start_again(),
            // The routes must be added again, because the host lost its routes
            // together with its addresses.
            Fault::PoweredOff => troubled.host.ip("link set eth0 up
                 route add default via 192.168.2.5"),
            Fault::RepliesDropped => troubled.firewall("-D"),
            Fault::Behaves(_) => troubled.server.behave(Behaviour::Good),
            Fault::OthersCertificate | Fault::ExpiredCertificate | Fault::StrangersCertificate => {
                troubled.server.present(good());
            }
        }
    }
}

impl Troubled {
    /// Returns the destination of the server's probes in tcpdump's format.
    pub(crate) fn on_the_wire(&self) -> String {
        let (ip, _) = self
            .address
            .rsplit_once(':')
            .expect("the address has a port");
        match self.case.probe.starts_with("icmp") {
            true => ip.to_owned(),
            false => self.address.replace(':', "."),
        }
    }

    /// Makes the server's MAC address permanent on the director. Otherwise the
    /// director would stop sending probes when ARP gets no answer. The test
    /// could then not count the probes.
    fn keep_known_to(&self, director: &Host) {
        let (ip, _) = self
            .address
            .rsplit_once(':')
            .expect("the address has a port");
        let mac = self.host.mac("eth0");
        director.ip(&format!(
            "neighbor replace {ip} lladdr {mac} dev eth1 nud permanent"
        ));
    }

    fn firewall(&self, edit: &str) {
        let (_, port) = self
            .address
            .rsplit_once(':')
            .expect("the address has a port");
        let rule = format!("OUTPUT -p tcp --sport {port} -j DROP");
        self.host.run(&format!("iptables-legacy {edit} {rule}"));
    }
}

impl Server {
    fn behave(&self, behaviour: Behaviour) {
        match self {
            Self::Web(server) => server.behave(behaviour),
            Self::Datagrams(server) => server.behave(behaviour),
        }
    }

    fn present(&self, certificate: Certificate) {
        match self {
            Self::Web(server) => server.present(certificate),
            Self::Datagrams(_) => panic!("a server of datagrams has no certificate"),
        }
    }

    fn stop(&mut self) {
        match self {
            Self::Web(server) => server.stop(),
            Self::Datagrams(server) => server.stop(),
        }
    }

    fn start_again(&mut self) {
        match self {
            Self::Web(server) => server.start_again(),
            Self::Datagrams(server) => server.start_again(),
        }
    }
}

/// The page that every web server of the fault table serves.
const PAGE: &str = "served by the lab";

fn good(authority: &Authority) -> Certificate {
    authority.issue("shop.example")
}

fn datagrams(host: &Host, address: &str, protocol: Protocol) -> Server {
    Server::Datagrams(DatagramServer::start(host, address, protocol, PAGE))
}

fn port(index: usize) -> usize {
    FIRST_PORT + index
}

fn troubled_address(index: usize) -> String {
    match CASES[index].fault {
        Fault::PoweredOff => format!("192.168.2.{}", 210 + index),
        _ => TROUBLED.to_owned(),
    }
}
