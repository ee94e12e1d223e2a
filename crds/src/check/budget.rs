use std::collections::BTreeMap;

use super::{grant, invalid};
use crate::{
    Rejection,
    api::{Budgets, NamedBudget, NamespaceBudget, TotalBudget},
    bounds,
};

/// The budgets of a DirectorGroup, which limit the work that API objects cause
/// on each director.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BudgetRule {
    /// The maximum number of servers that a service may select.
    pub servers_per_service: usize,
    /// The maximum number of destinations of the services of all namespaces
    /// together.
    pub total_destinations: usize,
    each: NamespaceRule,
    named: BTreeMap<String, NamespaceRule>,
}

/// The budget of one namespace, which limits the work that the namespace's
/// objects cause on each director.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NamespaceRule {
    /// The maximum number of services of the namespace.
    pub services: usize,
    /// The maximum number of destinations of the namespace's services together.
    pub destinations: usize,
    /// The maximum number of targets of the namespace's health checks together.
    pub probe_targets: usize,
    /// The maximum number of probes per second of the namespace's health checks
    /// together.
    pub probes_per_second: u32,
}

impl BudgetRule {
    /// Returns the budget of a namespace.
    pub fn of(&self, namespace: &str) -> NamespaceRule {
        self.named.get(namespace).copied().unwrap_or(self.each)
    }

    /// Returns the budget of a namespace that has no budget of its own.
    pub fn each(&self) -> NamespaceRule {
        self.each
    }

    /// Returns the namespaces that have a budget of their own.
    pub fn named(&self) -> impl Iterator<Item = (&str, NamespaceRule)> {
        self.named.iter().map(|(name, rule)| (&**name, *rule))
    }

    /// Returns the path, for messages, of the field `field` in the budget of a
    /// namespace.
    pub(crate) fn path(&self, namespace: &str, field: &str) -> String {
        match self.named.contains_key(namespace) {
            true => format!("{field} of entry {namespace} in spec.budgets.namespaces"),
            false => format!("spec.budgets.perNamespace.{field}"),
        }
    }
}

impl Default for BudgetRule {
    fn default() -> Self {
        budgets(None).expect("the defaults are valid")
    }
}

/// Checks the budgets of a DirectorGroup.
pub(super) fn budgets(raw: Option<&Budgets>) -> Result<BudgetRule, Rejection> {
    let defaults = Budgets::default();
    let raw = raw.unwrap_or(&defaults);
    let path = "spec.budgets";
    let total = raw.total.clone().unwrap_or_default();
    let TotalBudget { destinations } = total;
    let each = raw.per_namespace.clone().unwrap_or_default();
    let named = raw.namespaces.as_deref();
    Ok(BudgetRule {
        servers_per_service: number(
            &format!("{path}.serversPerService"),
            raw.servers_per_service,
            1,
            bounds::SERVERS_PER_SERVICE,
        )?,
        total_destinations: number(
            &format!("{path}.total.destinations"),
            destinations,
            0,
            bounds::DESTINATIONS,
        )?,
        named: match named {
            Some(named) => of_namespaces(&format!("{path}.namespaces"), named, &each)?,
            None => BTreeMap::new(),
        },
        each: of_namespace(&format!("{path}.perNamespace"), &each)?,
    })
}

fn of_namespaces(
    path: &str,
    raw: &[NamedBudget],
    each: &NamespaceBudget,
) -> Result<BTreeMap<String, NamespaceRule>, Rejection> {
    let names = raw.iter().map(|budget| &*budget.name);
    grant::names(path, names, bounds::BUDGETS)?;
    let entries = raw.iter().enumerate();
    let checked = entries.map(|(index, budget)| {
        let whole = NamespaceBudget {
            services: budget.services.unwrap_or(each.services),
            destinations: budget.destinations.unwrap_or(each.destinations),
            probe_targets: budget.probe_targets.unwrap_or(each.probe_targets),
            probes_per_second: budget.probes_per_second.unwrap_or(each.probes_per_second),
        };
        let rule = of_namespace(&format!("{path}[{index}]"), &whole)?;
        Ok((budget.name.clone(), rule))
    });
    checked.collect()
}

fn of_namespace(path: &str, raw: &NamespaceBudget) -> Result<NamespaceRule, Rejection> {
    let number =
        |field: &str, raw, least, most| number(&format!("{path}.{field}"), raw, least, most);
    let per_second = number(
        "probesPerSecond",
        raw.probes_per_second,
        1,
        bounds::PROBES_PER_SECOND,
    )?;
    Ok(NamespaceRule {
        services: number("services", raw.services, 0, bounds::SERVICES)?,
        destinations: number("destinations", raw.destinations, 0, bounds::DESTINATIONS)?,
        probe_targets: number("probeTargets", raw.probe_targets, 0, bounds::DESTINATIONS)?,
        probes_per_second: u32::try_from(per_second).expect("it is within its bounds"),
    })
}

fn number(path: &str, raw: i32, least: i32, most: i32) -> Result<usize, Rejection> {
    match usize::try_from(raw) {
        Ok(number) if (least..=most).contains(&raw) => Ok(number),
        _ => {
            let what = format_args!(
                "{raw} is no such budget; write {least} to {most}, or leave it out for the default"
            );
            Err(invalid(path, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_with_a_budget_of_its_own_has_the_other_numbers_of_all() {
        let raw: Budgets = serde_json::from_value(serde_json::json!({
            "perNamespace": {"services": 7, "destinations": 70},
            "namespaces": [{"name": "shop", "services": 500, "probesPerSecond": 8000}],
        }))
        .expect("valid budgets");
        let rule = budgets(Some(&raw)).expect("valid budgets");
        assert_eq!(rule.servers_per_service, 1000);
        assert_eq!(rule.total_destinations, 100_000);
        let each = NamespaceRule {
            services: 7,
            destinations: 70,
            probe_targets: 10_000,
            probes_per_second: 2000,
        };
        assert_eq!(rule.of("bank"), each);
        assert_eq!(
            rule.of("shop"),
            NamespaceRule {
                services: 500,
                probes_per_second: 8000,
                ..each
            }
        );
    }

    #[test]
    fn a_group_without_budgets_has_the_defaults() {
        let rule = BudgetRule::default();
        assert_eq!(budgets(Some(&Budgets::default())), Ok(rule.clone()));
        assert_eq!(
            rule.of("shop"),
            NamespaceRule {
                services: 10_000,
                destinations: 50_000,
                probe_targets: 10_000,
                probes_per_second: 2000,
            }
        );
    }
}
