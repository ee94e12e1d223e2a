use std::time::Duration;

use crds::{ObjectKey, api::VirtualServiceStatus, condition};
use k8s_openapi::{
    api::coordination::v1::Lease, apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp,
};
use kube::runtime::watcher;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    aggregate::Wanted,
    event::{Event, ObservedDirector},
    liveness::Time,
    waits::Moment,
    world::World,
};

pub(super) const START: Time = Duration::from_secs(1);

pub(super) const MOMENT: Moment = moment(START);

/// Returns a time that has the same seconds by both clocks.
pub(super) const fn moment(now: Time) -> Moment {
    Moment {
        now,
        clock: Timestamp::constant(now.as_secs() as i64, 0),
    }
}

pub(super) const REFUSED: &str = "connection refused";

/// A world in which VirtualService shop/web has VIP 10.0.0.1 and two servers,
/// in the group default. A director's report uses the objects that exist when
/// the report is made.
pub(super) struct Scene {
    pub(super) world: World,
    pub(super) now: Time,
    version: u64,
}

impl Scene {
    pub(super) fn new() -> Self {
        let mut scene = Self {
            world: World::default(),
            now: START,
            version: 0,
        };
        for event in [
            Event::VirtualServices(watcher::Event::Init),
            Event::VirtualServices(watcher::Event::InitDone),
            Event::RealServers(watcher::Event::Init),
            Event::RealServers(watcher::Event::InitDone),
            Event::DirectorGroups(watcher::Event::Init),
            Event::DirectorGroups(watcher::Event::InitDone),
            Event::Directors(watcher::Event::Init),
            Event::Directors(watcher::Event::InitDone),
            Event::Leases(watcher::Event::Init),
            Event::Leases(watcher::Event::InitDone),
            Event::DirectorLeases(watcher::Event::Init),
            Event::DirectorLeases(watcher::Event::InitDone),
        ] {
            scene.world.apply(event, START);
        }
        scene.group(json!({}));
        scene.service(json!({}));
        scene.server("a", json!({"address": "10.1.0.1"}));
        scene.server("b", json!({"address": "10.1.0.2"}));
        scene
    }

    fn object(&mut self, namespace: Option<&str>, name: &str, spec: Value) -> Value {
        self.version += 1;
        let mut object = json!({
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": format!("uid-{name}"),
                "generation": self.version,
                "labels": {"app": "web"},
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
        });
        object["spec"] = spec;
        object
    }

    pub(super) fn service(&mut self, changes: Value) {
        self.named_service("web", changes);
    }

    pub(super) fn named_service(&mut self, name: &str, changes: Value) {
        let mut spec = json!({
            "vip": {"address": "10.0.0.1", "port": 80},
            "forwarding": {"method": "NAT"},
            "realServerSelector": {"matchLabels": {"app": "web"}},
            "directorGroupName": "default",
        });
        merge(&mut spec, changes);
        let object = self.object(Some("shop"), name, spec);
        let event = watcher::Event::Apply(parsed(&object));
        self.world.apply(Event::VirtualServices(event), self.now);
    }

    pub(super) fn server(&mut self, name: &str, spec: Value) {
        let object = self.object(Some("shop"), name, spec);
        let event = watcher::Event::Apply(parsed(&object));
        self.world.apply(Event::RealServers(event), self.now);
    }

    pub(super) fn delete_server(&mut self, name: &str) {
        let object = self.object(Some("shop"), name, json!({"address": "10.1.0.1"}));
        let event = watcher::Event::Delete(parsed(&object));
        self.world.apply(Event::RealServers(event), self.now);
    }

    /// Sets the group's spec. The group grants every VIP and every firewall
    /// mark.
    pub(super) fn group(&mut self, mut spec: Value) {
        spec["addressPools"] = json!([{"name": "all", "cidrs": ["0.0.0.0/0", "::/0"]}]);
        spec["firewallMarks"] = json!([{"name": "all", "first": 1, "last": u32::MAX}]);
        let object = self.object(None, "default", spec);
        let event = watcher::Event::Apply(parsed(&object));
        self.world.apply(Event::DirectorGroups(event), self.now);
    }

    pub(super) fn delete_group(&mut self) {
        let object = self.object(None, "default", json!({}));
        let event = watcher::Event::Delete(parsed(&object));
        self.world.apply(Event::DirectorGroups(event), self.now);
    }

