//! The watches of a simulated director. They make the same requests as
//! `kube::runtime::watcher` in an agent, at the same times, but they decode as
//! little as possible.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use agent::input::kubernetes::SILENCE;
use anyhow::{Context, Result, bail};
use crds::api::{DirectorGroup, DirectorGroupMember, RealServer, VirtualService};
use futures::AsyncBufReadExt;
use kube::{
    Client, CustomResourceExt, Resource,
    api::{GetParams, ListParams, WatchParams},
    core::Request,
    runtime::watcher::DefaultBackoff,
};
use memchr::memmem;
use serde::Deserialize;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    table::GROUP,
    tally::Counts,
    world::{Kind, World},
};

/// The number of objects in one page of a listing: the watcher's default.
const PAGE: u32 = 500;
/// How much longer than a watch lasts the watcher waits for an event.
const IDLE: Duration = Duration::from_secs(SILENCE as u64 + 5);
/// The wait between a failure of a watch and a check of the cluster (`RECHECK`
/// in the agent's `input/origin.rs`).
const RECHECK: Duration = Duration::from_secs(10);
/// A line buffer that is larger than this is freed after the line.
const MOST_KEPT: usize = 256 << 10;

/// What the watches of one director share.
pub(super) struct Sight {
    pub(super) client: Client,
    pub(super) counts: Counts,
    pub(super) world: Arc<World>,
    /// Notified when the director's view of the world may have changed.
    pub(super) changed: Notify,
    /// The resourceVersions that the watches have reached, by kind.
    seen: [AtomicU64; Kind::ALL.len()],
}

impl Sight {
    /// Returns the sight of a director that has seen nothing.
    pub(super) fn new(client: Client, counts: Counts, world: Arc<World>) -> Self {
        Self {
            client,
            counts,
            world,
            changed: Notify::new(),
            seen: Default::default(),
        }
    }

    /// Returns the resourceVersion that the watch of a kind has reached.
    pub(super) fn seen(&self, kind: Kind) -> u64 {
        self.seen[kind as usize].load(Relaxed)
    }

    /// Records the resourceVersion that the watch of a kind has reached.
    pub(super) fn saw(&self, kind: Kind, version: u64) {
        self.seen[kind as usize].store(version, Relaxed);
    }
}

/// The objects that one watch asks for.
struct Watched {
    path: String,
    fields: Option<String>,
    /// The name of the kind's CustomResourceDefinition. `None` if the agent does
    /// not check where the kind's objects come from.
    definition: Option<&'static str>,
}

impl Watched {
    fn of(kind: Kind) -> Self {
        let of_group = Some(format!("spec.directorGroupName={GROUP}"));
        match kind {
            Kind::VirtualServices => Self {
                path: VirtualService::url_path(&(), None),
                fields: of_group,
                definition: Some(VirtualService::crd_name()),
            },
            Kind::RealServers => Self {
                path: RealServer::url_path(&(), None),
                fields: None,
                definition: Some(RealServer::crd_name()),
            },
            Kind::DirectorGroups => Self {
                path: DirectorGroup::url_path(&(), None),
                fields: Some(format!("metadata.name={GROUP}")),
                definition: Some(DirectorGroup::crd_name()),
            },
            Kind::Members => Self {
                path: DirectorGroupMember::url_path(&(), None),
                fields: of_group,
                definition: None,
            },
        }
    }

    fn request(&self) -> Request {
        Request::new(self.path.clone())
    }

    /// Asks for the current resourceVersion, as the agent does before a listing.
    async fn current(&self, client: &Client) -> Result<()> {
        let request = self
            .request()
            .list_metadata(&ListParams::default().limit(1))?;
        client.request_text(request).await?;
        Ok(())
    }

    /// Asks for the cluster and the CustomResourceDefinition, as the agent does
    /// after a listing.
    async fn origin(&self, client: &Client) -> Result<()> {
        let Some(definition) = self.definition else {
            return Ok(());
        };
        let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let parameters = GetParams::default();
        let namespaces = Request::new("/api/v1/namespaces");
        let namespace = namespaces.get_metadata("kube-system", &parameters)?;
        let definition = Request::new(definitions).get_metadata(definition, &parameters)?;
        let (namespace, definition) = tokio::join!(
            client.request_text(namespace),
            client.request_text(definition)
        );
        namespace?;
        definition?;
        Ok(())
    }

    /// Lists all objects, and returns the resourceVersion of the listing.
    async fn list(&self, client: &Client) -> Result<u64> {
        if self.definition.is_some() {
            // The agent lists even if this request fails.
            let _ = self.current(client).await;
        }
        let mut page = ListParams::default().limit(PAGE);
        page.field_selector.clone_from(&self.fields);
        loop {
            let text = client.request_text(self.request().list(&page)?).await?;
            let last = end_of_list(text.as_bytes())?;
            match last.r#continue.filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token),
                None => {
                    let version = last.resource_version.parse();
                    return version.context("the resourceVersion of a listing");
                }
            }
        }
    }
}

/// The metadata of a list. The API server writes it after the items of a list
/// of custom resources.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    #[serde(default)]
    r#continue: Option<String>,
    resource_version: String,
}

