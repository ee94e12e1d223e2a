//! Finds out whether this host has a working route to a server. The agent asks
//! the kernel about routes and interfaces after a server did not answer.

use std::{
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use netlink_packet_core::ErrorMessage;
use nix::errno::Errno;
use rtnetlink::{
    Error, Handle, RouteMessageBuilder,
    packet_route::{
        link::{LinkAttribute, LinkFlags, LinkMessage},
        route::RouteAttribute,
    },
};
use tokio::time::timeout;

use super::recent::Recent;

/// The time for which the kernel's answer about a route is cached. Without the
/// cache, hundreds of silent servers would cause hundreds of requests at once.
const BELIEVED: Duration = Duration::from_secs(1);
/// The maximum wait for the kernel's answer. The kernel normally answers at
/// once.
const PATIENCE: Duration = Duration::from_secs(1);

const NO_ROUTE: &str = "this host has no route to the server: add one";

/// Whether the kernel answered that no packet can reach the address. Either
/// there is no route, or the route's type is unreachable, prohibit or blackhole
/// (`fib_props` in `net/ipv4/fib_semantics.c`). Other errors say nothing about
/// the route.
fn is_no_route(error: &ErrorMessage) -> bool {
    let errno = error.code.map(|code| Errno::from_raw(-code.get()));
    use Errno::{EACCES, EHOSTUNREACH, EINVAL, ENETUNREACH};
    matches!(errno, Some(ENETUNREACH | EHOSTUNREACH | EACCES | EINVAL))
}

/// Asks the kernel about routes and interfaces, over rtnetlink.
pub(super) struct Routes {
    handle: Handle,
    interfaces: Recent<IpAddr, Result<u32, Arc<str>>>,
    troubles: Recent<u32, Option<Arc<str>>>,
}

impl Routes {
    /// Opens an rtnetlink socket in the network namespace of the calling
    /// thread. The caller must be inside a tokio runtime.
    ///
    /// # Errors
    /// Returns an error if the system has no socket left.
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self {
            handle,
            interfaces: Recent::new(BELIEVED),
            troubles: Recent::new(BELIEVED),
        })
    }

    /// Returns the reason why the server at `address` cannot answer, or `None`
    /// if the kernel reports no problem.
    pub(super) async fn trouble(&self, address: IpAddr) -> Option<Arc<str>> {
        let now = Instant::now();
        let asked = async {
            let interface = match self.interfaces.get(&address, now) {
                Some(interface) => interface,
                None => {
                    let found = self.interface(address).await?;
                    self.interfaces.put(address, found, now)
                }
            };
            let index = match interface {
                Ok(index) => index,
                Err(why) => return Ok(Some(why)),
            };
            match self.troubles.get(&index, now) {
                Some(trouble) => Ok(trouble),
                None => {
                    let found = self.interface_trouble(index).await?;
                    Ok(self.troubles.put(index, found, now))
                }
            }
        };
        match timeout(PATIENCE, asked).await {
            Ok(Ok::<_, Error>(trouble)) => trouble,
            // The kernel did not answer, so no problem of this host is known.
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Returns the index of the interface that leads to `address`, or the
    /// reason why no interface leads there.
    async fn interface(&self, address: IpAddr) -> Result<Result<u32, Arc<str>>, Error> {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let request = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(address, length)
            .expect("the prefix length fits the address family")
            .build();
        let mut routes = Box::pin(self.handle.route().get(request).execute());
        let route = match routes.try_next().await {
            Ok(None) => return Ok(Err(NO_ROUTE.into())),
            Err(Error::NetlinkError(message)) if is_no_route(&message) => {
                return Ok(Err(NO_ROUTE.into()));
            }
            route => route?.expect("Ok(None) was handled above"),
        };
        let index = route
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            });
        Ok(index.ok_or_else(|| "this host's route to the server has no interface".into()))
    }

    async fn interface_trouble(&self, index: u32) -> Result<Option<Arc<str>>, Error> {
        let request = self.handle.link().get().match_index(index);
        let link = Box::pin(request.execute()).try_next().await?;
        Ok(link.as_ref().and_then(trouble).map(Arc::from))
    }
}

fn trouble(link: &LinkMessage) -> Option<String> {
    let name = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        });
    let name = name.unwrap_or("?");
    let flags = link.header.flags;
    if !flags.contains(LinkFlags::Up) {
        Some(format!("interface {name} is down: ip link set {name} up"))
    } else if !flags.contains(LinkFlags::LowerUp) {
        Some(format!(
            "interface {name} has no carrier: look at its cable and its switch's port"
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(flags: LinkFlags) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.flags = flags;
        link.attributes.push(LinkAttribute::IfName("eth1".into()));
        link
    }

    #[test]
    fn an_interface_that_is_down_or_has_no_carrier_is_named() {
        assert_eq!(trouble(&link(LinkFlags::Up | LinkFlags::LowerUp)), None);
        assert_eq!(
            trouble(&link(LinkFlags::empty())).unwrap(),
            "interface eth1 is down: ip link set eth1 up"
        );
        assert_eq!(
            trouble(&link(LinkFlags::Up)).unwrap(),
            "interface eth1 has no carrier: look at its cable and its switch's port"
        );
    }

    #[tokio::test]
    async fn this_host_has_a_way_to_itself() {
        let routes = Routes::open().unwrap();
        for address in ["127.0.0.1", "127.9.9.9"] {
            let trouble = routes.trouble(address.parse().unwrap()).await;
            assert_eq!(trouble, None, "{address}");
        }
    }
}
