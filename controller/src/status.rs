//! What the controller says about an object.

use crds::{
    Kind, ObjectKey,
    api::{DirectorGroupStatus, RealServerStatus, VirtualServiceStatus},
    condition,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};

/// Which of the kinds that have a status.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Subject {
    /// Director. First, because it says why others change.
    Director,
    /// DirectorGroup.
    DirectorGroup,
    /// VirtualService.
    VirtualService,
    /// RealServer.
    RealServer,
}

impl From<Kind> for Subject {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::VirtualService => Self::VirtualService,
            Kind::RealServer => Self::RealServer,
            Kind::DirectorGroup => Self::DirectorGroup,
        }
    }
}

/// An object that has a status.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Id {
    /// Its kind.
    pub subject: Subject,
    /// Its name.
    pub key: ObjectKey,
}

/// What the controller publishes about one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// Of a VirtualService.
    VirtualService(VirtualServiceStatus),
    /// Of a RealServer.
    RealServer(RealServerStatus),
    /// Of a DirectorGroup.
    DirectorGroup(DirectorGroupStatus),
    /// Of a Director: the condition Alive, and nothing else.
    Director(Vec<Condition>),
}

impl Status {
    /// Its conditions.
    pub fn conditions(&self) -> &[Condition] {
        match self {
            Self::VirtualService(status) => &status.conditions,
            Self::RealServer(status) => &status.conditions,
            Self::DirectorGroup(status) => &status.conditions,
            Self::Director(conditions) => conditions,
        }
    }

    /// On how many directors a RealServer's probes fail.
    pub fn unhealthy_on(&self) -> i32 {
        match self {
            Self::RealServer(RealServerStatus {
                directors: Some(directors),
                ..
            }) => directors.unhealthy,
            _ => 0,
        }
    }

    /// This status, as it is to be written at `now`: where a condition's status
    /// stays, so does the time of its last transition.
    pub fn dated(&self, published: Option<&Self>, now: Timestamp) -> Self {
        let old = published.map_or(&[][..], Self::conditions);
        let date = |conditions: &[Condition]| {
            conditions
                .iter()
                .map(|new| {
                    let mut dated: Vec<_> = condition::find(old, &new.type_)
                        .cloned()
                        .into_iter()
                        .collect();
                    condition::set(&mut dated, new.clone(), now);
                    dated.remove(0)
                })
                .collect()
        };
        match self {
            Self::VirtualService(status) => Self::VirtualService(VirtualServiceStatus {
                conditions: date(&status.conditions),
                ..status.clone()
            }),
            Self::RealServer(status) => Self::RealServer(RealServerStatus {
                conditions: date(&status.conditions),
                ..status.clone()
            }),
            Self::DirectorGroup(status) => Self::DirectorGroup(DirectorGroupStatus {
                conditions: date(&status.conditions),
                ..status.clone()
            }),
            Self::Director(conditions) => Self::Director(date(conditions)),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn status(condition: Condition) -> Status {
        Status::VirtualService(VirtualServiceStatus {
            conditions: vec![condition],
            ..VirtualServiceStatus::default()
        })
    }

    #[test]
    fn the_time_of_the_last_transition_changes_with_the_status_only() {
        let first = status(condition::programming(["a"], 1)).dated(None, at(1));
        let second = status(condition::no_directors("default", 2)).dated(Some(&first), at(2));
        assert_eq!(second.conditions()[0].last_transition_time, Time(at(1)));
        let third = status(condition::programmed(2, 1)).dated(Some(&second), at(3));
        assert_eq!(third.conditions()[0].last_transition_time, Time(at(3)));
    }
}
