//! Starts the node agent's process: its options, log and threads. The crate's
//! library docs describe the agent.

use std::{
    fs,
    io::IsTerminal,
    process::ExitCode,
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};

use agent::{
    args::{Args, Command},
    claim::{self, Orders},
    clock::{Clock, local_daytime, uptime},
    director::{Loop, World},
    disk::{
        checkpoint::{Checkpoint, Note, Recorder, Restored},
        journal::FileJournal,
    },
    event::Event,
    heartbeat::Heartbeat,
    host::{
        lock::{Lock, LockError},
        netlink::RouteSocket,
        sockets::SockDiag,
        surroundings::ThisHost,
        sysctls::SysctlFolder,
    },
    input::{
        Input,
        api_servers::ApiServers,
        api_time::ApiTime,
        kubernetes,
        leases::{self, Leases, Looks},
        links, manifests, reader,
    },
    probe::{self, target::Order},
    tell::{
        publish::{self, Identity, Sources},
        report::Observed,
    },
    undo::{self, Undo},
};
use anyhow::Context;
use clap::{CommandFactory, Parser};
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{
        Notify,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        watch,
    },
    time,
};

/// During a start or a new listing, the agent needs twice its usual memory.
/// Afterwards, mimalloc returns the extra memory to the system. The C library's
/// allocator would keep the extra memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The file with the machine's boot id, which changes whenever the machine
/// boots (`Documentation/admin-guide/sysctl/kernel.rst`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// At its start, the agent waits for the lock and for a usable configuration.
/// While the agent waits, it tries again at this interval.
const RETRY: Duration = Duration::from_secs(1);
/// The maximum wait for data from the API server, for example during a listing.
/// This time is longer than a watch lasts ([`kubernetes::SILENCE`]). So within a
/// minute, the agent notices that a connection is dead.
const ANSWER_TIME: Duration = Duration::from_secs(58);

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Command::Completion { shell }) = args.command {
        let mut command = Args::command();
        clap_complete::generate(shell, &mut command, "ipvs-agent", &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    tracing_subscriber::fmt()
        .with_env_filter(&args.log)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_writer(std::io::stderr)
        .init();
    let result = match args.command {
        Some(Command::Undo { wait }) => take_out_of_service(&args, wait),
        _ => run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn take_out_of_service(args: &Args, wait_seconds: u32) -> anyhow::Result<()> {
    let undo = Undo {
        state_dir: &args.state_dir,
        sysctl_dir: &args.sysctl_dir,
        boot_id: &boot_id()?,
        wait: Duration::from_secs(wait_seconds.into()),
    };
    undo::undo(&undo, &mut |line| println!("{line}"))
}

fn boot_id() -> anyhow::Result<String> {
    let id = fs::read_to_string(BOOT_ID).with_context(|| format!("cannot read {BOOT_ID}"))?;
    Ok(id.trim().to_owned())
}

fn run(args: &Args) -> anyhow::Result<()> {
    let name = match &args.node_name {
        Some(name) => name.clone(),
        None => host_name()?,
    };
    let boot_id = boot_id()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let (events, heard) = mpsc::channel();
    let (observe, observed) = watch::channel(None);

    stop_on_signal(&runtime, events.clone())?;
    let Some(lock) = wait_for_lock(&heard) else {
        return Ok(());
    };
    tracing::info!("director {name} of group {}", args.director_group);
    let identity = Identity {
        name: name.clone(),
        group: args.director_group.clone(),
        boot_id: boot_id.clone(),
        lease_namespace: args.lease_namespace.clone(),
    };
    let (recorder, notes) = Recorder::new();
    let (restored, writer) = restore(args, notes, events.clone())?;
    if !restored.events.is_empty() {
        tracing::info!(
            "{} objects are known from the previous run; nothing is removed until all current objects are known",
            restored.events.len()
        );
        for event in restored.events.into_iter().chain([Event::Restored]) {
            events.send(event).context("the loop's channel is closed")?;
        }
    }
    let (readings, probed, links) = (events.clone(), events.clone(), events.clone());
    let input = Input {
        events,
        recorder: recorder.clone(),
        files: restored.files,
        folder: restored.folder,
    };
    let api_time = ApiTime::default();
    let (leases, leases_asked) = unbounded_channel();
    let (orders, ordered) = unbounded_channel();
    let (claims, claimed) = unbounded_channel();
    let leases = args.manifests.is_none().then_some(leases);
    let world = world(args, boot_id, api_time.clone(), orders, claims, leases);
    let outside = Outside {
        api_time,
        leases: leases_asked,
        heartbeat: world.heartbeat.clone(),
    };
    start_input(args, identity, &runtime, input, observed, outside);
    thread::Builder::new()
        .name("reader".to_owned())
        .spawn(move || reader::watch(&readings))
        .context("cannot start the reader's thread")?;
    probe::start(ordered, probed, Arc::default(), world.prober.clone())
        .context("cannot start the prober's thread")?;
    claim::start(claimed, links.clone())
        .context("cannot start the thread that claims addresses")?;
    links::start(links).context("cannot start the thread that watches interfaces")?;
    let note_end = recorder.clone();
    let group = args.director_group.clone();
    let loop_thread = thread::Builder::new()
        .name("director".to_owned())
        .spawn(move || {
            let clock = Clock::start();
            Loop::new(name, group, clock, world, recorder, restored.standings).run(
                &heard,
                &mut |found: Observed| {
                    observe.send_replace(Some(found));
                },
            );
        })
        .context("cannot start the director's thread")?;
    let ended = loop_thread.join();
    note_end.note(Note::End);
    if writer.join().is_err() {
        tracing::error!("the checkpoint's thread failed");
    }
    runtime.shutdown_background();
    drop(lock);
    anyhow::ensure!(ended.is_ok(), "the director's thread failed");
    tracing::info!("stopped; the kernel's table and the addresses stay as they are");
    Ok(())
}

fn host_name() -> anyhow::Result<String> {
    nix::unistd::gethostname()
        .context("cannot read the host's name: give --node-name")?
        .into_string()
        .map_err(|_| anyhow::anyhow!("the host's name is not valid UTF-8: give --node-name"))
}

/// Waits until this process is the only agent on the host. Returns `None` if
/// the process must stop during the wait.
fn wait_for_lock(heard: &mpsc::Receiver<Event>) -> Option<Lock> {
    let mut said = None;
    loop {
        match Lock::take() {
            Ok(lock) => {
                if let Some(remark) = lock.remark() {
                    tracing::warn!("{remark}");
                }
                return Some(lock);
            }
            Err(error) => {
                let message = error.to_string();
                if said.as_ref() != Some(&message) {
                    match &error {
                        LockError::Taken => {
                            let pid = Lock::owner().map(|pid| format!(" (pid {pid})"));
                            tracing::warn!("{message}{}", pid.unwrap_or_default());
                        }
                        LockError::NoPart { .. } | LockError::Io(_) => {
                            tracing::error!("{message}");
                        }
                    }
                    said = Some(message);
                }
            }
        }
        if !matches!(
            heard.recv_timeout(RETRY),
            Err(mpsc::RecvTimeoutError::Timeout)
        ) {
            return None;
        }
    }
}

fn world(
    args: &Args,
    boot_id: String,
    api_time: ApiTime,
    orders: UnboundedSender<Order>,
    claims: UnboundedSender<Orders>,
    leases: Option<UnboundedSender<Looks>>,
) -> World {
    let state_dir = args.state_dir.clone();
    World {
        kernel: Box::new(|| Ok(Box::new(ipvs::Socket::open()?))),
        links: Box::new(|| Ok(Box::new(RouteSocket::open()?))),
        journal: Box::new(move || {
            let (journal, remembered) = FileJournal::open(&state_dir, &boot_id)?;
            Ok((Box::new(journal), remembered))
        }),
        sysctls: Box::new(SysctlFolder(args.sysctl_dir.clone())),
        segments: Box::new(claims),
        leases: leases.map(|leases| Box::new(leases) as Box<dyn Leases + Send>),
        sockets: Box::new(SockDiag),
        may_hijack: args.allow_hijack,
        surroundings: Box::new(ThisHost::default()),
        uptime: Box::new(uptime),
        daytime: match args.manifests {
            Some(_) => Box::new(local_daytime),
            None => Box::new(move || api_time.daytime()),
        },
        orders,
        heartbeat: Heartbeat::default(),
        prober: Heartbeat::default(),
    }
}

/// Returns the data of the previous run, and the thread that writes the
/// checkpoint. If the checkpoint cannot be used, the agent starts without data
/// of the previous run, and the checkpoint's thread tries again.
fn restore(
    args: &Args,
    notes: mpsc::Receiver<Note>,
    events: Sender<Event>,
) -> anyhow::Result<(Restored, thread::JoinHandle<()>)> {
    let (checkpoint, restored) = Checkpoint::open(&args.state_dir);
    let report = move |trouble| {
        // Sending fails when the loop has ended.
        events.send(Event::Checkpoint(trouble)).unwrap_or_default();
    };
    let writer = checkpoint
        .record(notes, report)
        .context("cannot start the checkpoint's thread")?;
    let restored = restored.unwrap_or_else(|error| {
        tracing::warn!("cannot read what the previous run knew: {error}");
        Restored::default()
    });
    Ok((restored, writer))
}

/// The data, other than events, that the agent's inputs and the loop exchange.
struct Outside {
    /// The time of day according to the API server.
    api_time: ApiTime,
    /// The Leases that the loop wants to read.
    leases: UnboundedReceiver<Looks>,
    /// The heartbeat of the loop.
    heartbeat: Heartbeat,
}

fn start_input(
    args: &Args,
    identity: Identity,
    runtime: &tokio::runtime::Runtime,
    input: Input,
    observed: watch::Receiver<Option<Observed>>,
    outside: Outside,
) {
    match args.manifests.clone() {
        Some(folder) => {
            thread::spawn(move || {
                manifests::watch(&folder, &identity.name, &identity.group, input);
            });
        }
        None => {
            let kubeconfig = args.kubeconfig.clone();
            runtime.spawn(async move {
                let (client, mut api_servers) =
                    connect(kubeconfig.as_deref(), &outside.api_time).await;
                api_servers.look_first(&client, &input.events).await;
                let vanished = Notify::new();
                let (directors, counted) = watch::channel(0);
                let group = kubernetes::Group {
                    name: &identity.group,
                    me: &identity.name,
                    vanished: &vanished,
                    directors: &directors,
                };
                let sources = Sources {
                    observed,
                    directors: counted,
                    vanished: &vanished,
                    heartbeat: &outside.heartbeat,
                };
                let events = input.events;
                tokio::join!(
                    api_servers.watch(client.clone(), events.clone()),
                    kubernetes::watch(client.clone(), group, events.clone()),
                    leases::watch(
                        client.clone(),
                        &identity.lease_namespace,
                        outside.leases,
                        events
                    ),
                    publish::publish(client, &identity, sources),
                );
            });
        }
    }
}

/// Waits for a usable configuration, and returns a client of the API server.
/// Does not wait until the API server answers.
async fn connect(kubeconfig: Option<&std::path::Path>, api_time: &ApiTime) -> (Client, ApiServers) {
    let mut said = None;
    loop {
        let result = match kubeconfig {
            Some(path) => from_file(path).await,
            None => Config::infer().await.context(
                "no API server is configured: give --kubeconfig, or --manifests to run without one",
            ),
        };
        let client = result.and_then(|mut config| {
            set_timeouts(&mut config);
            let api_servers = ApiServers::of(&config, kubeconfig.is_none());
            let client = ClientBuilder::try_from(config).context("cannot use TLS")?;
            Ok((client.with_layer(&api_time.layer()).build(), api_servers))
        });
        match client {
            Ok(client) => return client,
            Err(error) => {
                let message = format!("{error:#}. Trying again");
                if said.as_ref() != Some(&message) {
                    tracing::error!("{message}");
                    said = Some(message);
                }
            }
        }
        time::sleep(RETRY).await;
    }
}

fn set_timeouts(config: &mut Config) {
    config.read_timeout = Some(ANSWER_TIME);
    // The time counts from the request, not from the last use of the
    // connection.
    config.reset_reader_on_write = true;
}

async fn from_file(path: &std::path::Path) -> anyhow::Result<Config> {
    let failed = || format!("cannot use the kubeconfig {}", path.display());
    let kubeconfig = Kubeconfig::read_from(path).with_context(failed)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(failed)
}

fn stop_on_signal(runtime: &tokio::runtime::Runtime, events: Sender<Event>) -> anyhow::Result<()> {
    let _inside = runtime.enter();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    runtime.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Sending `Stop` fails only if the loop has already ended by itself.
        events.send(Event::Stop).unwrap_or_default();
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use k8s_openapi::api::coordination::v1::Lease;
    use kube::{Api, api::WatchParams};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// What an API server sends before it falls silent for ever.
    const NOTHING: &str = "";
    const BEGUN: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                         transfer-encoding: chunked\r\n\r\n";

    /// Sends a request to an API server that falls silent. Returns how long the
    /// agent waits until it gives the connection up, by a clock that jumps.
    async fn patience(
        sends: &'static str,
        request: impl AsyncFnOnce(Api<Lease>) -> Option<kube::Error>,
    ) -> Duration {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut connection = listener.accept().await.unwrap().0;
            assert!(connection.read(&mut [0; 4096]).await.unwrap() > 0);
            connection.write_all(sends.as_bytes()).await.unwrap();
            time::pause();
            std::future::pending::<()>().await;
        });
        let mut config = Config::new(format!("http://{address}").parse().unwrap());
        set_timeouts(&mut config);
        let api = Api::default_namespaced(Client::try_from(config).unwrap());
        let began = time::Instant::now();
        let failed = time::timeout(10 * ANSWER_TIME, request(api)).await;
        let waited = began.elapsed();
        time::resume();
        failed.ok().flatten().expect("the agent notices it");
        waited
    }

    #[tokio::test]
    async fn a_dead_peer_is_noticed_within_a_minute_and_no_watch_is_cut_off() {
        let get = async |leases: Api<Lease>| leases.get("a").await.err();
        let watch = async |leases: Api<Lease>| {
            let parameters = WatchParams::default().timeout(kubernetes::SILENCE);
            let mut events = match leases.watch(&parameters, "1").await {
                Ok(events) => events.boxed(),
                Err(error) => return Some(error),
            };
            events.next().await.and_then(Result::err)
        };
        let watched = Duration::from_secs(kubernetes::SILENCE.into());
        for patience in [
            patience(NOTHING, get).await,
            patience(NOTHING, watch).await,
            patience(BEGUN, watch).await,
        ] {
            assert!(patience > watched, "a watch is silent for {watched:?}");
            assert!(patience <= Duration::from_secs(60), "{patience:?}");
        }
    }
}