    /// Delivers a report of `director`: the director holds 10.0.0.1, and its
    /// last round used the current objects. `changes` replace fields of the
    /// reported status.
    pub(super) fn report(&mut self, director: &str, changes: Value) {
        let mut status = json!({
            "directorGroupName": "default",
            "used": self.world.objects().digests("default"),
            "vips": [{"address": "10.0.0.1", "interface": "eth0"}],
        });
        merge(&mut status, changes);
        let object: ObservedDirector = parsed(&json!({
            "metadata": {"name": director, "uid": director, "generation": 1},
            "spec": {},
            "status": status,
        }));
        self.world
            .apply(Event::Directors(watcher::Event::Apply(object)), self.now);
        self.renew(director);
    }

    /// Lets the Leases of all directors expire, except those of `survivors`.
    pub(super) fn let_die(&mut self, survivors: &[&str]) {
        for _ in 0..5 {
            self.now += Duration::from_secs(10);
            self.renew("other");
            for survivor in survivors {
                self.renew(survivor);
            }
        }
    }

    /// Renews a director's Lease. Returns the result of [`World::apply`] for
    /// the renewal.
    pub(super) fn renew(&mut self, director: &str) -> bool {
        self.version += 1;
        let renewed = format!("2026-01-01T00:00:00.{:06}Z", self.version);
        let lease: Lease = parsed(&json!({
            "metadata": {"name": director},
            "spec": {"leaseDurationSeconds": 40, "renewTime": renewed},
        }));
        self.world
            .apply(Event::Leases(watcher::Event::Apply(lease)), self.now)
    }

    pub(super) fn wanted(&mut self) -> Wanted {
        self.world.resolve();
        self.world.wanted(self.now)
    }

    pub(super) fn status(&mut self) -> VirtualServiceStatus {
        self.wanted().virtual_services[&ObjectKey::new("shop", "web")].clone()
    }

    /// Returns a condition of shop/web, as `Status/Reason: message`.
    pub(super) fn says(&mut self, kind: &str) -> String {
        said(&self.status().conditions, kind)
    }

    pub(super) fn server_says(&mut self, name: &str, kind: &str) -> String {
        said(
            &self.wanted().real_servers[&ObjectKey::new("shop", name)].conditions,
            kind,
        )
    }
}

pub(super) fn said(conditions: &[Condition], kind: &str) -> String {
    let condition = condition::find(conditions, kind).unwrap();
    format!(
        "{}/{}: {}",
        condition.status, condition.reason, condition.message
    )
}

pub(super) fn parsed<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

pub(super) fn merge(into: &mut Value, changes: Value) {
    let Value::Object(changes) = changes else {
        panic!("changes are fields with values: {changes}");
    };
    for (key, value) in changes {
        into[key] = value;
    }
}

/// Returns a reference to the object with the given `namespace/name`.
fn reference(name: &str) -> Value {
    let (namespace, name) = name.split_once('/').expect("a namespace and a name");
    json!({"namespace": namespace, "name": name})
}

pub(super) fn exception(service: &str, reason: &str, message: &str) -> Value {
    json!({"virtualService": reference(service), "reason": reason, "message": message})
}

/// Returns an entry of a director's report: the server is unhealthy for the
/// given services.
pub(super) fn sick(server: &str, state: &str, message: &str, services: &[&str]) -> Value {
    json!({
        "realServer": reference(server),
        "virtualServices": services.iter().map(|name| reference(name)).collect::<Vec<_>>(),
        "state": state,
        "since": "2026-01-01T00:00:00Z",
        "message": message,
    })
}

/// Returns a scene in which shop/web has a health check, and every director
/// reports both servers of shop/web healthy.
pub(super) fn checked(directors: &[&str]) -> Scene {
    let mut scene = Scene::new();
    scene.service(json!({"healthCheck": {"tcpSocket": {}}}));
    for director in directors {
        scene.report(director, json!({"health": {}}));
    }
    scene
}

pub(super) fn down(server: &str) -> Value {
    sick(server, "Down", REFUSED, &["shop/web"])
}

pub(super) fn unproven(server: &str) -> Value {
    sick(server, "Unknown", "no result so far", &["shop/web"])
}

pub(super) fn sees(unhealthy: &[Value]) -> Value {
    json!({"health": {"unhealthy": unhealthy}})
}

pub(super) fn below(service: &str) -> Value {
    json!({
        "virtualService": reference(service),
        "action": "FailOpen",
        "healthy": 1,
        "total": 4,
        "minimum": 2,
        "since": "2026-01-01T00:00:00Z",
    })
}
