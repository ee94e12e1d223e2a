//! Reads interfaces and addresses, adds and removes addresses: rtnetlink on a
//! small runtime of the loop's own thread.

use std::net::IpAddr;

use futures::{StreamExt, TryStreamExt};
use rtnetlink::packet_route::{
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo},
    link::{LinkAttribute, LinkFlags, LinkMessage},
};

use super::addresses::Interface;

/// The edge to the host's interfaces, small, so that modelled ones can stand in.
pub trait Links {
    /// Every interface with its addresses.
    ///
    /// # Errors
    /// When the kernel does not answer.
    fn interfaces(&mut self) -> Result<Vec<Interface>, LinkError>;

    /// Adds a virtual address: /32 or /128, so that no route comes with it; an
    /// IPv6 one without duplicate detection and never as a source address.
    ///
    /// # Errors
    /// When the kernel refuses. That it is there already is not an error.
    fn add(&mut self, index: u32, address: IpAddr) -> Result<(), LinkError>;

    /// Removes a virtual address that [`Links::add`] put there.
    ///
    /// # Errors
    /// When the kernel refuses. That it is gone already is not an error.
    fn remove(&mut self, index: u32, address: IpAddr) -> Result<(), LinkError>;
}

/// What the kernel can say against an address.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket could not be made.
    #[error("cannot open a route socket: {0}")]
    Open(#[source] std::io::Error),
    /// The kernel refused or did not answer.
    #[error("{what}: {source}{}", remedy(source))]
    Kernel {
        /// What was asked of it.
        what: String,
        /// Its answer.
        source: Box<rtnetlink::Error>,
    },
}

/// The kernel's rtnetlink.
pub struct RouteSocket {
    runtime: tokio::runtime::Runtime,
    handle: rtnetlink::Handle,
}

impl RouteSocket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the system has no socket left.
    pub fn open() -> Result<Self, LinkError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(LinkError::Open)?;
        let handle = runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().map_err(LinkError::Open)?;
            tokio::spawn(connection);
            Ok(handle)
        })?;
        Ok(Self { runtime, handle })
    }
}

impl Links for RouteSocket {
    fn interfaces(&mut self) -> Result<Vec<Interface>, LinkError> {
        let handle = self.handle.clone();
        self.runtime.block_on(async move {
            let failed = |source| kernel("cannot list this host's addresses", source);
            let links: Vec<_> = handle
                .link()
                .get()
                .execute()
                .try_collect()
                .await
                .map_err(failed)?;
            let addresses: Vec<_> = handle
                .address()
                .get()
                .execute()
                .try_collect()
                .await
                .map_err(failed)?;
            Ok(links
                .iter()
                .map(|link| interface(link, &addresses))
                .collect())
        })
    }

    fn add(&mut self, index: u32, address: IpAddr) -> Result<(), LinkError> {
        let mut request = self
            .handle
            .address()
            .add(index, address, full_length(address));
        if address.is_ipv6() {
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(
                AddressFlags::Nodad | AddressFlags::Noprefixroute,
            ));
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_valid = u32::MAX;
            lifetime.ifa_preferred = 0;
            message
                .attributes
                .push(AddressAttribute::CacheInfo(lifetime));
        }
        match self.runtime.block_on(request.execute()) {
            Err(error) if errno(&error) == Some(nix::libc::EEXIST) => Ok(()),
            result => result.map_err(|source| kernel(format!("cannot add {address}"), source)),
        }
    }

    fn remove(&mut self, index: u32, address: IpAddr) -> Result<(), LinkError> {
        let handle = self.handle.clone();
        let result = self.runtime.block_on(async move {
            let mut found = handle
                .address()
                .get()
                .set_link_index_filter(index)
                .set_address_filter(address)
                .set_prefix_length_filter(full_length(address))
                .execute();
            while let Some(message) = found.next().await {
                handle.address().del(message?).execute().await?;
            }
            Ok(())
        });
        match result {
            Err(error) if errno(&error) == Some(nix::libc::EADDRNOTAVAIL) => Ok(()),
            result => result.map_err(|source| kernel(format!("cannot remove {address}"), source)),
        }
    }
}

fn full_length(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn interface(link: &LinkMessage, addresses: &[AddressMessage]) -> Interface {
    let name = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
    Interface {
        index: link.header.index,
        name: name.unwrap_or_default(),
        loopback: link.header.flags.contains(LinkFlags::Loopback),
        addresses: addresses
            .iter()
            .filter(|message| message.header.index == link.header.index)
            .filter_map(|message| Some((own_address(message)?, message.header.prefix_len)))
            .collect(),
    }
}

/// The interface's own address: IFA_LOCAL where there is one, as on
/// point-to-point links IFA_ADDRESS is the peer's (`include/uapi/linux/if_addr.h`).
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let attributes = || message.attributes.iter();
    attributes()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        })
        .or_else(|| {
            attributes().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
        })
}

fn kernel(what: impl Into<String>, source: rtnetlink::Error) -> LinkError {
    LinkError::Kernel {
        what: what.into(),
        source: Box::new(source),
    }
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| -code.get()),
        _ => None,
    }
}

fn remedy(error: &rtnetlink::Error) -> &'static str {
    match errno(error) {
        Some(nix::libc::EPERM | nix::libc::EACCES) => {
            "; run the agent as root or with CAP_NET_ADMIN"
        }
        _ => "",
    }
}
