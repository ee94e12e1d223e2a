//! Counts the requests of the fleet's clients.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, combinators::MapFrame};
use hyper::{
    Method, Request, Response,
    body::{Body as HttpBody, Bytes, Frame},
};
use tower::{Layer, Service};

/// The kinds of requests that an agent makes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Call {
    /// One page of a listing.
    List,
    /// The start of a watch.
    Watch,
    /// The reading of one object.
    Get,
    /// The renewal of a Lease.
    Lease,
    /// A patch of a Director's status.
    Status,
    /// A patch of a DirectorGroupMember.
    Member,
    /// Any other request: the creation of a Director.
    Other,
}

/// The number of kinds of requests.
const CALLS: usize = 7;

impl Call {
    pub(super) const ALL: [Self; CALLS] = [
        Self::List,
        Self::Watch,
        Self::Get,
        Self::Lease,
        Self::Status,
        Self::Member,
        Self::Other,
    ];

    /// The name of this kind of request in the bench's output.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Watch => "watch",
            Self::Get => "get",
            Self::Lease => "lease",
            Self::Status => "status",
            Self::Member => "member",
            Self::Other => "other",
        }
    }

    fn of<B>(request: &Request<B>) -> Self {
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or_default();
        match *request.method() {
            Method::GET if query.contains("watch=true") => Self::Watch,
            Method::GET if query.is_empty() => Self::Get,
            Method::GET => Self::List,
            _ if path.contains("/leases/") => Self::Lease,
            _ if path.ends_with("/status") => Self::Status,
            _ if path.contains("/directorgroupmembers/") => Self::Member,
            _ => Self::Other,
        }
    }
}

/// The requests of all clients together. All clones share the same counts.
#[derive(Clone, Debug)]
pub(super) struct Tally(Arc<All>);

#[derive(Debug)]
struct All {
    start: Instant,
    accepted: [AtomicU64; CALLS],
    refused: AtomicU64,
    bytes: AtomicU64,
    seconds: Mutex<Vec<Second>>,
}

/// The answers that arrived within one second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Second {
    /// The number of answers, by kind of request in the order of [`Call::ALL`].
    pub(super) answered: [u32; CALLS],
    /// The number of answers that are refusals: 429 and 5xx.
    pub(super) refused: u32,
    /// The number of requests that failed without an answer.
    pub(super) failed: u32,
}

impl Second {
    /// The number of all answers.
    pub(super) fn total(&self) -> u32 {
        self.answered.iter().sum()
    }
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    accepted: [u64; CALLS],
    /// The number of requests that the API server refused because it was busy:
    /// 429 and 5xx.
    pub(super) refused: u64,
    /// The bytes of all answers' bodies, watches included.
    pub(super) bytes: u64,
}

impl Reading {
    /// The number of accepted requests of one kind.
    pub(super) fn of(&self, call: Call) -> u64 {
        self.accepted[call as usize]
    }

    /// The counts since an earlier reading.
    pub(super) fn since(mut self, before: &Self) -> Self {
        for (now, before) in self.accepted.iter_mut().zip(before.accepted) {
            *now -= before;
        }
        self.refused -= before.refused;
        self.bytes -= before.bytes;
        self
    }
}

impl Tally {
    pub(super) fn new() -> Self {
        Self(Arc::new(All {
            start: Instant::now(),
            accepted: Default::default(),
            refused: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            seconds: Mutex::default(),
        }))
    }

    /// Returns the counts so far.
    pub(super) fn read(&self) -> Reading {
        Reading {
            accepted: std::array::from_fn(|call| self.0.accepted[call].load(Relaxed)),
            refused: self.0.refused.load(Relaxed),
            bytes: self.0.bytes.load(Relaxed),
        }
    }

    /// Returns the answers of each second since `from`.
    pub(super) fn seconds(&self, from: Instant) -> Vec<Second> {
        let first = from.saturating_duration_since(self.0.start).as_secs() as usize;
        let seconds = self
            .0
            .seconds
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        seconds.get(first..).unwrap_or_default().to_vec()
    }

    /// Returns a layer for a client. The layer counts the client's requests here
    /// and in `counts`.
    pub(super) fn layer(&self, counts: &Counts) -> CountingLayer {
        CountingLayer {
            tally: self.clone(),
            counts: counts.clone(),
        }
    }

