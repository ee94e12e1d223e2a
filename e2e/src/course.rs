//! The two example networks of an LVS course: a NAT cluster and a DR cluster.
//! The manifests in `examples/` describe the same clusters. The lab configures
//! the VIP and the ARP settings on the DR cluster's real servers. In a later
//! release, ipvs-operator will configure the real servers. The lab also turns
//! on forwarding for the NAT director, except in tests about forwarding.

use crate::{Client, Host, Segment, WebServer, segment::attach_to_management};

/// A network with a client, a director and two web servers. Each web server
/// listens on port 80 and serves a page with the server's address.
#[derive(Debug)]
pub struct Course {
    /// The host of the course's client, 192.168.4.10.
    pub client: Host,
    /// The host of the course's first director, 192.168.4.5.
    pub director: Host,
    /// The hosts on which the two web servers run.
    pub web: [Host; 2],
    /// The segment to which the client and the VIP belong.
    pub segment: Segment,
    addresses: [&'static str; 2],
    servers: [Option<WebServer>; 2],
    inner: Option<Segment>,
}

/// The NAT cluster's VIP and port. The NAT cluster's VIP is the director's own
/// address.
pub const NAT_VIP: &str = "192.168.4.5:80";
/// The DR cluster's VIP and port.
pub const DR_VIP: &str = "192.168.4.15:80";
/// The addresses of the NAT cluster's web servers.
pub const NAT_WEB: [&str; 2] = ["192.168.2.100", "192.168.2.200"];
/// The addresses of the DR cluster's web servers.
pub const DR_WEB: [&str; 2] = ["192.168.4.100", "192.168.4.200"];

impl Course {
    /// Creates the NAT cluster. The director connects 192.168.4.0/24 with
    /// 192.168.2.0/24 and forwards packets. The web servers' default gateway is
    /// the director, 192.168.2.5.
    ///
    /// # Panics
    /// Panics if the hosts cannot be created.
    pub fn nat() -> Self {
        let course = Self::nat_as_installed();
        course.director.sysctl("net.ipv4.ip_forward", "1");
        course
    }

    /// Creates the NAT cluster with a director on which only addresses and
    /// routes are configured. The director's other settings are the settings of
    /// a freshly installed machine.
    ///
    /// # Panics
    /// Panics if the hosts cannot be created.
    pub fn nat_as_installed() -> Self {
        let inner = Segment::new("inner");
        let mut course = Self::new("192.168.4.5/24");
        inner.attach(&course.director, "eth1", "192.168.2.5/24");
        for (web, address) in course.web.iter().zip(NAT_WEB) {
            inner.attach(web, "eth0", &format!("{address}/24"));
            web.run("ip route add default via 192.168.2.5");
        }
        course.serve(NAT_WEB);
        course.inner = Some(inner);
        course
    }

    /// Creates the DR cluster, with all hosts on one segment. The web servers
    /// have the VIP on lo and do not answer ARP requests for it.
    ///
    /// # Panics
    /// Panics if the hosts cannot be created.
    pub fn dr() -> Self {
        let mut course = Self::new("192.168.4.5/24");
        for (web, address) in course.web.iter().zip(DR_WEB) {
            course.segment.attach(web, "eth0", &format!("{address}/24"));
            for interface in ["all", "lo"] {
                web.sysctl(&format!("net.ipv4.conf.{interface}.arp_ignore"), "1");
                web.sysctl(&format!("net.ipv4.conf.{interface}.arp_announce"), "2");
            }
            web.run("ip address add 192.168.4.15/32 dev lo");
        }
        course.serve(DR_WEB);
        course
    }

    fn new(director_address: &str) -> Self {
        let segment = Segment::new("segment");
        let [client, director, web1, web2] = ["client", "director", "web1", "web2"].map(Host::new);
        segment.attach(&client, "eth0", "192.168.4.10/24");
        segment.attach(&director, "eth0", director_address);
        attach_to_management(&director);
        Self {
            client,
            director,
            web: [web1, web2],
            segment,
            addresses: NAT_WEB,
            servers: [None, None],
            inner: None,
        }
    }

    /// Adds another director to the client's segment.
    ///
    /// # Panics
    /// Panics if the host cannot be created.
    pub fn another_director(&self, name: &str, address: &str) -> Host {
        let director = Host::new(name);
        self.segment.attach(&director, "eth0", address);
        attach_to_management(&director);
        director
    }

    /// Adds another real server to the inner segment of the NAT cluster. No
    /// program listens on the new real server.
    ///
    /// # Panics
    /// Panics if the host cannot be created, or if the network is a DR cluster.
    /// A DR cluster has no inner segment.
    pub fn another_server(&self, name: &str, address: &str) -> Host {
        let inner = self
            .inner
            .as_ref()
            .expect("the NAT cluster has an inner segment");
        let server = Host::new(name);
        inner.attach(&server, "eth0", &format!("{address}/24"));
        server.run("ip route add default via 192.168.2.5");
        server
    }

    /// Stops one of the web servers. The stopped server's connections end, and
    /// new connections are refused.
    pub fn stop_web(&mut self, index: usize) {
        self.servers[index] = None;
    }

    /// Starts a stopped web server of the course again.
    ///
    /// # Panics
    /// Panics if another socket has bound the web server's port.
    pub fn start_web(&mut self, index: usize) {
        let (host, address) = (&self.web[index], self.addresses[index]);
        self.servers[index] = Some(WebServer::start(host, "0.0.0.0:80", address));
    }

    fn serve(&mut self, addresses: [&'static str; 2]) {
        self.addresses = addresses;
        for index in 0..addresses.len() {
            self.start_web(index);
        }
    }

    /// Creates a web client in the client's host.
    pub fn browser(&self) -> Client {
        Client::new(&self.client)
    }
}

/// Returns the manifest of a VirtualService for the web servers. The VIP is the
/// NAT director's own address, with the given port.
pub fn another_service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: {name}}}
spec:
  vip: {{address: 192.168.4.5, port: {port}}}
  forwarding: {{method: NAT}}
  realServerSelector: {{matchLabels: {{app: web}}}}
"
    )
}
