//! The program `ipvs-controller`: options, log, signals, and [`run::run`].

use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser as _};
use controller::{
    args::{Args, Command, LogFormat},
    leader::Candidate,
    run,
};
use crds::advice;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::info;

/// The time limit for opening a connection, and for each write to a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a request may wait for an answer. For a watch, each event counts as
/// an answer. So the limit is longer than the time for which a watch can be
/// silent ([`controller::watch::SILENCE`]).
const READ_TIMEOUT: Duration = Duration::from_secs(75);

#[tokio::main]
async fn main() -> ExitCode {
    match start(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ipvs-controller: {}", advice::with_sources(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn start(args: Args) -> Result<()> {
    if let Some(Command::Completion { shell }) = args.command {
        let mut command = Args::command();
        clap_complete::generate(
            shell,
            &mut command,
            "ipvs-controller",
            &mut std::io::stdout(),
        );
        return Ok(());
    }
    let log = tracing_subscriber::fmt()
        .with_env_filter(&args.log)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }

    let config = config(&args).await?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        api_server = %config.cluster_url,
        "the controller starts"
    );
    let client = Client::try_from(config).context("the kubeconfig cannot be used")?;
    let candidate = Candidate {
        namespace: args.lease_namespace.clone(),
        name: args.lease_name.clone(),
        identity: args.identity(),
    };
    run::run(client, candidate, args.upgrade_definitions, stop()?).await;
    Ok(())
}

async fn config(args: &Args) -> Result<Config> {
    let mut config = match &args.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)
                .with_context(|| format!("--kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("--kubeconfig {}", path.display()))?
        }
        None => Config::infer().await.context(
            "no API server is known: run in a pod with a service account, or give --kubeconfig FILE",
        )?,
    };
    set_timeouts(&mut config);
    Ok(config)
}

fn set_timeouts(config: &mut Config) {
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.write_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    // The read timeout counts from the request, not from the last use of the
    // connection.
    config.reset_reader_on_write = true;
}

/// Returns a channel whose value becomes true when the process must stop.
fn stop() -> Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping");
        stop.send_replace(true);
        stop.closed().await;
    });
    Ok(stopped)
}

#[cfg(test)]
mod tests {
    use controller::watch::SILENCE;

    use super::*;

    #[test]
    fn no_request_hangs_for_ever_and_no_watch_is_cut_off() {
        let mut config = Config::new("http://192.0.2.1".parse().unwrap());
        set_timeouts(&mut config);
        assert!(config.connect_timeout.is_some() && config.write_timeout.is_some());
        let answer = config.read_timeout.unwrap();
        assert!(answer > Duration::from_secs(u64::from(SILENCE) + 5));
        assert!(config.reset_reader_on_write);
    }
}
