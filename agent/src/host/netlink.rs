//! Reads interfaces, addresses and neighbors, adds and removes addresses and the
//! device of our own: rtnetlink on a small runtime of the loop's own thread.

use std::{io, net::IpAddr};

use futures::{StreamExt, TryStreamExt};
use rtnetlink::{
    Handle, LinkDummy,
    packet_route::{
        address::{
            AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol,
            CacheInfo,
        },
        link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
        },
    },
};

use tokio::runtime::Runtime;

use super::interface::{Interface, Mac};

/// The edge to the host's interfaces, small, so that tests can use modelled
/// ones.
pub trait Links {
    /// Every interface with its addresses.
    ///
    /// # Errors
    /// When the kernel does not answer.
    fn interfaces(&mut self) -> Result<Vec<Interface>, LinkError>;

    /// Adds a virtual address with our mark: /32 or /128, so that no route
    /// comes with it; an IPv6 address without duplicate detection, and never as
    /// a source address.
    ///
    /// # Errors
    /// When the kernel refuses. That it is there already is not an error.
    fn add(&mut self, index: u32, address: IpAddr) -> Result<(), LinkError>;

    /// Removes a virtual address that [`Links::add`] put there.
    ///
    /// # Errors
    /// When the kernel refuses. That it is gone already is not an error.
    fn remove(&mut self, index: u32, address: IpAddr) -> Result<(), LinkError>;

    /// Makes a device for addresses that are this host's and on no segment, and
    /// switches it on.
    ///
    /// # Errors
    /// When the kernel refuses. That it is there already is not an error.
    fn make_device(&mut self, name: &str) -> Result<(), LinkError>;

    /// Removes a device that [`Links::make_device`] made.
    ///
    /// # Errors
    /// When the kernel refuses. That it is gone already is not an error.
    fn remove_device(&mut self, name: &str) -> Result<(), LinkError>;

    /// The Ethernet addresses of other hosts on this host's segments that the
    /// kernel knows, each with an address of that host.
    ///
    /// # Errors
    /// When the kernel does not answer.
    fn neighbors(&mut self) -> Result<Vec<(Mac, IpAddr)>, LinkError>;

    /// Makes the kernel find out the Ethernet address of a neighbor.
    /// [`Links::neighbors`] has it once the neighbor has answered.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn look_for_neighbor(&mut self, index: u32, address: IpAddr) -> Result<(), LinkError>;
}

/// The mark of an address that we put up: its protocol (`IFA_PROTO`, since
/// Linux 5.18), as routes have one. The kernel's own are 1 to 3
/// (`include/uapi/linux/if_addr.h`).
const MARK: AddressProtocol = AddressProtocol::Other(0x76);

/// Why the kernel did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket could not be made.
    #[error("cannot open a route socket: {0}")]
    Open(#[source] io::Error),
    /// The kernel refused or did not answer.
    #[error("{what}: {source}{}", remedy(source))]
    Kernel {
        /// What the kernel was asked for.
        what: String,
        /// The error that came back.
        source: Box<rtnetlink::Error>,
    },
}

/// A connection to the kernel's rtnetlink.
pub struct RouteSocket {
    runtime: Runtime,
    handle: Handle,
}

impl RouteSocket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the system has no socket left.
    pub fn open() -> Result<Self, LinkError> {
        let (runtime, handle) = connect(false).map_err(LinkError::Open)?;
        Ok(Self { runtime, handle })
    }
}

