//! Starts the node agent's process: its options, log and threads. The crate's
//! library docs describe the agent.

mod commands;

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
    args::{Args, Command, LogFormat},
    claim::{self, ClaimsThread},
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
        api_time::ApiTime,
        connection::{client_of, connect},
        kubernetes,
        leases::{self, Leases, Looks},
        links, manifests,
        reader::{self, Followed},
    },
    probe::{self, target::Order},
    reach::Reach,
    tell::{
        health::{self, Pulse},
        local,
        publish::{self, Identity, Sources},
        report::Observed,
    },
    trail::{Trail, writer::Writer},
    undo::{self, Undo},
};
use anyhow::Context;
use clap::Parser;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{
        Notify,
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        watch,
    },
};

/// During a start or a new listing, the agent needs twice its usual memory.
/// Afterwards, mimalloc returns the extra memory to the system. The C library's
/// allocator would keep the extra memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The file with the machine's boot id, which changes whenever the machine
/// boots (`Documentation/admin-guide/sysctl/kernel.rst`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const KERNEL_RELEASE: &str = "/proc/sys/kernel/osrelease";
/// While the agent waits for the lock at its start, it tries again at this
/// interval.
const RETRY: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(printed) = commands::print(&args) {
        return printed.unwrap_or_else(|error| {
            eprintln!("ipvs-agent: {error:#}");
            ExitCode::FAILURE
        });
    }
    start_log(&args);
    let result = match &args.command {
        Some(Command::Undo { wait }) => take_out_of_service(&args, *wait),
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

/// Starts the log, which goes to the standard error.
fn start_log(args: &Args) {
    let log = tracing_subscriber::fmt()
        .with_env_filter(&args.log)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

fn take_out_of_service(args: &Args, wait_seconds: u32) -> anyhow::Result<()> {
    let undo = Undo {
        state_dir: &args.state_dir,
        sysctl_dir: &args.sysctl_dir,
        boot_id: &boot_id()?,
        wait: Duration::from_secs(wait_seconds.into()),
    };
    undo::undo(&undo, &mut |line| println!("{line}"))?;
    let Some(kubeconfig) = &args.kubeconfig else {
        println!(
            "the cluster learns of it within a minute, when the Lease of this director expires; \
             with --kubeconfig, this command tells it at once"
        );
        return Ok(());
    };
    let name = node_name(args)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let reported = runtime.block_on(async {
        let client = client_of(kubeconfig).await?;
        let reported = publish::undone::report(client, &name).await;
        reported.map_err(anyhow::Error::msg)
    });
    match reported {
        Ok(true) => println!("the Director {name} says that it is out of service (Undone)"),
        Ok(false) => println!("the cluster has no Director {name}"),
        // This host is out of service, so the command has succeeded.
        Err(error) => println!(
            "cannot tell the cluster: {error:#}. It learns of it within a minute, when the Lease \
             of this director expires"
        ),
    }
    Ok(())
}

/// Returns the id of the machine's current boot.
fn boot_id() -> anyhow::Result<String> {
    from_proc(BOOT_ID)
}

/// Returns the versions of the kernel and of its IPVS, such as `6.1.0, ip_vs
/// 1.2.1`. Without IPVS, returns the version of the kernel alone.
fn kernel() -> anyhow::Result<String> {
    let release = from_proc(KERNEL_RELEASE)?;
    let info = ipvs::Socket::open().and_then(|mut socket| ipvs::Kernel::info(&mut socket));
    Ok(match info {
        Ok(info) => {
            let (major, minor, patch) = info.version;
            format!("{release}, ip_vs {major}.{minor}.{patch}")
        }
        // The loop reports what is missing.
        Err(_) => release,
    })
}

fn from_proc(path: &str) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().to_owned())
}

fn run(args: &Args) -> anyhow::Result<()> {
    let name = node_name(args)?;
    let boot_id = boot_id()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let (events, heard) = mpsc::channel();
    let (observe, observed) = watch::channel(None);

    let pulse = Pulse::default();
    if let Some(path) = &args.health_socket {
        let runtime = runtime.enter();
        let served = health::serve(path, pulse.clone());
        let served = served.with_context(|| format!("cannot create {}", path.display()))?;
        tokio::spawn(served);
        drop(runtime);
    }
    stop_on_signal(&runtime, events.clone())?;
    let Some(lock) = wait_for_lock(&heard) else {
        return Ok(());
    };
    let kernel = kernel()?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        kernel,
        group = args.director_group,
        state_dir = %args.state_dir.display(),
        "director {name} starts"
    );
    let identity = Identity {
        name: name.clone(),
        group: args.director_group.clone(),
        boot_id: boot_id.clone(),
        kernel,
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
    let leases = args.manifests.is_none().then_some(leases);
    let (trail, historian) =
        Writer::start(&args.state_dir).context("cannot start the thread of the history")?;
    let claims =
        claim::start(links.clone()).context("cannot start the thread that claims addresses")?;
    let edges = Edges {
        orders,
        claims,
        leases,
        trail,
        pulse: pulse.clone(),
    };
    let world = world(args, boot_id, api_time.clone(), edges);
    let outside = Outside {
        api_time,
        leases: leases_asked,
        heartbeat: world.heartbeat.clone(),
        reach: Reach::default(),
    };
    let shown = local::Sources {
        name: identity.name.clone(),
        first: identity.first_status(),
        observed: observed.clone(),
        heartbeat: outside.heartbeat.clone(),
        book: historian.book.clone(),
        reach: outside.reach.clone(),
    };
    let folder = args.state_dir.clone();
    runtime.spawn(async move { local::serve(&folder, shown).await });
    start_input(args, identity, &runtime, input, observed, outside);
    let followed = world.followed.clone();
    thread::Builder::new()
        .name("reader".to_owned())
        .spawn(move || reader::watch(&readings, &followed))
        .context("cannot start the reader's thread")?;
    probe::start(ordered, probed, Arc::default(), world.prober.clone())
        .context("cannot start the prober's thread")?;
    links::start(links).context("cannot start the thread that watches interfaces")?;
    pulse.starts(world.heartbeat.clone());
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
    historian.finish();
    runtime.shutdown_background();
    drop(lock);
    anyhow::ensure!(ended.is_ok(), "the director's thread failed");
    tracing::info!("stopped; the kernel's table and the addresses stay as they are");
    Ok(())
}

/// Returns the name of this director.
fn node_name(args: &Args) -> anyhow::Result<String> {
    if let Some(name) = &args.node_name {
        return Ok(name.clone());
    }
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

/// The loop's ends of the channels to other threads.
struct Edges {
    orders: UnboundedSender<Order>,
    claims: ClaimsThread,
    leases: Option<UnboundedSender<Looks>>,
    trail: Trail,
    pulse: Pulse,
}

fn world(args: &Args, boot_id: String, api_time: ApiTime, edges: Edges) -> World {
    let Edges {
        orders,
        claims,
        leases,
        trail,
        pulse,
    } = edges;
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
        followed: Followed::default(),
        daytime: match args.manifests {
            Some(_) => Box::new(local_daytime),
            None => Box::new(move || api_time.daytime()),
        },
        orders,
        trail,
        pulse,
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
    /// Whether the API server answers.
    reach: Reach,
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
                    connect(kubeconfig.as_deref(), &outside.api_time, &outside.reach).await;
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
