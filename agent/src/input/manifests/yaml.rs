//! Reads a YAML document as JSON, and remembers the line of each field.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use serde_saphyr::Spanned;

/// A mistake in a YAML document, with its line if the line is known.
pub(super) type Wrong = (Option<u64>, String);

/// A YAML document as JSON, with the lines of its fields.
#[derive(Debug)]
pub(super) struct Yaml {
    /// The content of the YAML document, as JSON.
    pub(super) value: Value,
    lines: BTreeMap<String, u64>,
}

impl Yaml {
    /// Reads a YAML document. The lines of fields are counted from the
    /// beginning of `text`.
    pub(super) fn read(text: &str) -> Result<Self, Wrong> {
        let node: Node = serde_saphyr::from_str(text).map_err(|error| {
            let line = error.location().map(|location| location.line());
            let reason = error.without_snippet().to_string();
            (line, reason.lines().collect::<Vec<_>>().join(" "))
        })?;
        let mut lines = BTreeMap::new();
        let value = node.into_value("", &mut lines);
        Ok(Self { value, lines })
    }

    /// Returns the line of the field at a path such as `spec.vip.port`. If the
    /// field is absent, returns the line of its closest parent field.
    pub(super) fn line(&self, path: &str) -> Option<u64> {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            (path, _) = path.rsplit_once('.')?;
        }
    }
}

enum Node {
    Scalar(Value),
    List(Vec<Spanned<Self>>),
    Map(Vec<(Spanned<String>, Self)>),
}

impl Node {
    fn into_value(self, path: &str, lines: &mut BTreeMap<String, u64>) -> Value {
        match self {
            Self::Scalar(value) => value,
            Self::List(items) => {
                let items = items.into_iter().enumerate().map(|(index, item)| {
                    let path = join(path, &index.to_string());
                    lines.insert(path.clone(), item.referenced.line());
                    item.value.into_value(&path, lines)
                });
                Value::Array(items.collect())
            }
            Self::Map(fields) => {
                let fields = fields.into_iter().map(|(name, field)| {
                    let path = join(path, &name.value);
                    lines.insert(path.clone(), name.referenced.line());
                    (name.value, field.into_value(&path, lines))
                });
                Value::Object(fields.collect())
            }
        }
    }
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nodes)
    }
}

struct Nodes;

impl<'de> Visitor<'de> for Nodes {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON knows")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(field) = fields.next_entry()? {
            map.push(field);
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_field_has_its_line_and_a_missing_one_that_of_what_it_is_missing_in() {
        let text =
            "# a comment\nspec:\n  vip: {address: 192.0.2.1,\n    port: 80}\n  list:\n  - a\n";
        let yaml = Yaml::read(text).expect("it is good YAML");
        assert_eq!(
            yaml.value,
            json!({"spec": {"vip": {"address": "192.0.2.1", "port": 80}, "list": ["a"]}})
        );
        for (path, line) in [
            ("spec", Some(2)),
            ("spec.vip", Some(3)),
            ("spec.vip.port", Some(4)),
            ("spec.vip.protocol", Some(3)),
            ("spec.list.0", Some(6)),
            ("metadata.name", None),
        ] {
            assert_eq!(yaml.line(path), line, "the line of {path}");
        }
    }

    #[test]
    fn what_is_no_yaml_is_reported_with_its_line() {
        let (line, reason) = Yaml::read("a: 1\na: 2\n").expect_err("a key twice");
        assert_eq!(line, Some(2));
        assert!(reason.contains("duplicate mapping key: a"), "{reason}");
    }
}
