//! Tracks which directors a group has, as seen by one of its directors. The
//! code is pure: the watch's events and the time are arguments.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use kube::{core::DynamicObject, runtime::watcher};

use crate::decide::protect::MOST_ADDRESSES;

/// How long a director stays a member of its group after its DirectorGroupMember
/// was deleted. The director's agent may have lost its connection to the API
/// server while the host still has the VIPs. An agent with a connection to the
/// API server recreates its DirectorGroupMember within this time.
pub const LEAVE_TIME: Duration = Duration::from_secs(90);

/// The directors of one DirectorGroup, as the watch of DirectorGroupMembers
/// shows them.
#[derive(Debug)]
pub struct Membership {
    group: String,
    me: String,
    members: Members,
    listing: Members,
    listed: bool,
    /// The directors whose DirectorGroupMember was deleted, each with the time
    /// of the deletion and the director's addresses.
    left: BTreeMap<String, (Duration, BTreeSet<IpAddr>)>,
}

/// The members of the group: the addresses of each director's host, by the
/// director's name.
type Members = BTreeMap<String, BTreeSet<IpAddr>>;

impl Membership {
    /// Starts to track the members of `group` as the director `me` sees them.
    /// At first, no member is known.
    pub fn new(group: &str, me: &str) -> Self {
        Self {
            group: group.to_owned(),
            me: me.to_owned(),
            members: Members::new(),
            listing: Members::new(),
            listed: false,
            left: BTreeMap::new(),
        }
    }

    /// Records an event that the watch of DirectorGroupMembers delivers at
    /// `now`. Returns true if this director's own DirectorGroupMember has just
    /// disappeared.
    pub fn see(&mut self, event: watcher::Event<DynamicObject>, now: Duration) -> bool {
        let was_member = self.members.contains_key(&self.me);
        match event {
            watcher::Event::Init => self.listing.clear(),
            watcher::Event::InitApply(member) => {
                if self.is_of_group(&member) {
                    let addresses = self.addresses_of(&member);
                    self.listing.insert(name(&member), addresses);
                }
            }
            watcher::Event::InitDone => {
                let listing = std::mem::take(&mut self.listing);
                for (gone, addresses) in std::mem::take(&mut self.members) {
                    if !listing.contains_key(&gone) {
                        self.left.insert(gone, (now, addresses));
                    }
                }
                self.members = listing;
                self.listed = true;
            }
            watcher::Event::Apply(member) if self.is_of_group(&member) => {
                let addresses = self.addresses_of(&member);
                self.members.insert(name(&member), addresses);
            }
            watcher::Event::Apply(member) | watcher::Event::Delete(member) => {
                let name = name(&member);
                if let Some(addresses) = self.members.remove(&name) {
                    self.left.insert(name, (now, addresses));
                }
            }
        }
        let members = &self.members;
        self.left.retain(|name, _| !members.contains_key(name));
        was_member && !self.members.contains_key(&self.me)
    }

    /// Returns the names of the members at `now`, or `None` before the first
    /// listing is complete.
    pub fn names(&self, now: Duration) -> Option<BTreeSet<String>> {
        let addresses = self.addresses(now);
        addresses.map(|addresses| addresses.into_keys().collect())
    }

    /// Returns the members at `now`, each with the addresses of its host.
    pub fn addresses(&self, now: Duration) -> Option<BTreeMap<String, BTreeSet<IpAddr>>> {
        let leaving = self.left.iter();
        let leaving = leaving.filter(|(_, (at, _))| *at + LEAVE_TIME > now);
        self.listed.then(|| {
            let leaving = leaving.map(|(name, (_, addresses))| (name, addresses));
            let all = self.members.iter().chain(leaving);
            all.map(|(name, addresses)| (name.clone(), addresses.clone()))
                .collect()
        })
    }

    /// Returns the next time at which a director leaves the group because its
    /// DirectorGroupMember was deleted. The returned time is later than `now`.
    pub fn next_deadline(&self, now: Duration) -> Option<Duration> {
        let ends = self.left.values().map(|(at, _)| *at + LEAVE_TIME);
        ends.filter(|end| *end > now).min()
    }

