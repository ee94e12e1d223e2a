use schemars::{Schema, SchemaGenerator, json_schema};

/// A label's key. CEL has no length for the keys of a map, so the length of
/// the prefix is in the expression.
const KEY: &str = "key.size() <= 317 && key.indexOf('/') <= 253 && \
                   key.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?\
                   [A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')";
const KEY_MESSAGE: &str = "cannot be a label's key; write a name of up to 63 letters, digits, \
                           '-', '_' and '.', with a DNS name and '/' before it if need be";
const VALUE: &str = "self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$')";
const VALUE_MESSAGE: &str = "cannot be a label's value; write up to 63 letters, digits, '-', '_' \
                             and '.', beginning and ending with a letter or digit";

/// Kubernetes' LabelSelector, with bounds, and with what the API server checks
/// in its own kinds but not in custom ones.
pub(super) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "description": "Labels that a RealServer must have, each with this value.",
                "type": "object",
                "maxProperties": 16,
                "additionalProperties": {
                    "type": "string",
                    "maxLength": 63,
                    "x-kubernetes-validations": [{"rule": VALUE, "message": VALUE_MESSAGE}],
                },
                "x-kubernetes-validations": [
                    {"rule": format!("self.all(key, {KEY})"), "message": KEY_MESSAGE},
                ],
            },
            "matchExpressions": {
                "description": "Conditions on labels, of which all must hold.",
                "type": "array",
                "maxItems": 16,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {
                            "description": "The label's key.",
                            "type": "string",
                            "maxLength": 317,
                            "x-kubernetes-validations": [
                                {"rule": KEY.replace("key.", "self."), "message": KEY_MESSAGE},
                            ],
                        },
                        "operator": {
                            "description": "In, NotIn, Exists or DoesNotExist.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "For In and NotIn: the values. Exists and DoesNotExist \
                                            have none.",
                            "type": "array",
                            "maxItems": 64,
                            "x-kubernetes-list-type": "atomic",
                            "items": {
                                "type": "string",
                                "maxLength": 63,
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
