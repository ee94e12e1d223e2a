//! Tests a VirtualService's field `availability`. The field decides how clients
//! are served when too few healthy servers are left or when a server comes
//! back.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use crds::api::ServiceBelowMinimum;
use e2e::{
    Asking, Weights,
    cluster::{Cluster, PATIENCE, start_agent, wait_for, wait_until_ready},
    eventually,
    fault::{Behaviour, FaultServer},
    kubectl_apply,
};

use crate::farm::{CHECK, Farm, VIP, health, page, service, wait_for_healthy};

const DOWN: Behaviour = Behaviour::Error(500);

#[test]
fn below_the_minimum_every_server_serves_as_if_it_were_healthy() {
    let (_cluster, farm) = start(3, 1, "{minimumHealthy: 2}");
    let _agent = start_agent(&farm.course.director, "director1");
    let scene = Scene::begin(&farm);

    farm.servers[0].behave(DOWN);
    scene.expect_pages(&[1, 2]);
    farm.servers[1].behave(DOWN);
    scene.expect_pages(&[0, 1, 2]);
    scene.expect_below("FailOpen", 1, 3, 2);
    wait_for("ivs/web", "Ready", "False");

    farm.servers[0].behave(Behaviour::Good);
    scene.expect_pages(&[0, 2]);
    wait_until_ready(&["web"]);
    scene.expect_none_failed();
}

#[test]
fn with_no_healthy_server_all_serve_unless_told_otherwise() {
    let (_cluster, farm) = start(2, 1, "{onFailure: Remove}");
    let _agent = start_agent(&farm.course.director, "director1");
    let scene = Scene::begin(&farm);
    for server in &farm.servers {
        server.behave(DOWN);
    }
    scene.expect_below("FailOpen", 0, 2, 1);
    // From now until the servers recover, no request may fail. Before now, or
    // after the servers have recovered, the agent may remove a server for a
    // moment. The removal ends the server's connections.
    let in_force = Instant::now();
    scene.expect_pages(&[0, 1]);
    scene.expect_none_failed_since(in_force);
    for server in &farm.servers {
        server.behave(Behaviour::Good);
    }
    wait_until_ready(&["web"]);
    scene.expect_pages(&[0, 1]);
}

#[test]
fn below_the_minimum_clients_get_the_sorry_server() {
    let sorry = "{minimumHealthy: 2, belowMinimum: {action: SorryServer, sorryServer: \
                 {address: 192.168.2.201, port: 8000, forwarding: {method: NAT}}}}";
    let (_cluster, farm) = start(2, 1, sorry);
    let host = farm.course.another_server("sorry", "192.168.2.201");
    let _sorry = FaultServer::start(&host, "0.0.0.0:8000", "sorry");
    let _agent = start_agent(&farm.course.director, "director1");
    let scene = Scene::begin(&farm);

    farm.servers[0].behave(DOWN);
    scene.expect_exactly(&["sorry".to_owned()]);
    scene.expect_below("SorryServer", 1, 2, 2);
    wait_for("ivs/web", "Ready", "False");
    farm.servers[0].behave(Behaviour::Good);
    scene.expect_pages(&[0, 1]);
    let sorry = (VIP, "192.168.2.201:8000");
    scene.weights.wait_for(sorry, Some(0), PATIENCE);
    scene.weights.wait_for(sorry, None, PATIENCE);
    wait_until_ready(&["web"]);
    scene.expect_none_failed();
}

#[test]
fn below_the_minimum_clients_are_refused() {
    let (_cluster, farm) = start(2, 1, "{minimumHealthy: 2, belowMinimum: {action: Reject}}");
    let _agent = start_agent(&farm.course.director, "director1");
    let scene = Scene::begin(&farm);

    farm.servers[0].behave(DOWN);
    scene.expect_below("Reject", 1, 2, 2);
    for index in 0..2 {
        let address = farm.address(index);
        scene.weights.wait_for((VIP, &address), Some(0), PATIENCE);
    }
    let refused = Instant::now();
    eventually("a client to be refused", PATIENCE, || {
        let counts = scene.asking.counts(refused);
        match counts.keys().any(|key| key.contains("refused")) {
            true => Ok(()),
            false => Err(format!("{counts:?}")),
        }
    });
    let served = scene.asking.counts(refused);
    let served: Vec<_> = served
        .keys()
        .filter(|key| !key.starts_with("failed"))
        .collect();
    assert!(served.is_empty(), "clients were served: {served:?}");

    farm.servers[0].behave(Behaviour::Good);
    scene.expect_pages(&[0, 1]);
    wait_until_ready(&["web"]);
}

#[test]
fn a_service_below_its_minimum_is_so_until_it_has_more_than_that_again() {
    let (_cluster, farm) = start(
        4,
        1,
        "{minimumHealthy: 2, recoverAbove: 2, belowMinimum: {action: FailOpen}}",
    );
    let _agent = start_agent(&farm.course.director, "director1");
    let scene = Scene::begin(&farm);

    for index in [0, 1] {
        farm.servers[index].behave(DOWN);
    }
    scene.expect_pages(&[2, 3]);
    farm.servers[2].behave(DOWN);
    scene.expect_pages(&[0, 1, 2, 3]);
    scene.expect_below("FailOpen", 1, 4, 2);

    // The fallback ends only with more than two healthy servers, because
    // `recoverAbove` is 2.
    farm.servers[2].behave(Behaviour::Good);
    wait_for_healthy(2, 4);
    scene.expect_below("FailOpen", 2, 4, 2);
    scene.expect_pages(&[0, 1, 2, 3]);
    farm.servers[1].behave(Behaviour::Good);
    wait_for_healthy(3, 4);
    scene.expect_pages(&[1, 2, 3]);

    // The fallback begins again only when fewer than two servers are healthy.
    farm.servers[1].behave(DOWN);
    wait_for_healthy(2, 4);
    scene.expect_pages(&[2, 3]);
    assert!(health().below_minimum.is_empty());
    scene.expect_none_failed();
}

