use serde_json::json;

use super::*;
use crate::{
    condition::reason,
    fixtures::{Fixture, group, key, server, service},
};

fn listing(store: &mut Store<CheckedService>, items: &[Fixture]) -> bool {
    store.change(Change::Listing);
    for item in items {
        store.change(Change::Item(item.read()));
    }
    store.change(Change::Listed)
}

#[test]
fn a_store_is_listed_after_its_first_listing() {
    let mut store = Store::<CheckedService>::default();
    assert!(!store.is_listed());
    store.change(Change::Listing);
    store.change(Change::Item(service("web").read()));
    assert!(!store.is_listed());
    assert!(store.is_empty());
    assert!(store.change(Change::Listed));
    assert!(store.is_listed());
    assert_eq!(store.len(), 1);
}

#[test]
fn what_a_listing_does_not_name_is_gone() {
    let mut store = Store::<CheckedService>::default();
    listing(&mut store, &[service("a"), service("b")]);
    assert!(listing(&mut store, &[service("b"), service("c")]));
    assert_eq!(
        store.iter().map(|(key, _)| key).collect::<Vec<_>>(),
        [&key("b"), &key("c")]
    );
    assert!(
        !listing(&mut store, &[service("b"), service("c")]),
        "nothing is different"
    );
}

#[test]
fn what_a_listing_leaves_out_is_known_before_it_is_complete() {
    let mut store = Store::<CheckedService>::default();
    listing(&mut store, &[service("a"), service("b"), service("c")]);
    store.change(Change::Listing);
    store.change(Change::Item(service("b").read()));
    store.change(Change::Delete(key("c")));
    let left_out: Vec<_> = store.left_out().cloned().collect();
    assert_eq!(left_out, [key("a")], "c was deleted by an event");
    store.change(Change::Listed);
    assert_eq!(store.len(), 1);
}

#[test]
fn a_change_during_a_listing_is_not_lost() {
    let mut store = Store::<CheckedService>::default();
    listing(&mut store, &[service("a"), service("b")]);
    store.change(Change::Listing);
    store.change(Change::Item(service("a").read()));
    store.change(Change::Apply(service("c").read()));
    store.change(Change::Delete(key("a")));
    store.change(Change::Listed);
    assert_eq!(
        store.iter().map(|(key, _)| key).collect::<Vec<_>>(),
        [&key("c")]
    );
}

#[test]
fn a_status_that_somebody_wrote_changes_nothing() {
    let mut store = Store::<CheckedService>::default();
    assert!(store.change(Change::Apply(service("web").read())));
    let written = service("web")
        .with("status", json!({"conditions": []}))
        .with("metadata.resourceVersion", "7");
    assert!(!store.change(Change::Apply(written.read())));
    let labelled = service("web").with("metadata.labels", json!({"a": "b"}));
    assert!(store.change(Change::Apply(labelled.read())));
    assert!(store.change(Change::Delete(key("web"))));
    assert!(!store.change(Change::Delete(key("web"))));
}

#[test]
fn an_unreadable_object_is_kept_with_its_last_good_spec() {
    let mut store = Store::<CheckedService>::default();
    let good = service("web").with("spec.directorGroupName", "edge");
    store.change(Change::Apply(good.read()));
    let before = store.get(&key("web")).unwrap().clone();

    let bad = good
        .clone()
        .edited("spec", json!({"vip": "none", "directorGroupName": "core"}));
    assert!(store.change(Change::Apply(bad.read())));
    let after = store.get(&key("web")).unwrap();
    assert_eq!(after.in_force(), before.in_force());
    assert_eq!(after.generation, 2);
    assert_eq!(after.group.as_deref(), Some("edge"));
    let rejection = after.current.as_ref().unwrap_err();
    assert_eq!(rejection.reason, reason::UNREADABLE);
    assert!(
        rejection.message.starts_with("spec.vip: "),
        "{}",
        rejection.message
    );

    listing(&mut store, std::slice::from_ref(&bad));
    assert_eq!(
        store.get(&key("web")).unwrap().in_force(),
        before.in_force(),
        "over a listing"
    );

    let mended = bad.edited("spec", good.read::<serde_json::Value>()["spec"].clone());
    store.change(Change::Apply(mended.read()));
    let mended = store.get(&key("web")).unwrap();
    assert!(mended.current.is_ok());
    assert_eq!(mended.last_good, None);
}

#[test]
fn an_object_that_was_never_good_has_nothing_in_force() {
    let mut store = Store::<CheckedService>::default();
    let bad = service("web").with("spec", json!({"directorGroupName": "edge"}));
    store.change(Change::Apply(bad.read()));
    let stored = store.get(&key("web")).unwrap();
    assert_eq!(stored.in_force(), None);
    assert_eq!(stored.group.as_deref(), Some("edge"));
}

#[test]
fn a_new_object_of_an_old_name_inherits_nothing() {
    let mut store = Store::<CheckedService>::default();
    store.change(Change::Apply(service("web").read()));
    let other = service("web")
        .with("metadata.uid", "other")
        .with("spec.vip.port", 81);
    store.change(Change::Apply(other.read()));
    assert!(
        store.get(&key("web")).unwrap().current.is_ok(),
        "its vip is its own"
    );
    let bad = other
        .with("metadata.uid", "third")
        .with("spec.vip.port", 70000);
    store.change(Change::Apply(bad.read()));
    assert_eq!(store.get(&key("web")).unwrap().in_force(), None);
}

