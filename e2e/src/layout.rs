//! Names and addresses, which are the same in every lab. Each lab has
//! namespaces of its own, so labs can run side by side.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The lab's folder: certificates, logs, what the guest must run. It has the
/// same path on the host side and in the guest.
pub const DIR: &str = "/run/ipvs-lab";

/// The host side's address on the wire to the guest.
pub const HOST_SIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// The guest's address on that wire.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// The guest's address on the bridge that joins it with hosts on the management
/// network. It is their gateway.
pub const MANAGEMENT_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 128, 1);

/// The management network, and the prefix length of both of its wires.
pub const MANAGEMENT_NETWORK: &str = "10.77.128.0/17";

/// The network of the wire between host side and guest.
pub const WIRE_NETWORK: &str = "10.77.0.0/24";

/// The address of a cluster's API server, for the guest and for hosts on the
/// management network alike.
pub fn api_server(of: Which) -> SocketAddr {
    let port = match of {
        Which::First => 6443,
        Which::Other => 6444,
    };
    SocketAddr::new(IpAddr::V4(HOST_SIDE), port)
}

/// The folder of a cluster's API server, with its certificate.
pub fn api_server_dir(of: Which) -> PathBuf {
    match of {
        Which::First => file("apiserver"),
        Which::Other => file("apiserver-other"),
    }
}

/// The kubeconfig of a cluster's administrator.
pub fn admin_kubeconfig(of: Which) -> PathBuf {
    match of {
        Which::First => file("kubeconfig"),
        Which::Other => file("kubeconfig-other"),
    }
}

/// The port of the control service on the host side.
pub const CONTROL_PORT: u16 = 8077;

/// The environment variable with the folder of the workspace's programs.
pub const PROGRAMS: &str = "LAB_PROGRAMS";

/// The administrator's token, for every cluster.
pub const ADMIN_TOKEN: &str = "lab-admin";

/// The control service's address.
pub fn control_service() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(HOST_SIDE), CONTROL_PORT)
}

/// A file of the lab's folder.
pub fn file(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// A kubeconfig of a cluster with `token`, in YAML.
pub fn kubeconfig(of: Which, token: &str) -> String {
    let authority = api_server_dir(of).join("apiserver.crt");
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: lab
  cluster: {{server: \"https://{server}\", certificate-authority: {authority}}}
users:
- name: lab
  user: {{token: \"{token}\"}}
contexts:
- name: lab
  context: {{cluster: lab, user: lab}}
current-context: lab
",
        server = api_server(of),
        authority = authority.display(),
    )
}

/// A cluster of the lab.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// The cluster that every test has.
    #[default]
    First,
    /// A second cluster with its own etcd, from when it is first started.
    Other,
}
