//! Rejects objects that lack a grant, and names the command that adds the
//! grant.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::{
    BelowMinimum, ObjectKey, Rejection, Server, ServiceId, Source,
    check::{CheckedService, Extent, Grants, is_kube_proxys, is_metadata},
    condition::reason,
};

/// The grants of a service's DirectorGroup.
pub(super) struct Granted<'a> {
    /// The group's name.
    pub(super) group: &'a str,
    /// The grants of the group's last accepted version, or None if no version
    /// was ever accepted.
    pub(super) grants: Option<&'a Grants>,
}

impl Granted<'_> {
    /// Returns how the group grants a service's VIP or mark, or a rejection
    /// that names the missing grant. A service from a file needs no grant.
    pub(super) fn judge(
        &self,
        key: &ObjectKey,
        service: &CheckedService,
        source: Source,
    ) -> Result<Extent, Rejection> {
        if source == Source::File {
            return Ok(Extent::Default);
        }
        let Some(grants) = self.grants else {
            return Err(self.nothing(service));
        };
        let namespace = &*key.namespace;
        let extent = match service.id {
            ServiceId::Vip { address, .. } => grants
                .vip(namespace, address)
                .ok_or_else(|| self.vip(namespace, address, grants))?,
            ServiceId::FirewallMark { mark, .. } => match grants.mark(namespace, mark) {
                true => Extent::Network,
                false => return Err(self.mark(namespace, mark.get(), grants)),
            },
        };
        if let BelowMinimum::Sorry(sorry) = &service.availability.below
            && grants.server(namespace, sorry.address).is_none()
        {
            let path = "spec.availability.belowMinimum.sorryServer.address";
            return Err(self.server(path, namespace, sorry.address, grants));
        }
        Ok(extent)
    }

    /// Returns true if the group's `spec.realServerAddresses` grants the
    /// server's address, and false if the group grants the address by default.
    /// Returns a rejection if the group does not grant the address. A server
    /// from a file needs no grant, so the result is true.
    pub(super) fn judge_server(
        &self,
        key: &ObjectKey,
        server: &Server,
        source: Source,
    ) -> Result<bool, Rejection> {
        match (source, self.grants) {
            (Source::File, _) => Ok(true),
            // A group that was never accepted grants nothing. The service is
            // already rejected for this reason, so the server needs no
            // rejection.
            (Source::Api, None) => Ok(false),
            (Source::Api, Some(grants)) => {
                let extent = grants.server(&key.namespace, server.address);
                let extent = extent.ok_or_else(|| {
                    self.server("spec.address", &key.namespace, server.address, grants)
                })?;
                Ok(extent != Extent::Default)
            }
        }
    }

    fn nothing(&self, service: &CheckedService) -> Rejection {
        let (path, reason) = match service.id {
            ServiceId::Vip { .. } => ("spec.vip.address", reason::ADDRESS_NOT_GRANTED),
            ServiceId::FirewallMark { .. } => ("spec.firewallMark.mark", reason::MARK_NOT_GRANTED),
        };
        Rejection {
            reason,
            message: format!(
                "{path}: DirectorGroup {0} was never accepted, so it grants nothing; correct what \
                 its condition Accepted says: kubectl describe directorgroup {0}",
                self.group
            ),
        }
    }

    fn vip(&self, namespace: &str, address: IpAddr, grants: &Grants) -> Rejection {
        let entry = json!({
            "name": entry_name(namespace, address),
            "cidrs": [one_address(address)],
            "namespaces": [namespace],
        });
        Rejection {
            reason: reason::ADDRESS_NOT_GRANTED,
            message: format!(
                "spec.vip.address: DirectorGroup {} does not grant {address} to namespace \
                 {namespace}; an administrator grants it with: {}",
                self.group,
                self.command("addressPools", &entry, grants.has_pools())
            ),
        }
    }

    fn mark(&self, namespace: &str, mark: u32, grants: &Grants) -> Rejection {
        if is_kube_proxys(mark) {
            return Rejection {
                reason: reason::MARK_NOT_GRANTED,
                message: format!(
                    "spec.firewallMark.mark: {mark} is a mark that kube-proxy sets, and no \
                     DirectorGroup grants it; make a new VirtualService with another mark"
                ),
            };
        }
        let entry = json!({
            "name": format!("{}-{mark}", shortened(namespace)),
            "first": mark,
            "last": mark,
            "namespaces": [namespace],
        });
        Rejection {
            reason: reason::MARK_NOT_GRANTED,
            message: format!(
                "spec.firewallMark.mark: DirectorGroup {} does not grant mark {mark} to namespace \
                 {namespace}; an administrator grants it with: {}",
                self.group,
                self.command("firewallMarks", &entry, grants.has_marks())
            ),
        }
    }

    fn server(&self, path: &str, namespace: &str, address: IpAddr, grants: &Grants) -> Rejection {
        let entry = json!({
            "name": entry_name(namespace, address),
            "cidrs": [one_address(address)],
            "namespaces": [namespace],
        });
        let message = match grants.names_servers() {
            true => format!(
                "{path}: DirectorGroup {} does not grant {address} to servers of namespace \
                 {namespace}; an administrator grants it with: {}",
                self.group,
                self.command("realServerAddresses", &entry, true)
            ),
            // The message offers no command. A first entry in the list would
            // replace the default grant, so all other addresses would be
            // refused.
            false => format!(
                "{path}: {address} is {}, which no server may have unless \
                 spec.realServerAddresses of DirectorGroup {} lists it",
                match is_metadata(address) {
                    true => "an address at which clouds serve metadata and credentials",
                    false => "a loopback address, the director itself",
                },
                self.group
            ),
        };
        Rejection {
            reason: reason::ADDRESS_NOT_GRANTED,
            message,
        }
    }

    /// The command that adds an entry to a list of the group.
    fn command(&self, list: &str, entry: &Value, is_there: bool) -> String {
        let (kind, patch) = match is_there {
            true => {
                let path = format!("/spec/{list}/-");
                let patch = json!([{"op": "add", "path": path, "value": entry}]);
                ("json", patch)
            }
            false => ("merge", json!({"spec": {list: [entry]}})),
        };
        format!(
            "kubectl patch directorgroup {} --type={kind} -p '{patch}'",
            self.group
        )
    }
}

/// Returns a name for a new grant of an address to a namespace. The name is a
/// DNS label.
fn entry_name(namespace: &str, address: IpAddr) -> String {
    let address = address.to_string().replace(['.', ':'], "-");
    format!("{}-{}", shortened(namespace), address.trim_matches('-'))
}

/// Shortens a namespace's name, so that a DNS label has room for the name and
/// an address.
fn shortened(namespace: &str) -> &str {
    namespace[..namespace.len().min(20)].trim_end_matches('-')
}

/// Returns the CIDR that contains only the given address.
pub fn one_address(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}
