use schemars::{Schema, SchemaGenerator, json_schema};

use crate::bounds;

/// The CEL pattern of a label's key.
const KEY: &str = "key.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?\
                   [A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')";
const KEY_MESSAGE: &str = "cannot be a label's key; write a name of up to 63 letters, digits, \
                           '-', '_' and '.', with a DNS name and '/' before it if need be";
const VALUE: &str = "self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$')";
const VALUE_MESSAGE: &str = "cannot be a label's value; write up to 63 letters, digits, '-', '_' \
                             and '.', beginning and ending with a letter or digit";

/// Returns the schema of Kubernetes' LabelSelector, with bounds. The API server
/// checks the label selectors of built-in kinds, but not those of custom
/// resources, so this schema adds the checks.
pub(super) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "description": "Labels that a RealServer must have, with their values.",
                "type": "object",
                "maxProperties": bounds::SELECTOR_LABELS,
                "additionalProperties": {
                    "type": "string",
                    "maxLength": bounds::LABEL,
                    "x-kubernetes-validations": [{"rule": VALUE, "message": VALUE_MESSAGE}],
                },
                "x-kubernetes-validations": [
                    {"rule": format!("self.all(key, {})", key_rule()), "message": KEY_MESSAGE},
                ],
            },
            "matchExpressions": {
                "description": "Conditions on labels, all of which must hold.",
                "type": "array",
                "maxItems": bounds::SELECTOR_EXPRESSIONS,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {
                            "description": "The label's key.",
                            "type": "string",
                            "maxLength": bounds::LABEL_KEY,
                            "x-kubernetes-validations": [
                                {"rule": key_rule().replace("key.", "self."), "message": KEY_MESSAGE},
                            ],
                        },
                        "operator": {
                            "description": "In, NotIn, Exists or DoesNotExist.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "The values for In and NotIn. Exists and DoesNotExist \
                                            have none.",
                            "type": "array",
                            "maxItems": bounds::SELECTOR_VALUES,
                            "x-kubernetes-list-type": "atomic",
                            "items": {
                                "type": "string",
                                "maxLength": bounds::LABEL,
                                "x-kubernetes-validations": [
                                    {"rule": VALUE, "message": VALUE_MESSAGE},
                                ],
                            },
                        },
                    },
                    "x-kubernetes-validations": [{
                        "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && \
                                 self.values.size() > 0)",
                        "message": "In and NotIn need at least one value, Exists and DoesNotExist \
                                    take none",
                        "fieldPath": ".values",
                    }],
                },
            },
        },
        "x-kubernetes-validations": [{
            "rule": "(has(self.matchLabels) && self.matchLabels.size() > 0) || \
                     (has(self.matchExpressions) && self.matchExpressions.size() > 0)",
            "message": "an empty selector would take every RealServer of the namespace; write at \
                        least one label under matchLabels",
        }],
    })
}

/// Returns the CEL rule of a label's key. A schema cannot bound the length of a
/// map's keys. So the rule bounds the length of the key, and the length of the
/// part before the slash.
fn key_rule() -> String {
    format!(
        "key.size() <= {} && key.indexOf('/') <= {} && {KEY}",
        bounds::LABEL_KEY,
        bounds::NAME
    )
}
