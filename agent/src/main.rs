//! Starts the node agent's process: its options, log and threads. The crate's
//! library docs describe the agent.

use std::{
    fs,
    io::IsTerminal,
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};

use agent::{
    args::{Args, Command, Output},
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
        api_time::ApiTime,
        connection::connect,
        kubernetes,
        leases::{self, Leases, Looks},
        links, manifests, reader,
    },
    probe::{self, target::Order},
    reach::Reach,
    tell::{
        local,
        publish::{self, Identity, Sources},
        report::Observed,
    },
    undo::{self, Undo},
};
use anyhow::Context;
use clap::{CommandFactory, Parser};
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
    match &args.command {
        Some(Command::Completion { shell }) => {
            let mut command = Args::command();
            clap_complete::generate(*shell, &mut command, "ipvs-agent", &mut std::io::stdout());
            return ExitCode::SUCCESS;
        }
        Some(Command::Check { folder, output }) => {
            return said(check(folder, &args.director_group, *output));
        }
        Some(Command::Status { output }) => return said(status(&args.state_dir, *output)),
        Some(Command::Undo { .. }) | None => {}
    }
    tracing_subscriber::fmt()
        .with_env_filter(&args.log)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_writer(std::io::stderr)
        .init();
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

/// Returns the exit code of a command that prints its result. Prints an error.
fn said(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("ipvs-agent: {error:#}");
        ExitCode::FAILURE
    })
}

/// Prints what the agent on this host sees.
fn status(state_dir: &Path, output: Output) -> anyhow::Result<ExitCode> {
    let answer = local::ask(state_dir).map_err(anyhow::Error::msg)?;
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&answer)?),
        Output::Text => print!("{}", answer.text(jiff::Timestamp::now())),
    }
    Ok(ExitCode::SUCCESS)
}

/// Checks a folder of manifests, and prints every mistake.
fn check(folder: &Path, group: &str, output: Output) -> anyhow::Result<ExitCode> {
    let checked = manifests::check(folder, group)
        .with_context(|| format!("cannot read the manifests in {}", folder.display()))?;
    match output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&checked)?),
        Output::Text => {
            for mistake in &checked.mistakes {
                println!("{mistake}");
            }
            eprintln!(
                "{}: {} objects, {} mistakes",
                folder.display(),
                checked.objects,
                checked.mistakes.len()
            );
        }
    }
    Ok(ExitCode::from(u8::from(!checked.mistakes.is_empty())))
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

/// Returns the id of the machine's current boot.
fn boot_id() -> anyhow::Result<String> {
    from_proc(BOOT_ID)
}

fn from_proc(path: &str) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().to_owned())
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
        kernel: from_proc(KERNEL_RELEASE)?,
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
        reach: Reach::default(),
    };
    let shown = local::Sources {
        name: identity.name.clone(),
        first: identity.first_status(),
        observed: observed.clone(),
        heartbeat: outside.heartbeat.clone(),
        reach: outside.reach.clone(),
    };
    let folder = args.state_dir.clone();
    runtime.spawn(async move { local::serve(&folder, shown).await });
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
