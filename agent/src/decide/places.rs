//! Leaves out new services whose virtual address cannot be on this host. The
//! code is pure: it does no I/O.
//!
//! IPVS also handles the packets that the host itself sends. A service whose
//! address cannot be on this host gets no traffic from clients. Yet the service
//! takes the host's own connections to that address. In mode Interface, a
//! director may be unable to have an address that it should have. The director
//! then keeps new services at the address out of the kernel. A service that is
//! already ours stays, even if its address cannot be on this host. A director
//! that should not have an address still programs the address's services, so
//! that it is ready to take over.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use crds::AddressRule;
use ipvs::ServiceKey;

use crate::{
    decide::{
        addresses::{Holding, Missing, lacks_place},
        desired::Desired,
        protect::without,
    },
    host::interface::Interface,
};

/// The facts that decide whether a virtual address can be on this host.
#[derive(Clone, Debug)]
pub struct Ground {
    /// The rule that chooses the interface of each address.
    pub rule: AddressRule,
    /// Whether this host should have the virtual addresses.
    pub holding: Holding,
    /// The interfaces of this host, or none if they were never read. While the
    /// interfaces are unknown, no service is left out.
    pub interfaces: Option<Arc<Vec<Interface>>>,
}

/// The services that the last call left out.
#[derive(Debug, Default)]
pub struct Places {
    judged: Option<(Arc<Desired>, Ground)>,
    rest: Arc<Desired>,
    left_out: BTreeSet<ServiceKey>,
    missing: BTreeMap<IpAddr, Missing>,
}

impl Places {
    /// Returns the wanted state without the services that were left out.
    pub fn desired(&self) -> &Arc<Desired> {
        &self.rest
    }

    /// Returns the addresses of the services that were left out, each with the
    /// reason. Returns no address while this director does not know whether it
    /// should have the addresses.
    pub fn missing(&self) -> BTreeMap<IpAddr, Missing> {
        match &self.judged {
            Some((_, ground)) if ground.holding != Holding::Undecided => self.missing.clone(),
            _ => BTreeMap::new(),
        }
    }

    /// Decides which services of `wanted` to leave out: the services that are
    /// not ours and whose address cannot be on this host. Returns the services
    /// that are newly left out and the services that are no longer left out.
    pub fn judge(
        &mut self,
        wanted: &Arc<Desired>,
        ground: Ground,
        is_ours: impl Fn(&ServiceKey) -> bool,
    ) -> BTreeSet<ServiceKey> {
        if self.is_judged(wanted, &ground) {
            return BTreeSet::new();
        }
        self.missing = missing(wanted, &ground, &is_ours);
        let is_out = |key: &&ServiceKey| {
            let vip = key.vip().filter(|vip| self.missing.contains_key(vip));
            vip.is_some() && !is_ours(key)
        };
        let left_out: BTreeSet<_> = match self.missing.is_empty() {
            true => BTreeSet::new(),
            false => wanted.table.keys().filter(is_out).copied().collect(),
        };
        self.rest = match left_out.is_empty() {
            true => wanted.clone(),
            false => {
                let refused = left_out.iter().map(|key| (*key, None)).collect();
                Arc::new(without(wanted, &refused))
            }
        };
        self.judged = Some((wanted.clone(), ground));
        let before = std::mem::replace(&mut self.left_out, left_out);
        before
            .symmetric_difference(&self.left_out)
            .copied()
            .collect()
    }

    fn is_judged(&self, wanted: &Arc<Desired>, ground: &Ground) -> bool {
        self.judged.as_ref().is_some_and(|(judged, before)| {
            let are_same = match (&before.interfaces, &ground.interfaces) {
                (Some(before), Some(now)) => Arc::ptr_eq(before, now),
                (before, now) => before.is_none() && now.is_none(),
            };
            are_same
                && Arc::ptr_eq(judged, wanted)
                && before.rule == ground.rule
                && before.holding == ground.holding
        })
    }
}

