//! Tests that no namespace's entries are left out of a status because of
//! another namespace's entries. Also tests that the API server accepts the size
//! of the status.

use crds::api::{ServiceBelowMinimum, UnhealthyServer, VipsHeld};

use super::*;
use crate::decide::addresses::Missing;

/// The size in bytes of the largest object that etcd accepts.
const LARGEST: usize = 1_572_864;

fn failing_services(namespace: &str, count: usize, message: &str) -> Vec<DirectorException> {
    (0..count)
        .map(|number| {
            let service = ObjectKey::new(namespace, format!("web{number}"));
            exception(&service, None, "KernelRefused", message)
        })
        .collect()
}

/// Returns the findings of a round that ended with the given exceptions.
fn with_exceptions(exceptions: Vec<DirectorException>) -> Observed {
    Observed {
        unreadable: exceptions,
        ..well()
    }
}

#[test]
fn one_namespace_with_very_many_exceptions_hides_none_of_another() {
    let mut exceptions = failing_services("evil", 5000, "no");
    exceptions.extend(failing_services("shop", 3, "no"));
    let status = fresh(&with_exceptions(exceptions));
    assert_eq!(
        (status.exceptions.len(), status.exceptions_omitted),
        (203, 4800)
    );
    assert_eq!(status.exceptions_omitted_namespaces, ["evil"]);
    assert!(status.leaves_out_exceptions_of("evil"));
    assert!(!status.leaves_out_exceptions_of("shop"));
    let of_shop = status.exceptions.iter().filter(|exception| {
        let namespace = &*exception.virtual_service.namespace;
        namespace == "shop"
    });
    assert_eq!(of_shop.count(), 3, "all of them are there");
}

#[test]
fn addresses_that_one_namespace_needs_hide_none_of_another() {
    let address = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n));
    let mut wishes = wishes();
    for n in 0..5000 {
        let namespace = if n == 4999 { "shop" } else { "evil" };
        let service = ObjectKey::new(namespace, format!("web{n}"));
        wishes.vips.entry(address(n)).or_default().insert(service);
    }
    let mut observed = Observed {
        wishes: wishes.into(),
        ..well()
    };
    let outcome = observed.outcome.as_mut().expect("a round");
    // One address of namespace evil is not here.
    outcome.vips = (1..5000).map(|n| (address(n), "eth0".to_owned())).collect();
    let status = fresh(&observed);
    assert_eq!(status.vips_held, VipsHeld::Some);
    assert_eq!((status.vips.len(), status.vips_omitted), (1001, 3998));
    assert_eq!(status.vips_omitted_namespaces, ["evil"]);
    let last = address(4999).to_string();
    assert!(status.vips.iter().any(|vip| vip.address == last));
}

#[test]
fn a_director_that_holds_all_addresses_says_so_in_one_word() {
    let address = |n: u32| IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + n));
    let mut wishes = wishes();
    wishes.vips.clear();
    for n in 0..5000 {
        let service = ObjectKey::new("shop", format!("web{n}"));
        wishes.vips.entry(address(n)).or_default().insert(service);
    }
    let mut observed = Observed {
        wishes: wishes.into(),
        ..well()
    };
    let outcome = observed.outcome.as_mut().expect("a round");
    outcome.vips = (0..5000)
        .map(|n| (address(n), "ipvs-vips".to_owned()))
        .collect();
    let said = |observed: &Observed| {
        let status = fresh(observed);
        (status.vips_held, status.vips.len(), status.vips_omitted)
    };
    assert_eq!(said(&observed), (VipsHeld::All, 32, 4968));

    let outcome = observed.outcome.as_mut().expect("a round");
    outcome.vips.remove(&address(7));
    outcome.missing.insert(address(7), Missing::NoSubnet);
    let status = fresh(&observed);
    assert_eq!(status.vips_held, VipsHeld::All);
    assert_eq!(status.exceptions.len(), 1, "{:?}", status.exceptions);

    let outcome = observed.outcome.as_mut().expect("a round");
    outcome.missing.insert(address(7), Missing::HolderNotNamed);
    let (held, ..) = said(&observed);
    assert_eq!(held, VipsHeld::Some, "it may not take the address");

    // In mode Manual another program puts the addresses up, or does not.
    let outcome = observed.outcome.as_mut().expect("a round");
    outcome.missing.clear();
    assert_eq!(said(&observed), (VipsHeld::Some, 1000, 3999));
}

#[test]
fn a_message_has_a_length_that_leaves_room_for_others() {
    let long = "ö".repeat(100_000);
    let status = fresh(&with_exceptions(failing_services("evil", 1, &long)));
    let message = &status.exceptions[0].message;
    assert!(message.len() <= 1010, "{}", message.len());
    assert!(message.ends_with('…'), "{message}");
}

/// Every list of the status is full of the longest entries, from very many
/// namespaces.
#[test]
fn within_every_budget_a_status_is_one_that_etcd_takes() {
    let name = "n".repeat(253);
    let namespace = |n: usize| format!("{n:063}");
    let long = "\u{1}ö\"".repeat(1000);
    let key = |n: usize| ObjectKey::new(namespace(n), name.as_str());
    let exceptions = (0..20_000).map(|n| {
        let mut found = exception(&key(n % 190), Some(&key(n % 190)), "KernelRefused", &long);
        found.message = shortened(found.message, 1000);
        found
    });
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(NOON);
    let unhealthy = (0..300).map(|n| UnhealthyServer {
        real_server: key(n),
        virtual_services: (0..100).map(|_| key(n)).collect(),
        state: crds::api::UnhealthyState::Down,
        since: time.clone(),
        message: long.chars().take(200).collect(),
    });
    let below = (0..300).map(|n| ServiceBelowMinimum {
        virtual_service: key(n),
        action: "SorryServer".to_owned(),
        healthy: i32::MAX,
        total: i32::MAX,
        minimum: i32::MAX,
        since: time.clone(),
    });
    let found = crate::decide::serving::report::within_room(unhealthy.collect(), below.collect());
    let mut observed = with_exceptions(exceptions.collect());
    observed.health = Arc::new(HealthReport {
        found: Some(found),
        targets: 1,
        ..HealthReport::default()
    });
    observed.protection = Arc::new(protect::Report {
        notices: vec![long.clone(); 1000],
        ..protect::Report::default()
    });
    let outcome = observed.outcome.as_mut().expect("a round");
    let address = |n: u32| IpAddr::from(std::net::Ipv6Addr::from(u128::MAX - u128::from(n)));
    outcome.vips = (0..5000)
        .map(|n| (address(n), "interface012345".to_owned()))
        .collect();
    // An address that is neither here nor in an exception: all must be listed.
    let mut wishes = (*observed.wishes).clone();
    let missing = IpAddr::from([10, 9, 9, 9]);
    wishes.vips.entry(missing).or_default().insert(key(0));
    observed.wishes = wishes.into();
    let status = fresh(&observed);
    assert!(status.exceptions_omitted > 0 && status.vips_omitted > 0);
    let health = status.health.as_ref().expect("results");
    assert!(health.unhealthy_omitted > 0 && health.below_minimum_omitted > 0);
    let size = serde_json::to_vec(&status).expect("JSON").len();
    assert!(size < LARGEST * 3 / 4, "{size} bytes leave no room");
}
