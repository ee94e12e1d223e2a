use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The directors that hold a virtual address, according to their reports.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VipHolder {
    /// The Director that holds the address. The name is absent if no director
    /// holds the address. It is also absent if several do, which mode Dummy
    /// allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub director_name: Option<String>,
    /// The time at which the controller saw that directorName holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// The number of live directors that hold the address.
    pub directors: i32,
    /// The name in directorName, or the number of holders if it is not one.
    pub summary: String,
}

impl VipHolder {
    /// Returns the holders of an address, without the time. `name` is one of
    /// the `directors` holders, if there are any.
    pub fn new(name: Option<&str>, directors: i32) -> Self {
        let name = name.filter(|_| directors == 1);
        Self {
            director_name: name.map(str::to_owned),
            since: None,
            directors,
            summary: name.map_or_else(|| directors.to_string(), str::to_owned),
        }
    }

    /// Whether the same directors hold the address. Ignores the times.
    pub fn is_same(&self, other: &Self) -> bool {
        self.director_name == other.director_name && self.directors == other.directors
    }

    /// Returns these holders with the time of `published`, if they are the
    /// same. Otherwise the time is `now`.
    #[must_use]
    pub fn dated(&self, published: Option<&Self>, now: Time) -> Self {
        let before = published.filter(|old| old.director_name == self.director_name);
        let since = before.and_then(|old| old.since.clone()).unwrap_or(now);
        Self {
            since: self.director_name.is_some().then_some(since),
            ..self.clone()
        }
    }
}