    fn record(&self, call: Call, status: Option<u16>) {
        let all = &*self.0;
        let second = all.start.elapsed().as_secs() as usize;
        let mut seconds = all.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        if seconds.len() <= second {
            seconds.resize(second + 1, Second::default());
        }
        let second = &mut seconds[second];
        match status {
            None => second.failed += 1,
            Some(status) => {
                second.answered[call as usize] += 1;
                if status < 300 {
                    all.accepted[call as usize].fetch_add(1, Relaxed);
                }
                if status == 429 || status >= 500 {
                    second.refused += 1;
                    all.refused.fetch_add(1, Relaxed);
                }
            }
        }
    }
}

/// The counts of one director. All clones share the same counts.
#[derive(Clone, Debug)]
pub(super) struct Counts(Arc<Own>);

#[derive(Debug)]
struct Own {
    start: Instant,
    statuses: AtomicU64,
    last_status: AtomicU64,
    events: AtomicU64,
    event_bytes: AtomicU64,
    expired: AtomicU64,
}

impl Counts {
    pub(super) fn new() -> Self {
        Self(Arc::new(Own {
            start: Instant::now(),
            statuses: AtomicU64::new(0),
            last_status: AtomicU64::new(0),
            events: AtomicU64::new(0),
            event_bytes: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        }))
    }

    /// The number of status patches that the API server accepted.
    pub(super) fn statuses(&self) -> u64 {
        self.0.statuses.load(Relaxed)
    }

    /// When the API server answered the director's last status patch.
    pub(super) fn last_status(&self) -> Instant {
        self.0.start + Duration::from_micros(self.0.last_status.load(Relaxed))
    }

    /// The number of watch events, without bookmarks.
    pub(super) fn events(&self) -> u64 {
        self.0.events.load(Relaxed)
    }

    /// The bytes of the watch events, without bookmarks.
    pub(super) fn event_bytes(&self) -> u64 {
        self.0.event_bytes.load(Relaxed)
    }

    /// Counts a watch event of this many bytes.
    pub(super) fn event(&self, bytes: usize) {
        self.0.events.fetch_add(1, Relaxed);
        self.0.event_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// The number of watches that had to list again, because the API server no
    /// longer had the events after their resourceVersion.
    pub(super) fn expired(&self) -> u64 {
        self.0.expired.load(Relaxed)
    }

    /// Counts a watch that must list again.
    pub(super) fn expire(&self) {
        self.0.expired.fetch_add(1, Relaxed);
    }

    fn status_written(&self) {
        let now = self.0.start.elapsed().as_micros();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        self.0.last_status.store(now, Relaxed);
        self.0.statuses.fetch_add(1, Relaxed);
    }
}

/// Wraps a client's service into a [`Counting`].
#[derive(Clone)]
pub(super) struct CountingLayer {
    tally: Tally,
    counts: Counts,
}

impl<S> Layer<S> for CountingLayer {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting {
            inner,
            tally: self.tally.clone(),
            counts: self.counts.clone(),
        }
    }
}

/// A service that counts the requests and the bytes of the answers.
#[derive(Clone)]
pub(super) struct Counting<S> {
    inner: S,
    tally: Tally,
    counts: Counts,
}

/// Passes on a part of an answer's body, after it was counted.
type Count = Box<dyn FnMut(Frame<Bytes>) -> Frame<Bytes> + Send>;

impl<S, A, B> Service<Request<A>> for Counting<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes>,
{
    type Response = Response<MapFrame<B, Count>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let call = Call::of(&request);
        let answer = self.inner.call(request);
        let (tally, counts) = (self.tally.clone(), self.counts.clone());
        Box::pin(async move {
            let answer = answer.await;
            let status = answer.as_ref().ok().map(|answer| answer.status());
            tally.record(call, status.map(|status| status.as_u16()));
            if call == Call::Status && status.is_some_and(|status| status.is_success()) {
                counts.status_written();
            }
            let count: Count = Box::new(move |frame| {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                tally.0.bytes.fetch_add(bytes, Relaxed);
                frame
            });
            Ok(answer?.map(|body| body.map_frame(count)))
        })
    }
}
