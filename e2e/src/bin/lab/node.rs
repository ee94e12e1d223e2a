//! Runs inside the kernel of a Kubernetes node: prepares the machine as a
//! distribution does, and runs containerd, kubelet and kube-proxy.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::host::{CommandFailed, ip_here, run_here};
use e2e::layout::Which;
use e2e::layout::{HOST_SIDE, admin_kubeconfig, api_server_dir, file, node_address, node_name};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use crate::control_service;
use crate::go_programs::in_go;
use crate::tools::built;

const SOCKET: &str = "/run/containerd/containerd.sock";
/// How long a program may take to become ready. Emulated machines are slow.
const READY_WITHIN: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(200);

/// Prepares the node, and runs its programs until one of them ends.
pub(crate) fn run() -> Result<ExitCode> {
    let number = env::var("LAB_NODE").context("LAB_NODE")?;
    let number: u8 = number.parse().context("LAB_NODE")?;
    let name = node_name(number);
    bring_up_network(number)?;
    mount_file_systems()?;
    // kube-proxy expects it on every node.
    run_here(Command::new("modprobe").arg("nf_conntrack"))?;
    control_service::start_on_node(number)?;

    let mut programs = vec![("containerd", containerd(number)?)];
    until("containerd answers", || ctr(&["version"]).is_ok())?;
    for image in images()? {
        let image = image.display().to_string();
        ctr(&[
            "images",
            "import",
            "--local",
            "--snapshotter",
            "native",
            &image,
        ])?;
    }
    eprintln!("{name}: containerd has the images");
    let certificate = api_server_dir(Which::First).join("apiserver.crt");
    until("the API server has a certificate", || certificate.exists())?;
    programs.push(("kubelet", kubelet(number)?));
    programs.push(("kube-proxy", kube_proxy(number)?));
    eprintln!("{name}: kubelet and kube-proxy run");
    loop {
        for (program, process) in &mut programs {
            if let Some(status) = process.try_wait()? {
                bail!("{name}: {program} ended: {status}");
            }
        }
        sleep(POLL);
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    while !holds() {
        if Instant::now() > deadline {
            bail!("not within {READY_WITHIN:?}: {what}");
        }
        sleep(POLL);
    }
    Ok(())
}

fn bring_up_network(number: u8) -> Result<()> {
    ip_here(&format!(
        "link set lo up
         address add {}/24 dev wire
         link set wire up
         route add default via {HOST_SIDE}",
        node_address(number)
    ))?;
    fs::write("/proc/sys/kernel/hostname", node_name(number)).context("the host's name")
}

/// Mounts what systemd mounts on a usual node, and memory for what a node keeps on
/// its disk. The programs of the node may be anywhere else on this machine, also
/// below /tmp.
fn mount_file_systems() -> Result<()> {
    let cgroups = Path::new("/sys/fs/cgroup");
    for (kind, path) in [
        ("cgroup2", cgroups),
        ("mqueue", Path::new("/dev/mqueue")),
        ("tmpfs", Path::new("/var/lib/containerd")),
        ("tmpfs", Path::new("/var/lib/ipvs-operator")),
        ("tmpfs", Path::new("/var/lib/kubelet")),
    ] {
        fs::create_dir_all(path)?;
        let nothing = None::<&str>;
        mount(Some(kind), path, Some(kind), MsFlags::empty(), nothing)
            .with_context(|| format!("mounting {kind} on {}", path.display()))?;
    }
    // The volumes of pods appear in the node's mount namespace, and the other
    // way round.
    let nothing = None::<&str>;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_SHARED,
        nothing,
    )
    .context("sharing mounts")?;
    let controllers = "+cpu +io +memory +pids +cpuset";
    fs::write(cgroups.join("cgroup.subtree_control"), controllers).context("cgroup controllers")
}

/// Returns the archives with the images that the node knows. A node of the lab
/// has no registry to pull from.
fn images() -> Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    for folder in fs::read_dir(file("images")).context("the images")? {
        for image in fs::read_dir(folder?.path())? {
            images.push(image?.path());
        }
    }
    images.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
    images.sort();
    Ok(images)
}

fn ctr(args: &[&str]) -> Result<String, CommandFailed> {
    let namespace = ["--address", SOCKET, "--namespace", "k8s.io"];
    run_here(Command::new(built("ctr")).args(namespace).args(args))
}

fn containerd(number: u8) -> Result<Child> {
    let pods = format!("10.78.{number}.0/24");
    let network = json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": pods}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
        ],
    });
    write_json("/etc/cni/net.d/10-pods.conflist", &network)?;
    let config = r#"version = 3
[plugins."io.containerd.cri.v1.images"]
snapshotter = "native"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "docker.io/library/pause:lab"
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "/etc/cni/net.d"
"#;
    let path = "/etc/containerd/config.toml";
    write(path, config)?;
    start("containerd", number, &["--config", path])
}

fn kubelet(number: u8) -> Result<Child> {
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "failSwapOn": false,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": false,
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        // Everything is in memory, and its file systems are small.
        "evictionHard": {"memory.available": "50Mi"},
        "imageGCHighThresholdPercent": 100,
    });
    let path = "/etc/kubernetes/kubelet.json";
    write_json(path, &config)?;
    let kubeconfig = admin_kubeconfig(Which::First);
    start(
        "kubelet",
        number,
        &[
            &format!("--config={path}"),
            &format!("--kubeconfig={}", kubeconfig.display()),
            &format!("--hostname-override={}", node_name(number)),
            &format!("--node-ip={}", node_address(number)),
            "--register-node",
        ],
    )
}

fn kube_proxy(number: u8) -> Result<Child> {
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": "10.78.0.0/16",
        "hostnameOverride": node_name(number),
        "clientConnection": {"kubeconfig": admin_kubeconfig(Which::First)},
    });
    let path = "/etc/kubernetes/kube-proxy.json";
    write_json(path, &config)?;
    start("kube-proxy", number, &[&format!("--config={path}")])
}

/// Starts a program of the node, with a log in the lab's folder.
fn start(program: &str, number: u8, args: &[&str]) -> Result<Child> {
    let log = file(&format!("logs/{}-{program}.log", node_name(number)));
    let log = File::create(log)?;
    in_go(built(program))
        .args(args)
        .env(
            "PATH",
            format!("{}:{}", built("").display(), env::var("PATH")?),
        )
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {program}"))
}

fn write_json(path: &str, value: &Value) -> Result<()> {
    write(path, &format!("{value:#}\n"))
}

fn write(path: &str, text: &str) -> Result<()> {
    if let Some(folder) = Path::new(path).parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text).with_context(|| format!("writing {path}"))
}
