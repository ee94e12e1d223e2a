//! The statuses that the controller publishes.

use crds::{
    Kind, ObjectKey,
    api::{DirectorGroupStatus, RealServerStatus, VipHolder, VirtualServiceStatus},
    condition,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// The kinds of objects whose status the controller publishes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Subject {
    /// The kind of Director objects. Directors come first, because their
    /// statuses explain why other statuses change.
    Director,
    /// The kind of DirectorGroup objects.
    DirectorGroup,
    /// The kind of VirtualService objects.
    VirtualService,
    /// The kind of RealServer objects.
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

/// Identifies an object that has a status.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Id {
    /// The object's kind.
    pub subject: Subject,
    /// The object's namespace and name.
    pub key: ObjectKey,
}

/// The status that the controller publishes for one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// The status of a VirtualService.
    VirtualService(VirtualServiceStatus),
    /// The status of a RealServer.
    RealServer(RealServerStatus),
    /// The status of a DirectorGroup.
    DirectorGroup(DirectorGroupStatus),
    /// The conditions Alive, Reporting and Ready of a Director, the only
    /// conditions of a Director that the controller writes.
    Director(Vec<Condition>),
}

impl Status {
    /// Returns the conditions in this status.
    pub fn conditions(&self) -> &[Condition] {
        match self {
            Self::VirtualService(status) => &status.conditions,
            Self::RealServer(status) => &status.conditions,
            Self::DirectorGroup(status) => &status.conditions,
            Self::Director(conditions) => conditions,
        }
    }

    /// Returns the conditions in this status, to change them.
    pub fn conditions_mut(&mut self) -> &mut [Condition] {
        match self {
            Self::VirtualService(status) => &mut status.conditions,
            Self::RealServer(status) => &mut status.conditions,
            Self::DirectorGroup(status) => &mut status.conditions,
            Self::Director(conditions) => conditions,
        }
    }

    /// The number of directors on which a RealServer's probes fail.
    pub fn unhealthy_on(&self) -> i32 {
        match self {
            Self::RealServer(RealServerStatus {
                directors: Some(directors),
                ..
            }) => directors.unhealthy,
            _ => 0,
        }
    }

    /// Returns the directors that hold the object's virtual addresses.
    pub fn holder(&self) -> Option<&VipHolder> {
        match self {
            Self::VirtualService(status) => status.vip.as_ref(),
            Self::DirectorGroup(status) => status.vips.as_ref(),
            Self::RealServer(_) | Self::Director(_) => None,
        }
    }

    /// Returns the status with transition times. A condition whose status
    /// changed gets `now`, and so does a holder that changed. Any other
    /// condition keeps its published time.
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
        let held = published.and_then(Self::holder);
        let vip = self.holder().map(|vip| vip.dated(held, Time(now)));
        match self {
            Self::VirtualService(status) => Self::VirtualService(VirtualServiceStatus {
                conditions: date(&status.conditions),
                vip,
                ..status.clone()
            }),
            Self::RealServer(status) => Self::RealServer(RealServerStatus {
                conditions: date(&status.conditions),
                ..status.clone()
            }),
            Self::DirectorGroup(status) => Self::DirectorGroup(DirectorGroupStatus {
                conditions: date(&status.conditions),
                vips: vip,
                ..status.clone()
            }),
            Self::Director(conditions) => Self::Director(date(conditions)),
        }
    }
}

#[cfg(test)]
mod tests {
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