#[test]
fn what_is_immutable_stays() {
    let edits = [
        ("spec.vip.address", json!("10.0.0.2"), "spec.vip: "),
        ("spec.vip.port", json!(81), "spec.vip: "),
        ("spec.vip.protocol", json!("UDP"), "spec.vip: "),
        (
            "spec.directorGroupName",
            json!("edge"),
            "spec.directorGroupName: ",
        ),
    ];
    for (place, value, begins) in edits {
        let mut store = Store::<CheckedService>::default();
        store.change(Change::Apply(service("web").read()));
        let edited = service("web").edited(place, value);
        store.change(Change::Apply(edited.read()));
        let stored = store.get(&key("web")).unwrap();
        let rejection = stored.current.as_ref().unwrap_err();
        assert_eq!(rejection.reason, reason::IMMUTABLE);
        assert!(
            rejection.message.starts_with(begins),
            "{}",
            rejection.message
        );
        assert_eq!(stored.group.as_deref(), Some("default"), "{place}");
        // A restarted watch delivers the same object again.
        assert!(!store.change(Change::Apply(edited.read())), "{place}");
    }
}

#[test]
fn the_same_vip_written_otherwise_is_not_an_edit() {
    let mut store = Store::<CheckedService>::default();
    let v6 = service("web").with("spec.vip.address", "2001:db8::1");
    store.change(Change::Apply(v6.read()));
    let same = v6.edited("spec.vip.address", "2001:DB8:0::1");
    store.change(Change::Apply(same.read()));
    assert!(store.get(&key("web")).unwrap().current.is_ok());
}

#[test]
fn a_group_that_is_gone_keeps_its_last_spec_until_it_is_back() {
    let mut objects = Objects::default();
    let edge = group("edge").with("spec.addresses", json!({"holder": "lb-1"}));
    edge.apply(&mut objects);
    let holder = |objects: &Objects| {
        objects
            .group("edge")
            .and_then(|stored| stored.in_force()?.holder.clone())
    };

    for ends in [Change::Delete(ObjectKey::cluster("edge")), Change::Listed] {
        assert!(!objects.is_group_gone("edge"));
        assert!(objects.director_groups.change(ends));
        assert!(objects.is_group_gone("edge"));
        assert!(objects.director_groups.is_empty());
        assert_eq!(holder(&objects).as_deref(), Some("lb-1"));
        assert_eq!(
            objects
                .director_groups
                .digest_of(&ObjectKey::cluster("edge")),
            Digest::default()
        );
        edge.apply(&mut objects);
    }
    assert!(objects.group("core").is_none());
}

#[test]
fn services_and_servers_that_are_gone_are_gone() {
    let mut store = Store::<CheckedServer>::default();
    store.change(Change::Apply(server("a", "10.1.0.1").read()));
    store.change(Change::Delete(key("a")));
    assert_eq!(store.gone().count(), 0);
}

#[test]
fn a_digest_is_of_the_objects_and_not_of_their_order() {
    let mut one = Store::<CheckedService>::default();
    let mut other = Store::<CheckedService>::default();
    let edge = service("b").with("spec.directorGroupName", "edge");
    for fixture in [service("a"), edge.clone()] {
        one.change(Change::Apply(fixture.read()));
    }
    for fixture in [edge.clone(), service("a"), service("c")] {
        other.change(Change::Apply(fixture.read()));
    }
    assert_ne!(one.digest("default"), other.digest("default"));
    assert_eq!(one.digest("edge"), other.digest("edge"));
    assert_eq!(one.digest("edge"), one.digest_of(&key("b")));
    other.change(Change::Delete(key("c")));
    assert_eq!(one.digest("default"), other.digest("default"));
    assert_eq!(one.digest("core"), Digest::default());
    one.change(Change::Apply(edge.edited("spec.scheduler", "rr").read()));
    assert_ne!(one.digest("edge"), other.digest("edge"));
}

/// A RealServer that no service of the group can select changes no report.
#[test]
fn the_digest_of_real_servers_covers_the_namespaces_with_a_service_of_the_group() {
    let mut objects = Objects::default();
    let digest = |objects: &Objects, group: &str| objects.digests(group).real_servers;
    let elsewhere = |fixture: Fixture| fixture.with("metadata.namespace", "bank");
    let none = Digest::default().to_string();

    let web = service("web");
    objects.virtual_services.change(Change::Apply(web.read()));
    let own = server("a", "10.1.0.1");
    objects.real_servers.change(Change::Apply(own.read()));
    let before = digest(&objects, "default");
    assert_ne!(before, none);
    assert_eq!(digest(&objects, "edge"), none, "it has no service");

    let other = elsewhere(server("b", "10.1.0.2"));
    let relabelled = other.clone().with("metadata.labels.app", "other");
    for change in [other, relabelled] {
        objects.real_servers.change(Change::Apply(change.read()));
        assert_eq!(digest(&objects, "default"), before);
    }

    let joins = elsewhere(service("pay"));
    objects.virtual_services.change(Change::Apply(joins.read()));
    assert_ne!(digest(&objects, "default"), before);
    objects.virtual_services.change(Change::Delete(joins.key()));
    assert_eq!(digest(&objects, "default"), before);

    let invalid = own.edited("spec.weight", -1);
    objects.real_servers.change(Change::Apply(invalid.read()));
    assert_ne!(digest(&objects, "default"), before, "valid or not");
}
