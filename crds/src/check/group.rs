use super::name::subdomain;
use crate::{
    Checked, Rejection,
    api::{DirectorGroup, DirectorGroupSpec},
};

/// A checked DirectorGroup.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct CheckedGroup {
    /// The Director that holds the group's VIPs, if one is named.
    pub holder: Option<String>,
    /// Until when everything may be removed, in seconds since 1970.
    pub removals_allowed_until: Option<i64>,
}

impl Checked for CheckedGroup {
    type Object = DirectorGroup;

    const KEPT_WHEN_GONE: bool = true;

    fn check(spec: &DirectorGroupSpec) -> Result<Self, Rejection> {
        let holder = spec
            .addresses
            .as_ref()
            .and_then(|addresses| addresses.holder.clone());
        if let Some(holder) = &holder {
            subdomain("spec.addresses.holder", holder)?;
        }
        let allow_until = spec
            .removals
            .as_ref()
            .and_then(|removals| removals.allow_until.as_ref());
        Ok(Self {
            holder,
            removals_allowed_until: allow_until.map(|time| time.0.as_second()),
        })
    }
}
