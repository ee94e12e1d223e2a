//! The names and addresses inside a lab. All labs use the same names and
//! addresses. Labs can run side by side, because each lab has its own
//! namespaces.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The lab's folder. The folder contains certificates, logs and a file. The
/// file tells the guest which program to run. The path of the lab's folder is
/// the same on the host side and in the guest.
pub const DIR: &str = "/run/ipvs-lab";

/// The host side's address on its network link to the guest.
pub const HOST_SIDE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// The guest's address on its network link to the host side.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// The guest's address on the bridge of the management network. All hosts on
/// the management network use `MANAGEMENT_GATEWAY` as their gateway.
pub const MANAGEMENT_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 128, 1);

/// The management network, through which the lab's hosts reach the API server.
pub const MANAGEMENT_NETWORK: &str = "10.77.128.0/17";

/// The network of the link between the host side and the guest.
pub const WIRE_NETWORK: &str = "10.77.0.0/24";

/// Returns the address of a cluster's API server. The guest and the hosts on
/// the management network use the same address of the API server.
pub fn api_server(of: Which) -> SocketAddr {
    let port = match of {
        Which::First => 6443,
        Which::Other => 6444,
    };
    SocketAddr::new(IpAddr::V4(HOST_SIDE), port)
}

/// Returns the folder that contains the certificate of a cluster's API server.
pub fn api_server_dir(of: Which) -> PathBuf {
    match of {
        Which::First => file("apiserver"),
        Which::Other => file("apiserver-other"),
    }
}

/// Returns the path of the kubeconfig of a cluster's administrator.
pub fn admin_kubeconfig(of: Which) -> PathBuf {
    match of {
        Which::First => file("kubeconfig"),
        Which::Other => file("kubeconfig-other"),
    }
}

/// The TCP port of the control service on the host side.
pub const CONTROL_PORT: u16 = 8077;

/// The environment variable that names the folder of the workspace's programs.
pub const PROGRAMS: &str = "LAB_PROGRAMS";

/// The administrator's token. The token is valid in every cluster of the lab.
pub const ADMIN_TOKEN: &str = "lab-admin";

/// Returns the address of the control service on the host side.
pub fn control_service() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(HOST_SIDE), CONTROL_PORT)
}

/// The network of the services of Kubernetes.
pub const SERVICE_NETWORK: &str = "10.96.0.0/16";

/// Returns the address of a node. The first node has the number 1.
pub fn node_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 10 + number)
}

/// Returns the name of a node, which is also the name of its Node object.
pub fn node_name(number: u8) -> String {
    format!("node{number}")
}

/// Returns the address at which a node runs commands for tests.
pub fn node_service(number: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(node_address(number)), CONTROL_PORT)
}

/// Returns the path of a file in the lab's folder.
pub fn file(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// Returns the path of the authority's certificate for the certificates of the
/// API servers' clients. The authority's key lies beside the certificate, and
/// ends with `.key`.
pub fn client_authority() -> PathBuf {
    file("client-authority.crt")
}

/// Returns a kubeconfig, in YAML, for a client that authenticates to a cluster
/// with `token`.
pub fn kubeconfig(of: Which, token: &str) -> String {
    kubeconfig_with(of, &format!("token: \"{token}\""))
}

/// Returns a kubeconfig, in YAML, for a client that authenticates to a cluster
/// with the certificate and the key in two files.
pub fn kubeconfig_with_certificate(of: Which, certificate: &Path, key: &Path) -> String {
    let (certificate, key) = (certificate.display(), key.display());
    kubeconfig_with(
        of,
        &format!("client-certificate: \"{certificate}\", client-key: \"{key}\""),
    )
}

fn kubeconfig_with(of: Which, credentials: &str) -> String {
    let authority = api_server_dir(of).join("apiserver.crt");
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: lab
  cluster: {{server: \"https://{server}\", certificate-authority: {authority}}}
users:
- name: lab
  user: {{{credentials}}}
contexts:
- name: lab
  context: {{cluster: lab, user: lab}}
current-context: lab
",
        server = api_server(of),
        authority = authority.display(),
    )
}

/// One of the lab's two clusters.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// The first cluster, which exists in every lab that has an API server.
    #[default]
    First,
    /// A second cluster with its own etcd. The second cluster runs only after a
    /// test has started it.
    Other,
}