/// Returns the wanted addresses that cannot be on this host, each with the
/// reason. The result lacks an address if all its services are ours.
fn missing(
    wanted: &Desired,
    ground: &Ground,
    is_ours: impl Fn(&ServiceKey) -> bool,
) -> BTreeMap<IpAddr, Missing> {
    let Some(interfaces) = &ground.interfaces else {
        return BTreeMap::new();
    };
    match ground.holding {
        Holding::Take | Holding::TakeOver | Holding::Undecided => {}
        Holding::KeepOnly | Holding::Release | Holding::Wait => return BTreeMap::new(),
    }
    let new = wanted.table.keys().filter(|key| !is_ours(key));
    let vips = new.filter_map(|key| key.vip().filter(|vip| wanted.vips.contains_key(vip)));
    let vips: BTreeSet<_> = vips.collect();
    let missing = vips.into_iter().filter_map(|vip| {
        let why = lacks_place(&ground.rule, interfaces, vip)?;
        Some((vip, why))
    });
    missing.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{interface, ip, tcp, wish};

    /// Returns a wish for a service at each of [`VIPS`].
    fn services() -> Arc<Desired> {
        let rows = VIPS.map(|vip| (tcp(vip, 80), "rr", &[(1, 1)][..]));
        Arc::new(wish(&rows))
    }

    fn ground(rule: AddressRule, holding: Holding) -> Ground {
        let addresses = [("192.0.2.1", 24), ("198.51.100.9", 32)];
        let eth0 = interface(2, "eth0", &addresses);
        Ground {
            rule,
            holding,
            interfaces: Some(Arc::new(vec![eth0])),
        }
    }

    /// Virtual addresses of three kinds: in the subnet of eth0, on eth0 itself,
    /// and on no subnet of the host.
    const VIPS: [&str; 3] = ["192.0.2.10", "198.51.100.9", "203.0.113.7"];

    fn left_out(ground: Ground, is_ours: bool) -> Vec<&'static str> {
        let mut places = Places::default();
        let changed = places.judge(&services(), ground, |_| is_ours);
        let is_in = |vip: &&str| places.desired().table.contains_key(&tcp(vip, 80));
        let out: Vec<_> = VIPS.into_iter().filter(|vip| !is_in(vip)).collect();
        let expected: BTreeSet<_> = out.iter().map(|vip| tcp(vip, 80)).collect();
        assert_eq!(changed, expected, "exactly what is left out has changed");
        out
    }

    #[test]
    fn a_new_service_without_a_place_for_its_address_is_left_out_in_mode_interface() {
        let eth9 = || AddressRule::Interface("eth9".to_owned());
        let eth0 = AddressRule::Interface("eth0".to_owned());
        for (rule, expected) in [
            (AddressRule::Subnet, vec!["203.0.113.7"]),
            (eth9(), vec!["192.0.2.10", "203.0.113.7"]),
            (eth0, vec![]),
            (AddressRule::Dummy, vec![]),
            (AddressRule::Manual, vec![]),
        ] {
            let name = format!("{rule:?}");
            assert_eq!(
                left_out(ground(rule, Holding::Take), false),
                expected,
                "{name}"
            );
        }
        let ours = left_out(ground(eth9(), Holding::Take), true);
        assert_eq!(ours, [""; 0], "what is ours stays");
    }

    #[test]
    fn a_standby_programs_services_whose_address_it_could_not_take() {
        for (holding, is_out) in [
            (Holding::Take, true),
            (Holding::TakeOver, true),
            (Holding::Undecided, true),
            (Holding::KeepOnly, false),
            (Holding::Release, false),
            (Holding::Wait, false),
        ] {
            let out = left_out(ground(AddressRule::Subnet, holding), false);
            assert_eq!(!out.is_empty(), is_out, "{holding:?}");
        }
    }

    #[test]
    fn while_the_interfaces_are_unknown_nothing_is_left_out() {
        let ground = Ground {
            interfaces: None,
            ..ground(AddressRule::Subnet, Holding::Take)
        };
        assert_eq!(left_out(ground, false), [""; 0]);
    }

    #[test]
    fn what_is_left_out_comes_in_when_its_subnet_appears_and_then_stays() {
        let (wish, mut places) = (services(), Places::default());
        let before = ground(AddressRule::Subnet, Holding::Take);
        let nowhere = tcp("203.0.113.7", 80);
        places.judge(&wish, before.clone(), |_| false);
        let missing = [(ip("203.0.113.7"), Missing::NoSubnet)];
        assert_eq!(places.missing(), missing.into());
        assert!(places.judge(&wish, before.clone(), |_| false).is_empty());

        let mut interfaces = before
            .interfaces
            .as_deref()
            .cloned()
            .expect("they are known");
        interfaces[0].addresses.push((ip("203.0.113.1"), 24));
        let after = Ground {
            interfaces: Some(Arc::new(interfaces)),
            ..before.clone()
        };
        assert_eq!(places.judge(&wish, after, |_| false), [nowhere].into());
        assert!(places.desired().table.contains_key(&nowhere));
        assert!(places.missing().is_empty());

        let gone = places.judge(&wish, before, |key| *key == nowhere);
        assert!(gone.is_empty(), "the service is ours by now");
    }

    #[test]
    fn a_director_that_is_undecided_reports_no_missing_address() {
        let mut places = Places::default();
        let undecided = ground(AddressRule::Subnet, Holding::Undecided);
        places.judge(&services(), undecided, |_| false);
        assert!(places.missing().is_empty());
    }
}
