use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::{
    invalid,
    name::{label_key, label_value},
};
use crate::{Labels, Rejection, bounds};

const PATH: &str = "spec.realServerSelector";

/// A checked label selector, which has at least one label or requirement.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Selector {
    labels: Labels,
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Requirement {
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Exists(String),
    DoesNotExist(String),
}

impl Selector {
    /// Returns whether the selector matches `labels`.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self.requirements.iter().all(|it| it.matches(labels))
    }

    /// Returns what each selected object must have: for each entry, a label with
    /// one of the values, or with any value if the entry has no values. The
    /// operators NotIn and DoesNotExist have no entry.
    pub fn musts(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        let labels = self.labels.iter().map(|(key, value)| (key, vec![value]));
        let required = self.requirements.iter().filter_map(|it| match it {
            Requirement::In(key, values) => {
                Some((&**key, values.iter().map(String::as_str).collect()))
            }
            Requirement::Exists(key) => Some((&**key, Vec::new())),
            Requirement::NotIn(..) | Requirement::DoesNotExist(_) => None,
        });
        labels.chain(required)
    }

    pub(super) fn check(raw: &LabelSelector) -> Result<Self, Rejection> {
        let labels = raw.match_labels.clone().unwrap_or_default();
        for (key, value) in &labels {
            label_key(&format!("{PATH}.matchLabels"), key)?;
            label_value(&format!("{PATH}.matchLabels[{key}]"), value)?;
        }
        if labels.len() > bounds::SELECTOR_LABELS {
            return Err(invalid(
                &format!("{PATH}.matchLabels"),
                format_args!("write at most {} labels", bounds::SELECTOR_LABELS),
            ));
        }
        let raw = raw.match_expressions.as_deref().unwrap_or_default();
        if raw.len() > bounds::SELECTOR_EXPRESSIONS {
            return Err(invalid(
                &format!("{PATH}.matchExpressions"),
                format_args!("write at most {} expressions", bounds::SELECTOR_EXPRESSIONS),
            ));
        }
        let requirements: Vec<_> = raw
            .iter()
            .enumerate()
            .map(|(index, raw)| Requirement::check(index, raw))
            .collect::<Result<_, _>>()?;
        if labels.is_empty() && requirements.is_empty() {
            return Err(invalid(
                PATH,
                "an empty selector would take every RealServer of the namespace; write at least \
                 one label under matchLabels",
            ));
        }
        Ok(Self {
            labels: labels.into_iter().collect(),
            requirements,
        })
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Exists(key) => labels.get(key).is_some(),
            Self::DoesNotExist(key) => labels.get(key).is_none(),
        }
    }

    fn check(index: usize, raw: &LabelSelectorRequirement) -> Result<Self, Rejection> {
        let path = format!("{PATH}.matchExpressions[{index}]");
        label_key(&format!("{path}.key"), &raw.key)?;
        let values = raw.values.as_deref().unwrap_or_default();
        if values.len() > bounds::SELECTOR_VALUES {
            return Err(invalid(
                &format!("{path}.values"),
                format_args!("write at most {} values", bounds::SELECTOR_VALUES),
            ));
        }
        for value in values {
            label_value(&format!("{path}.values"), value)?;
        }
        let key = raw.key.clone();
        let set = || values.iter().cloned().collect();
        match (raw.operator.as_str(), values.is_empty()) {
            ("In", false) => Ok(Self::In(key, set())),
            ("NotIn", false) => Ok(Self::NotIn(key, set())),
            ("Exists", true) => Ok(Self::Exists(key)),
            ("DoesNotExist", true) => Ok(Self::DoesNotExist(key)),
            (operator @ ("In" | "NotIn"), true) => Err(invalid(
                &format!("{path}.values"),
                format_args!("{operator} needs at least one value"),
            )),
            (operator @ ("Exists" | "DoesNotExist"), false) => Err(invalid(
                &format!("{path}.values"),
                format_args!("{operator} takes no values; leave them out, or write In or NotIn"),
            )),
            (operator, _) => Err(invalid(
                &format!("{path}.operator"),
                format_args!("{operator:?} is not one of In, NotIn, Exists and DoesNotExist"),
            )),
        }
    }
}
