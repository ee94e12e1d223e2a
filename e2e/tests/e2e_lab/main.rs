//! Tests that the lab behaves as the other tests assume.

mod fault_servers;

use std::collections::BTreeMap;

use e2e::segment::attach_to_management;
use e2e::{ApiServerAway, Client, Host, Segment, WebServer, kubectl};
use e2e::{control, eventually, ipvsadm, wait::PATIENCE};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

#[test]
fn a_new_host_starts_like_a_new_machine() {
    let host = Host::new("machine");
    assert_eq!(host.read_sysctl("net.ipv4.ip_forward"), "0");
    assert_eq!(host.read_sysctl("net.ipv4.conf.default.rp_filter"), "0");
    assert_eq!(host.run("ip route"), "");
    assert!(
        host.run("ip -brief address show lo")
            .contains("127.0.0.1/8")
    );
    assert_eq!(ipvsadm::saved(&host), "");
}

#[test]
fn web_traffic_through_a_nat_director_follows_the_weights() {
    let outer = Segment::new("outer");
    let inner = Segment::new("inner");
    let [client, director, web1, web2] = ["client", "director", "web1", "web2"].map(Host::new);
    outer.attach(&client, "eth0", "192.168.4.10/24");
    outer.attach(&director, "eth0", "192.168.4.1/24");
    inner.attach(&director, "eth1", "172.16.0.1/24");
    inner.attach(&web1, "eth0", "172.16.0.11/24");
    inner.attach(&web2, "eth0", "172.16.0.12/24");
    for web in [&web1, &web2] {
        web.run("ip route add default via 172.16.0.1");
    }
    director.sysctl("net.ipv4.ip_forward", "1");
    let _servers = [("one", &web1), ("two", &web2)]
        .map(|(page, host)| WebServer::start(host, "0.0.0.0:80", page));
    director.run("ipvsadm -A -t 192.168.4.1:80 -s wrr");
    director.run("ipvsadm -a -t 192.168.4.1:80 -r 172.16.0.11:80 -m -w 1");
    director.run("ipvsadm -a -t 192.168.4.1:80 -r 172.16.0.12:80 -m -w 2");

    let browser = Client::new(&client);
    assert_eq!(
        browser.counts(30, "192.168.4.1:80"),
        BTreeMap::from([("one".into(), 10), ("two".into(), 20)]),
        "{}",
        ipvsadm::listed(&director),
    );

    let download = browser.download("192.168.4.1:80", 65_536, 65_536).unwrap();
    assert!(["one", "two"].contains(&download.server()));
    assert!(download.is_running());
    assert_eq!(download.finish().unwrap(), 65_536);
}

#[test]
fn a_download_notices_that_its_server_is_gone() {
    let wire = Segment::new("wire");
    let [client, web] = ["client", "web"].map(Host::new);
    wire.attach(&client, "eth0", "2001:db8::1/64");
    wire.attach(&web, "eth0", "2001:db8::2/64");
    let server = WebServer::start(&web, "[::]:80", "web");
    let download = Client::new(&client)
        .download("[2001:db8::2]:80", 1 << 30, 65_536)
        .unwrap();
    eventually("the first bytes", PATIENCE, || {
        if download.received() > 0 {
            Ok(())
        } else {
            Err("none")
        }
    });
    drop(server);
    let error = download.finish().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    let refused = Client::new(&client)
        .get("[2001:db8::2]:80", "/")
        .unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn the_api_server_is_reached_with_kubectl_and_from_a_host() {
    let applied = control::kubectl_apply(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: lab}, data: {answer: \"42\"}}",
    );
    assert_eq!(applied, "configmap/lab created\n");

    let director = Host::new("director");
    attach_to_management(&director);
    let map = director.enter(|| block_on(async { config_maps().await.get("lab").await }));
    assert_eq!(map.unwrap().data.unwrap()["answer"], "42");
    assert_eq!(
        kubectl(&["delete", "configmap", "lab"]),
        "configmap \"lab\" deleted from default namespace\n"
    );
}

#[test]
fn a_service_account_has_only_its_own_rights() {
    kubectl(&["create", "serviceaccount", "nobody"]);
    let kubeconfig = control::kubeconfig_of_service_account("default", "nobody");
    let flag = format!("--kubeconfig={}", kubeconfig.display());
    let refused = control::try_kubectl(&["get", "configmaps", &flag]);
    assert!(
        refused
            .stderr
            .contains("system:serviceaccount:default:nobody"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains("forbidden"), "{refused:?}");
}

#[test]
fn the_api_server_forgets_nothing_when_it_is_away() {
    kubectl(&["create", "configmap", "kept"]);
    let away = ApiServerAway::begin();
    assert!(!control::try_kubectl(&["get", "configmap", "kept"]).is_success());
    drop(away);
    assert_eq!(
        kubectl(&["get", "configmap", "kept", "-o", "name"]),
        "configmap/kept\n"
    );
}

#[test]
fn helm_reaches_the_api_server() {
    assert!(e2e::helm(&["list", "--short"]).is_empty());
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new()
        .expect("a runtime starts")
        .block_on(work)
}

async fn config_maps() -> Api<ConfigMap> {
    Api::default_namespaced(kube::Client::try_default().await.expect("KUBECONFIG holds"))
}
