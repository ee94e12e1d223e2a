//! Objects for tests, as JSON. Each test changes only the fields that matter to
//! it.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{Change, ObjectKey, Objects, Resolved, resolve};

#[derive(Clone, Debug)]
pub(crate) struct Fixture(Value);

/// A valid service of `10.0.0.1:80/TCP` over NAT, which selects servers with
/// the label `app=web`.
pub(crate) fn service(name: &str) -> Fixture {
    Fixture(json!({
        "kind": "VirtualService",
        "metadata": {"namespace": "shop", "name": name, "uid": name, "generation": 1},
        "spec": {
            "vip": {"address": "10.0.0.1", "port": 80},
            "forwarding": {"method": "NAT"},
            "realServerSelector": {"matchLabels": {"app": "web"}},
        },
    }))
}

/// A valid server with the label `app=web`.
pub(crate) fn server(name: &str, address: &str) -> Fixture {
    Fixture(json!({
        "kind": "RealServer",
        "metadata": {
            "namespace": "shop", "name": name, "uid": name, "generation": 1,
            "labels": {"app": "web"},
        },
        "spec": {"address": address},
    }))
}

/// A valid DirectorGroup that grants every address and mark.
pub(crate) fn group(name: &str) -> Fixture {
    Fixture(json!({
        "kind": "DirectorGroup",
        "metadata": {"name": name, "uid": name, "generation": 1},
        "spec": {
            "addressPools": [{"name": "all", "cidrs": ["0.0.0.0/0", "::/0"]}],
            "firewallMarks": [{"name": "all", "first": 1, "last": u32::MAX}],
        },
    }))
}

impl Fixture {
    /// Sets the field at the path `place`, such as `spec.vip.port`, to a value.
    pub(crate) fn with(mut self, place: &str, value: impl Into<Value>) -> Self {
        let mut at = &mut self.0;
        for name in place.split('.') {
            at = &mut at[name];
        }
        *at = value.into();
        self
    }

    pub(crate) fn without(mut self, field: &str) -> Self {
        self.0["spec"].as_object_mut().unwrap().remove(field);
        self
    }

    /// Sets the creation time to `second` seconds after a fixed time.
    pub(crate) fn created(self, second: u32) -> Self {
        let time = format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60);
        self.with("metadata.creationTimestamp", time)
    }

    /// Changes a field and raises the object's generation.
    pub(crate) fn edited(self, place: &str, value: impl Into<Value>) -> Self {
        let generation = self.0["metadata"]["generation"].as_i64().unwrap();
        self.with(place, value)
            .with("metadata.generation", generation + 1)
    }

    pub(crate) fn key(&self) -> ObjectKey {
        let text = |field: &str| self.0["metadata"][field].as_str().unwrap_or_default();
        ObjectKey::new(text("namespace"), text("name"))
    }

    pub(crate) fn kind(&self) -> &str {
        self.0["kind"].as_str().unwrap()
    }

    pub(crate) fn read<T: DeserializeOwned>(&self) -> T {
        serde_json::from_value(self.0.clone()).unwrap()
    }

    pub(crate) fn apply(&self, objects: &mut Objects) -> bool {
        match self.kind() {
            "VirtualService" => objects.virtual_services.change(Change::Apply(self.read())),
            "RealServer" => objects.real_servers.change(Change::Apply(self.read())),
            "DirectorGroup" => objects.director_groups.change(Change::Apply(self.read())),
            other => panic!("{other}"),
        }
    }
}

/// Returns a DirectorGroup `default` and all fixtures, applied in order.
pub(crate) fn objects(fixtures: &[Fixture]) -> Objects {
    let mut objects = Objects::default();
    group("default").apply(&mut objects);
    for fixture in fixtures {
        fixture.apply(&mut objects);
    }
    objects
}

/// Resolves all fixtures together.
pub(crate) fn resolved(fixtures: &[Fixture]) -> Resolved {
    resolve(&objects(fixtures))
}

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}
