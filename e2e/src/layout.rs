//! Where things are in every lab. The lab lives in namespaces of its own, so
//! these names and addresses are the same in each, also side by side.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The lab's folder: certificates, logs, what the guest is to run. The same
/// path on the host side and in the guest.
pub const DIR: &str = "/run/ipvs-lab";

/// The host side of the wire between host side and guest.
pub const HOST_SIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// The guest's side of it.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// The guest's address on the bridge that joins it with hosts that asked for
/// the management network; the gateway of those.
pub const MANAGEMENT_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 128, 1);

/// The management network, and the prefix length of both of its wires.
pub const MANAGEMENT_NETWORK: &str = "10.77.128.0/17";

/// The network of the wire between host side and guest.
pub const WIRE_NETWORK: &str = "10.77.0.0/24";

/// The API server's address, for the guest and for hosts on the management
/// network alike.
pub const API_SERVER: &str = "https://10.77.0.1:6443";

/// The port of the control service on the host side.
pub const CONTROL_PORT: u16 = 8077;

/// The environment variable that says where the workspace's programs are.
pub const PROGRAMS: &str = "LAB_PROGRAMS";

/// The control service's address.
pub fn control_service() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(HOST_SIDE), CONTROL_PORT)
}

/// A file of the lab's folder.
pub fn file(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// A kubeconfig for whoever holds `token`, in YAML.
pub fn kubeconfig(token: &str) -> String {
    let authority = file("apiserver/apiserver.crt");
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: lab
  cluster: {{server: \"{API_SERVER}\", certificate-authority: {authority}}}
users:
- name: lab
  user: {{token: \"{token}\"}}
contexts:
- name: lab
  context: {{cluster: lab, user: lab}}
current-context: lab
",
        authority = authority.display(),
    )
}