fn end_of_list(text: &[u8]) -> Result<ListMetadata> {
    const METADATA: &[u8] = br#""metadata":"#;
    let at = memmem::rfind(text, METADATA).context("a list has metadata")?;
    let mut read = serde_json::Deserializer::from_slice(&text[at + METADATA.len()..])
        .into_iter::<ListMetadata>();
    Ok(read.next().context("a list's metadata")??)
}

/// Returns the current resourceVersion of the objects of one kind.
pub(super) async fn current_version(client: &Client, kind: Kind) -> Result<u64> {
    let watched = Watched::of(kind);
    let page = ListParams::default().limit(1);
    let text = client.request_text(watched.request().list(&page)?).await?;
    let version = end_of_list(text.as_bytes())?.resource_version.parse();
    version.context("the resourceVersion of a listing")
}

/// Watches the objects of one kind without end, from the resourceVersion that
/// the director has seen.
pub(super) async fn follow(sight: &Sight, kind: Kind) {
    let watched = Watched::of(kind);
    let mut backoff = DefaultBackoff::default();
    let mut must_list = false;
    loop {
        let ended = match must_list {
            true => list(sight, kind, &watched)
                .await
                .map(|()| must_list = false),
            false => watch(sight, kind, &watched).await,
        };
        let Err(error) = ended else {
            continue;
        };
        if error.downcast_ref::<Gone>().is_some() {
            sight.counts.expire();
            must_list = true;
        }
        let recheck = async {
            if watched.definition.is_some() && !must_list {
                sleep(RECHECK).await;
                // A failed check is not repeated here.
                let _ = watched.origin(&sight.client).await;
                let _ = watched.current(&sight.client).await;
            }
            std::future::pending::<()>().await;
        };
        let again = async {
            sleep(backoff.next().unwrap_or(RECHECK)).await;
        };
        tokio::select! {
            () = again => {}
            () = recheck => {}
        }
    }
}

/// The API server no longer has the events after the watch's resourceVersion.
#[derive(Debug, thiserror::Error)]
#[error("the resourceVersion is too old")]
struct Gone;

async fn list(sight: &Sight, kind: Kind, watched: &Watched) -> Result<()> {
    let version = watched.list(&sight.client).await?;
    sight.saw(kind, version);
    sight.changed.notify_one();
    // The agent checks the origin again if this check fails.
    let _ = watched.origin(&sight.client).await;
    Ok(())
}

/// Opens a watch, and reads its events until the watch ends.
async fn watch(sight: &Sight, kind: Kind, watched: &Watched) -> Result<()> {
    let mut parameters = WatchParams::default().timeout(SILENCE);
    parameters.field_selector.clone_from(&watched.fields);
    let from = sight.seen(kind);
    let request = watched.request().watch(&parameters, &from.to_string())?;
    let stream = sight.client.request_stream(request).await;
    let mut stream = std::pin::pin!(stream.map_err(gone)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        line.shrink_to(MOST_KEPT);
        let read = timeout(IDLE, stream.read_until(b'\n', &mut line)).await;
        if read.context("the watch is silent")?? == 0 {
            return Ok(());
        }
        if line.starts_with(br#"{"type":"ERROR""#) {
            match memmem::find(&line, br#""code":410"#) {
                Some(_) => bail!(Gone),
                None => bail!("{}", String::from_utf8_lossy(&line)),
            }
        }
        let version = version(&line)?;
        let before = sight.seen(kind);
        if line.starts_with(br#"{"type":"BOOKMARK""#) {
            sight.saw(kind, version);
            continue;
        }
        sight.counts.event(line.len());
        let is_change = sight.world.see(kind, before, version, &line);
        sight.saw(kind, version);
        match is_change {
            Ok(true) => sight.changed.notify_one(),
            Ok(false) => {}
            Err(error) => eprintln!("fleet: an event that cannot be decoded: {error:#}"),
        }
    }
}

fn gone(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 410 => Gone.into(),
        error => error.into(),
    }
}

/// Finds the resourceVersion of an event's object. In the JSON of an object, no
/// other field has this name.
fn version(line: &[u8]) -> Result<u64> {
    const FIELD: &[u8] = br#""resourceVersion":""#;
    let at = memmem::find(line, FIELD).context("an event has a resourceVersion")?;
    let digits = &line[at + FIELD.len()..];
    let end = memchr::memchr(b'"', digits).context("a resourceVersion ends")?;
    let version = std::str::from_utf8(&digits[..end])?.parse();
    version.context("a resourceVersion is a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_an_event_is_found_without_decoding_it() {
        let line = br#"{"type":"MODIFIED","object":{"metadata":{"name":"a","resourceVersion":"417","uid":"b"}}}"#;
        assert_eq!(version(line).unwrap(), 417);
        assert!(version(b"{}").is_err());
    }

    #[test]
    fn a_list_ends_with_its_metadata() {
        let list = br#"{"items":[{"metadata":{"name":"a"}}],"metadata":{"continue":"x","resourceVersion":"9"}}"#;
        let end = end_of_list(list).unwrap();
        assert_eq!(end.r#continue.as_deref(), Some("x"));
        assert_eq!(end.resource_version, "9");
    }
}