    /// Returns a member's addresses that this build can parse. An agent of a
    /// newer version may write addresses in another form. A member that has just
    /// been created and has no addresses keeps its previous addresses.
    fn addresses_of(&self, member: &DynamicObject) -> BTreeSet<IpAddr> {
        let addresses = member.data.pointer("/spec/addresses");
        let addresses = addresses.and_then(|addresses| addresses.as_array());
        let texts = addresses.into_iter().flatten().take(MOST_ADDRESSES);
        let said: BTreeSet<_> = texts
            .filter_map(|found| found.as_str()?.parse().ok())
            .collect();
        if !said.is_empty() {
            return said;
        }
        let name = name(member);
        let left = self.left.get(&name).map(|(_, addresses)| addresses);
        let before = self.members.get(&name).or(left);
        before.cloned().unwrap_or_default()
    }

    /// Returns true if the member's spec names `self.group`. The rest of the
    /// spec is ignored, because the director's agent may be of a newer version.
    fn is_of_group(&self, member: &DynamicObject) -> bool {
        let group = member.data.pointer("/spec/directorGroupName");
        group.and_then(|group| group.as_str()) == Some(&self.group)
    }
}

fn name(member: &DynamicObject) -> String {
    member.metadata.name.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn member(name: &str, group: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"directorGroupName": group, "weight": "of a newer version"},
        }))
        .unwrap()
    }

    fn listed(names: &[&str]) -> Membership {
        let mut membership = Membership::new("edge", "a");
        membership.see(Init, s(0));
        for name in names {
            membership.see(InitApply(member(name, "edge")), s(0));
        }
        membership.see(InitApply(member("other", "core")), s(0));
        assert_eq!(membership.names(s(0)), None, "no names before the listing");
        membership.see(InitDone, s(0));
        membership
    }

    fn names(membership: &Membership, now: Duration) -> Vec<String> {
        let names = membership.names(now).expect("the listing is complete");
        names.into_iter().collect()
    }

    #[test]
    fn members_are_those_whose_agents_say_so() {
        let mut membership = listed(&["a", "b"]);
        assert_eq!(names(&membership, s(0)), ["a", "b"]);
        membership.see(Apply(member("c", "edge")), s(1));
        assert_eq!(names(&membership, s(1)), ["a", "b", "c"]);
        assert_eq!(membership.next_deadline(s(1)), None);
    }

    #[test]
    fn members_come_with_their_addresses_also_while_they_leave() {
        let mut membership = listed(&["a"]);
        let mut b = member("b", "edge");
        b.data["spec"]["addresses"] = json!(["192.0.2.2", "2001:db8::2", "of a newer version"]);
        membership.see(Apply(b), s(1));
        let b = BTreeSet::from(["192.0.2.2", "2001:db8::2"].map(|text| text.parse().unwrap()));
        let both = BTreeMap::from([("a".to_owned(), BTreeSet::new()), ("b".to_owned(), b)]);
        assert_eq!(membership.addresses(s(1)).as_ref(), Some(&both));
        membership.see(Apply(member("b", "edge")), s(1));
        assert_eq!(
            membership.addresses(s(1)).as_ref(),
            Some(&both),
            "b has just begun, and has not reported yet"
        );
        membership.see(Delete(member("b", "edge")), s(2));
        assert_eq!(
            membership.addresses(s(2)),
            Some(both),
            "b may only be cut off"
        );
        assert_eq!(names(&membership, s(92)), ["a"]);
    }

    #[test]
    fn a_director_that_left_counts_for_a_while_and_one_that_is_back_has_not_left() {
        for leaves in [Delete(member("b", "edge")), Apply(member("b", "core"))] {
            let mut membership = listed(&["a", "b"]);
            assert!(!membership.see(leaves, s(10)), "a has not left");
            assert_eq!(names(&membership, s(99)), ["a", "b"]);
            assert_eq!(membership.next_deadline(s(99)), Some(s(100)));
            assert_eq!(names(&membership, s(100)), ["a"]);
            assert_eq!(membership.next_deadline(s(100)), None);
            membership.see(Apply(member("b", "edge")), s(120));
            assert_eq!(names(&membership, s(120)), ["a", "b"]);
        }
    }

    #[test]
    fn a_new_listing_without_a_member_counts_as_its_deletion() {
        let mut membership = listed(&["a", "b"]);
        membership.see(Init, s(10));
        membership.see(InitApply(member("b", "edge")), s(10));
        assert!(membership.see(InitDone, s(10)), "a's own member is gone");
        assert_eq!(names(&membership, s(20)), ["a", "b"]);
        assert_eq!(names(&membership, s(100)), ["b"]);
    }
}