#[test]
fn a_server_that_comes_back_starts_slowly() {
    const SLOW: Duration = Duration::from_secs(20);
    const FULL: u32 = 100;
    let (_cluster, farm) = start(
        2,
        FULL,
        &format!("{{slowStartSeconds: {}}}", SLOW.as_secs()),
    );
    let _agent = start_agent(&farm.course.director, "director1");
    wait_until_ready(&["web"]);
    let scene = Scene::begin(&farm);
    let address = farm.address(0);
    for index in 0..2 {
        let address = farm.address(index);
        scene
            .weights
            .wait_for((VIP, &address), Some(FULL), PATIENCE);
    }

    farm.servers[0].behave(DOWN);
    let out = scene.weights.wait_for((VIP, &address), Some(0), PATIENCE);
    farm.servers[0].behave(Behaviour::Good);
    scene
        .weights
        .wait_for((VIP, &address), Some(FULL), PATIENCE);
    let steps: Vec<_> = scene
        .weights
        .changes(out)
        .into_iter()
        .filter(|change| change.key.1 == address && change.weight != Some(0))
        .collect();
    let weights: Vec<_> = steps.iter().filter_map(|step| step.weight).collect();
    println!("the weights of the returning server were {weights:?}");
    assert!(
        weights.is_sorted(),
        "the weight must only grow: {weights:?}"
    );
    assert!(
        (3..=10).contains(&weights.len()),
        "the weight must grow in 3 to 10 steps: {weights:?}"
    );
    assert!(
        weights[0] > 0 && weights[0] <= FULL / 5,
        "the first weight must be small: {weights:?}"
    );

    // At the time `half`, the returning server first has more than half of its
    // full weight. Before `half`, the returning server must get less than half
    // as many requests as the other server.
    let half = steps.iter().find(|step| step.weight > Some(FULL / 2));
    let half = half.expect("the server got its full weight").at;
    let asked = scene.asking.so_far();
    let early = asked
        .iter()
        .filter(|asked| (steps[0].at..half).contains(&asked.at))
        .filter_map(|asked| asked.outcome.as_ref().ok());
    let (own, others): (Vec<_>, Vec<_>) = early.partition(|answered| **answered == page(0));
    println!(
        "{} requests, and {} to the other server",
        own.len(),
        others.len()
    );
    assert!(
        2 * own.len() < others.len(),
        "{} and {}",
        own.len(),
        others.len()
    );
    scene.expect_none_failed();
}

/// Starts a farm of `size` servers with the given weight and `availability`.
fn start(size: usize, weight: u32, availability: &str) -> (Cluster, Farm) {
    let cluster = Cluster::start();
    let farm = Farm::new(size);
    kubectl_apply(&farm.real_servers(weight));
    let service = service(&format!("{CHECK}\n  availability: {availability}"));
    kubectl_apply(&service.replace("scheduler: rr", "scheduler: wrr"));
    (cluster, farm)
}

/// A client that sends requests continuously, and a watch on the servers'
/// weights. The client and the watch start when all servers are healthy.
struct Scene {
    asking: Asking,
    weights: Weights,
    begun: Instant,
}

impl Scene {
    #[track_caller]
    fn begin(farm: &Farm) -> Self {
        wait_until_ready(&["web"]);
        wait_for_healthy(farm.servers.len(), farm.servers.len());
        Self {
            asking: Asking::pages(&farm.course.browser(), VIP),
            weights: Weights::watch(&farm.course.director),
            begun: Instant::now(),
        }
    }

    /// Waits until clients get the pages of all servers in `servers`, and of no
    /// other server.
    #[track_caller]
    fn expect_pages(&self, servers: &[usize]) {
        let pages: Vec<_> = servers.iter().map(|&index| page(index)).collect();
        self.expect_exactly(&pages);
    }

    #[track_caller]
    fn expect_exactly(&self, pages: &[String]) {
        let expected: BTreeSet<_> = pages.iter().cloned().collect();
        eventually(&format!("pages of {expected:?}"), PATIENCE, || {
            let since = Instant::now();
            self.asking.wait_for_more(5 * pages.len().max(2));
            let found: BTreeSet<_> = self.asking.counts(since).into_keys().collect();
            match found == expected {
                true => Ok(()),
                false => Err(format!("{found:?}, weights {:?}", self.weights.now())),
            }
        });
    }

    /// Waits until the Director reports that the service `web` has too few
    /// healthy servers, with the given action and numbers.
    #[track_caller]
    fn expect_below(&self, action: &str, healthy: i32, total: i32, minimum: i32) {
        let what = format!("{action} with {healthy} of {total} servers healthy");
        eventually(&what, PATIENCE, || {
            let health = health();
            let expected = |below: &ServiceBelowMinimum| {
                below.virtual_service.to_string() == "default/web"
                    && below.action == action
                    && (below.healthy, below.total, below.minimum) == (healthy, total, minimum)
            };
            match &*health.below_minimum {
                [below] if expected(below) => Ok(()),
                _ => Err(format!("{health:#?}")),
            }
        });
    }

    #[track_caller]
    fn expect_none_failed(&self) {
        self.expect_none_failed_since(self.begun);
    }

    #[track_caller]
    fn expect_none_failed_since(&self, begun: Instant) {
        let failed = self.asking.failed(begun);
        assert!(failed.is_empty(), "no request may fail: {failed:#?}");
    }
}
