//! Connects to the API server.

use std::{path::Path, time::Duration};

use anyhow::Context;
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::time;

use super::{api_servers::ApiServers, api_time::ApiTime};
use crate::reach::Reach;

/// The pause before the agent looks for a usable configuration again.
const RETRY: Duration = Duration::from_secs(1);
/// The maximum wait for data from the API server, for example during a listing.
/// This time is longer than a watch lasts ([`super::kubernetes::SILENCE`]). So within a
/// minute, the agent notices that a connection is dead.
const ANSWER_TIME: Duration = Duration::from_secs(58);

/// Waits for a usable configuration, and returns a client of the API server.
/// Does not wait until the API server answers.
pub async fn connect(
    kubeconfig: Option<&Path>,
    api_time: &ApiTime,
    reach: &Reach,
) -> (Client, ApiServers) {
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
            reach.is_at(config.cluster_url.to_string());
            let client = ClientBuilder::try_from(config).context("cannot use TLS")?;
            let client = client.with_layer(&api_time.layer());
            Ok((client.with_layer(&reach.layer()).build(), api_servers))
        });
        match client {
            Ok(client) => return client,
            Err(error) => {
                reach.failed(format!("{error:#}"));
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

/// Returns a client of the API server that a kubeconfig file names. Does not
/// wait until the API server answers.
///
/// # Errors
/// Returns an error if the file cannot be used.
pub async fn client_of(kubeconfig: &Path) -> anyhow::Result<Client> {
    let mut config = from_file(kubeconfig).await?;
    set_timeouts(&mut config);
    Client::try_from(config).context("cannot use TLS")
}

/// Sets how long a client waits for the API server, so that it notices a dead
/// connection within a minute.
pub fn set_timeouts(config: &mut Config) {
    config.read_timeout = Some(ANSWER_TIME);
    // The time counts from the request, not from the last use of the
    // connection.
    config.reset_reader_on_write = true;
}

async fn from_file(path: &Path) -> anyhow::Result<Config> {
    let failed = || format!("cannot use the kubeconfig {}", path.display());
    let kubeconfig = Kubeconfig::read_from(path).with_context(failed)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(failed)
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
    use crate::input::kubernetes::SILENCE;

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
            let parameters = WatchParams::default().timeout(SILENCE);
            let mut events = match leases.watch(&parameters, "1").await {
                Ok(events) => events.boxed(),
                Err(error) => return Some(error),
            };
            events.next().await.and_then(Result::err)
        };
        let watched = Duration::from_secs(SILENCE.into());
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
