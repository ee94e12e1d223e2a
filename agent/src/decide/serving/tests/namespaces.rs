use super::*;

/// Adds two wanted services with the same server and the same check. Returns
/// the targets that are probed.
fn targets(policies: [CheckPolicy; 2]) -> Vec<Arc<Target>> {
    let mut serving = Serving::default();
    let wanted = WantedService {
        config: config("wrr"),
        destinations: [(server(1), weight(1))].into_iter().collect(),
    };
    for (number, policy) in policies.into_iter().enumerate() {
        let key = tcp("192.0.2.10", 80 + number as u16);
        let found = Found {
            service: None,
            is_ours: false,
        };
        let wish = Some((&Arc::new(policy), &wanted));
        serving.wish(key, wish, found, at(0));
    }
    let orders = serving.take_orders().into_iter();
    let targets = orders.filter_map(|order| match order {
        Order::Start(_, target) => Some(target),
        Order::Stop(_) | Order::Rates(_) => None,
    });
    targets.collect()
}

fn policy(namespace: &str) -> CheckPolicy {
    CheckPolicy {
        namespace: namespace.into(),
        ..CheckPolicy::clone(&check_policy(availability(), ""))
    }
}

#[test]
fn a_server_is_probed_once_for_each_namespace_and_within_that_ones_share() {
    assert_eq!(targets([policy("shop"), policy("shop")]).len(), 1);
    let both = targets([policy("shop"), policy("bank")]);
    let namespaces: Vec<_> = both.iter().map(|target| &*target.namespace).collect();
    assert_eq!(namespaces, ["shop", "bank"]);
}

#[test]
fn the_text_of_a_server_is_quoted_only_where_its_address_is_granted_by_name() {
    let granted = CheckPolicy {
        quotable: [server(1)].into(),
        ..policy("shop")
    };
    let other = CheckPolicy {
        quotable: [server(2)].into(),
        ..policy("shop")
    };
    let both = targets([granted, other]);
    let may_quote: Vec<_> = both.iter().map(|target| target.may_quote).collect();
    assert_eq!(may_quote, [true, false]);
}