/// Opens a connection in the network namespace of the calling thread, with the
/// runtime that it lives on. If it is strict, the kernel honours every part of
/// a request, and refuses what it does not know (`NETLINK_GET_STRICT_CHK`).
pub(super) fn connect(is_strict: bool) -> io::Result<(Runtime, Handle)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let handle = runtime.block_on(async {
        let (connection, handle, _) = match is_strict {
            true => rtnetlink::new_connection_with_strict_check()?,
            false => rtnetlink::new_connection()?,
        };
        tokio::spawn(connection);
        Ok::<_, io::Error>(handle)
    })?;
    Ok((runtime, handle))
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
        let message = request.message_mut();
        message.attributes.push(AddressAttribute::Protocol(MARK));
        let mut flags = AddressFlags::Noprefixroute;
        if address.is_ipv6() {
            flags |= AddressFlags::Nodad;
            message.header.flags |= AddressHeaderFlags::Nodad;
            let mut lifetime = CacheInfo::default();
            lifetime.ifa_valid = u32::MAX;
            lifetime.ifa_preferred = 0;
            message
                .attributes
                .push(AddressAttribute::CacheInfo(lifetime));
        }
        message.attributes.push(AddressAttribute::Flags(flags));
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

    fn make_device(&mut self, name: &str) -> Result<(), LinkError> {
        let device = LinkDummy::new(name).up().build();
        let request = self.handle.link().add(device);
        match self.runtime.block_on(request.execute()) {
            Err(error) if errno(&error) == Some(nix::libc::EEXIST) => Ok(()),
            result => {
                result.map_err(|source| kernel(format!("cannot make the device {name}"), source))
            }
        }
    }

    fn remove_device(&mut self, name: &str) -> Result<(), LinkError> {
        let handle = self.handle.clone();
        let result = self.runtime.block_on(async move {
            let mut found = handle.link().get().match_name(name.to_owned()).execute();
            match found.try_next().await? {
                Some(link) => handle.link().del(link.header.index).execute().await,
                None => Ok(()),
            }
        });
        match result {
            Err(error) if errno(&error) == Some(nix::libc::ENODEV) => Ok(()),
            result => {
                result.map_err(|source| kernel(format!("cannot remove the device {name}"), source))
            }
        }
    }

    fn neighbors(&mut self) -> Result<Vec<(Mac, IpAddr)>, LinkError> {
        let request = self.handle.neighbours().get();
        let found: Result<Vec<_>, _> = self.runtime.block_on(request.execute().try_collect());
        let found = found.map_err(|source| kernel("cannot list this host's neighbors", source))?;
        Ok(found.iter().filter_map(neighbor).collect())
    }

    fn look_for_neighbor(&mut self, index: u32, address: IpAddr) -> Result<(), LinkError> {
        let request = self
            .handle
            .neighbours()
            .add(index, address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        self.runtime
            .block_on(request.execute())
            .map_err(|source| kernel(format!("cannot look for {address}"), source))
    }
}

fn neighbor(message: &NeighbourMessage) -> Option<(Mac, IpAddr)> {
    let mut mac = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(found) => {
                mac = <[u8; 6]>::try_from(found.as_slice()).ok().map(Mac);
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                address = Some(IpAddr::V4(*found));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address = Some(IpAddr::V6(*found));
            }
            _ => {}
        }
    }
    Some((mac?, address?))
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
    let flags = link.header.flags;
    let is_ethernet = link.header.link_layer_type == LinkLayerType::Ether
        && !flags.intersects(LinkFlags::Noarp | LinkFlags::Loopback);
    let mac = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Address(mac) => <[u8; 6]>::try_from(mac.as_slice()).ok().map(Mac),
            _ => None,
        });
    let mut interface = Interface {
        index: link.header.index,
        name: name.unwrap_or_default(),
        loopback: flags.contains(LinkFlags::Loopback),
        mac: mac.filter(|_| is_ethernet),
        up: flags.contains(LinkFlags::Up),
        connected: flags.contains(LinkFlags::LowerUp),
        ..Interface::default()
    };
    let its_own = |message: &&AddressMessage| message.header.index == link.header.index;
    for message in addresses.iter().filter(its_own) {
        let Some(address) = own_address(message) else {
            continue;
        };
        if message.header.flags.contains(AddressHeaderFlags::Dadfailed) {
            interface.unusable.push(address);
            continue;
        }
        let length = message.header.prefix_len;
        interface.addresses.push((address, length));
        let mut attributes = message.attributes.iter();
        if attributes.any(|attribute| *attribute == AddressAttribute::Protocol(MARK)) {
            interface.marked.push(address);
        }
    }
    interface
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
