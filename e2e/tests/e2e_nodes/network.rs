//! The network around the nodes: a client and the servers of the course's two
//! clusters, on the segment of the nodes.

use std::sync::LazyLock;

use e2e::{
    Client, Host, WebServer,
    control::on_node,
    course::{DR_VIP, DR_WEB, NAT_WEB},
    host::ip_here,
};

/// The hosts around the nodes, with the addresses of the examples. The node 1 is
/// the director of the NAT cluster.
pub(crate) struct Network {
    client: Host,
    _servers: Vec<(Host, WebServer)>,
}

/// The tests share one network: the nodes would look for new hosts at the link
/// addresses that the old ones had.
static NETWORK: LazyLock<Network> = LazyLock::new(Network::new);

impl Network {
    pub(crate) fn shared() -> &'static Self {
        &NETWORK
    }

    fn new() -> Self {
        let client = host("client", &["192.168.4.10/24"]);
        on_node(1, &words("ip address replace 192.168.4.5/24 dev wire"));
        on_node(1, &words("ip address replace 192.168.2.5/24 dev wire"));
        on_node(2, &words("ip address replace 192.168.4.6/24 dev wire"));
        let mut servers = Vec::new();
        for (number, address) in (1..).zip(NAT_WEB) {
            let server = host(&format!("nat-web{number}"), &[&format!("{address}/24")]);
            server.run("ip route add default via 192.168.2.5");
            servers.push((server, address));
        }
        for (number, address) in (1..).zip(DR_WEB) {
            let server = host(&format!("dr-web{number}"), &[&format!("{address}/24")]);
            for interface in ["all", "lo"] {
                server.sysctl(&format!("net.ipv4.conf.{interface}.arp_ignore"), "1");
                server.sysctl(&format!("net.ipv4.conf.{interface}.arp_announce"), "2");
            }
            let vip = DR_VIP.trim_end_matches(":80");
            server.run(&format!("ip address add {vip}/32 dev lo"));
            servers.push((server, address));
        }
        let serve = |(server, page): (Host, &str)| {
            let web = WebServer::start(&server, "0.0.0.0:80", page);
            (server, web)
        };
        Self {
            client,
            _servers: servers.into_iter().map(serve).collect(),
        }
    }

    pub(crate) fn browser(&self) -> Client {
        Client::new(&self.client)
    }
}

/// Creates a host with a network card on the segment of the nodes.
fn host(name: &str, addresses: &[&str]) -> Host {
    let host = Host::new(name);
    ip_here(&format!(
        "link add link wire name eth0 netns {name} type macvlan mode bridge"
    ))
    .unwrap_or_else(|failed| panic!("{failed}"));
    host.ip("link set eth0 up");
    for address in addresses {
        host.ip(&format!("address add {address} dev eth0"));
    }
    host
}

fn words(command: &str) -> Vec<&str> {
    command.split(' ').collect()
}
