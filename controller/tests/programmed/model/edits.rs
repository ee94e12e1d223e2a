//! Edits by users. Each edit adds a state to the true history of one kind.

use serde_json::{Value, json};

use super::{GROUP, GROUPS, Model, NAMESPACES, SERVICES, State};

impl Model {
    pub(super) fn make(&mut self, kind: usize, name: &str, labels: &Value, spec: Value) {
        let mut state = self.latest(kind).clone();
        if state.contains_key(name) {
            return;
        }
        self.uids += 1;
        let mut metadata = json!({
            "name": name,
            "uid": format!("uid-{}", self.uids),
            "generation": 1,
            "labels": labels,
            "creationTimestamp": format!("2026-01-01T00:{:02}:{:02}Z", self.uids / 60 % 60, self.uids % 60),
        });
        if kind != GROUPS {
            let number = name.bytes().last().map_or(0, usize::from);
            metadata["namespace"] = json!(NAMESPACES[number % self.namespaces]);
        }
        let mut spec = spec;
        if kind == SERVICES {
            spec["directorGroupName"] = json!(GROUP);
        }
        state.insert(name.to_owned(), json!({"metadata": metadata, "spec": spec}));
        self.history[kind].push(state);
    }

    /// Switches a field between two values.
    pub(super) fn edit(&mut self, kind: usize, name: &str, field: &str, one: Value, other: Value) {
        let mut state = self.latest(kind).clone();
        let Some(object) = state.get_mut(name) else {
            return;
        };
        let value = object.pointer_mut(field).expect("the field is there");
        *value = if *value == one { other } else { one };
        let generation = &mut object["metadata"]["generation"];
        *generation = json!(generation.as_i64().unwrap_or_default() + 1);
        self.history[kind].push(state);
    }

    /// Changes the labels of an object. Labels do not change the generation, so
    /// the object can return to an earlier state.
    pub(super) fn relabel(&mut self, kind: usize, name: &str, app: Option<u8>) {
        let mut state = self.latest(kind).clone();
        let Some(object) = state.get_mut(name) else {
            return;
        };
        let labels = &mut object["metadata"]["labels"];
        match app {
            Some(app) => *labels = json!({"app": app.to_string()}),
            None if labels.get("note").is_some() => *labels = json!({}),
            None => *labels = json!({"note": "x"}),
        }
        if state != *self.latest(kind) {
            self.history[kind].push(state);
        }
    }

    pub(super) fn delete(&mut self, kind: usize, name: &str) {
        let mut state = self.latest(kind).clone();
        if state.remove(name).is_some() {
            self.history[kind].push(state);
        }
    }

    fn latest(&self, kind: usize) -> &State {
        self.history[kind]
            .last()
            .expect("a history has a beginning")
    }
}
