//! Reads the host's interfaces, addresses and neighbors. Adds and removes
//! addresses and the agent's own device. This code uses rtnetlink on a small
//! tokio runtime in the loop's thread.

use std::{io, net::IpAddr, time::Duration};

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

use tokio::{runtime::Runtime, time};

use super::interface::{Interface, Mac};

/// The boundary to the host's interfaces, kept small so that tests can replace
/// it with a model.
pub trait Links {
    /// Returns every interface of the host with its addresses.
    ///
    /// # Errors
    /// Returns an error if the kernel does not answer.
    fn interfaces(&mut self) -> Result<Vec<Interface>, LinkError>;

    /// Adds a virtual address with the agent's mark. The prefix length is /32
    /// or /128, so the kernel adds no route. The kernel skips duplicate address
    /// detection for an added IPv6 address, and never chooses the address as a
    /// source.
    ///
    /// # Errors
    /// Returns an error if the kernel refuses the request. If the address is
    /// already on the interface, returns no error.
    fn add(&mut self, index: u32, address: IpAddr) -> Result<(), LinkError>;

    /// Removes a virtual address that [`Links::add`] added.
    ///
    /// # Errors
    /// Returns an error if the kernel refuses the request. If the address is
    /// already gone, returns no error.
    fn remove(&mut self, index: u32, address: IpAddr) -> Result<(), LinkError>;

    /// Creates a dummy device for virtual addresses that should be on no
    /// segment, and switches the device on.
    ///
    /// # Errors
    /// Returns an error if the kernel refuses the request. If the device
    /// already exists, returns no error.
    fn make_device(&mut self, name: &str) -> Result<(), LinkError>;

    /// Removes a device that [`Links::make_device`] created.
    ///
    /// # Errors
    /// Returns an error if the kernel refuses the request. If the device is
    /// already gone, returns no error.
    fn remove_device(&mut self, name: &str) -> Result<(), LinkError>;

    /// Returns the kernel's known neighbors on this host's segments. A neighbor
    /// is an Ethernet address and an IP address.
    ///
    /// # Errors
    /// Returns an error if the kernel does not answer.
    fn neighbors(&mut self) -> Result<Vec<(Mac, IpAddr)>, LinkError>;

    /// Makes the kernel find out the Ethernet address of a neighbor. Once the
    /// neighbor has answered, [`Links::neighbors`] includes the neighbor.
    ///
    /// # Errors
    /// Returns an error if the kernel refuses the request.
    fn look_for_neighbor(&mut self, index: u32, address: IpAddr) -> Result<(), LinkError>;
}

/// The mark of an address that the agent added. The mark is the address
/// protocol (`IFA_PROTO`, since Linux 5.18), which resembles a route's
/// protocol. The kernel's own address protocols are 1 to 3
/// (`include/uapi/linux/if_addr.h`).
const MARK: AddressProtocol = AddressProtocol::Other(0x76);

/// The reason why a request to the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The route socket could not be opened.
    #[error("cannot open a route socket: {0}")]
    Open(#[source] io::Error),
    /// The kernel did not answer a request in time.
    #[error("{what}: the kernel did not answer within {} s", PATIENCE.as_secs())]
    Silent {
        /// A description of the failed request, such as "cannot add 192.0.2.1".
        what: String,
    },
    /// The kernel refused a request.
    #[error("{what}: {source}{}", remedy(source))]
    Kernel {
        /// A description of the failed request, such as "cannot add 192.0.2.1".
        what: String,
        /// The error that the failed request returned.
        source: Box<rtnetlink::Error>,
    },
}

/// The maximum wait for the kernel's answer to a request. The kernel answers
/// within milliseconds, unless it hangs or an answer got lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to the kernel's rtnetlink.
pub struct RouteSocket {
    runtime: Runtime,
    handle: Handle,
    patience: Duration,
    /// Whether the kernel left a request without an answer. Every further
    /// request then fails at once, so that a round does not wait again and
    /// again. The caller opens a new connection.
    is_silent: bool,
}

impl RouteSocket {
    /// Opens a route socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Returns an error if the system has no socket left.
    pub fn open() -> Result<Self, LinkError> {
        let (runtime, handle) = connect(false).map_err(LinkError::Open)?;
        Ok(Self {
            runtime,
            handle,
            patience: PATIENCE,
            is_silent: false,
        })
    }

    /// Sends a request and waits for the answer. `what` says what has failed if
    /// there is no answer, such as "cannot add 192.0.2.1".
    fn ask<T>(
        &mut self,
        what: impl Into<String>,
        request: impl Future<Output = Result<T, rtnetlink::Error>>,
    ) -> Result<Result<T, rtnetlink::Error>, LinkError> {
        let patience = match self.is_silent {
            true => Duration::ZERO,
            false => self.patience,
        };
        let answer = async { time::timeout(patience, request).await };
        self.runtime.block_on(answer).map_err(|_| {
            self.is_silent = true;
            LinkError::Silent { what: what.into() }
        })
    }
}

/// Opens an rtnetlink connection in the network namespace of the calling
/// thread. Returns the connection's handle and the runtime on which the
/// connection runs. If `is_strict` is true, the kernel honours every part of a
/// request, and refuses unknown parts (`NETLINK_GET_STRICT_CHK`).
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
        let what = "cannot list this host's addresses";
        let found = self.ask(what, async move {
            let links: Vec<_> = handle.link().get().execute().try_collect().await?;
            let addresses: Vec<_> = handle.address().get().execute().try_collect().await?;
            Ok((links, addresses))
        })?;
        let (links, addresses) = found.map_err(|source| kernel(what, source))?;
        let interfaces = links.iter().map(|link| interface(link, &addresses));
        Ok(interfaces.collect())
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
        let what = format!("cannot add {address}");
        match self.ask(&*what, request.execute())? {
            Err(error) if errno(&error) == Some(nix::libc::EEXIST) => Ok(()),
            result => result.map_err(|source| kernel(what, source)),
        }
    }

    fn remove(&mut self, index: u32, address: IpAddr) -> Result<(), LinkError> {
        let handle = self.handle.clone();
        let what = format!("cannot remove {address}");
        let result = self.ask(&*what, async move {
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
        })?;
        match result {
            Err(error) if errno(&error) == Some(nix::libc::EADDRNOTAVAIL) => Ok(()),
            result => result.map_err(|source| kernel(what, source)),
        }
    }

    fn make_device(&mut self, name: &str) -> Result<(), LinkError> {
        let device = LinkDummy::new(name).up().build();
        let request = self.handle.link().add(device);
        let what = format!("cannot make the device {name}");
        match self.ask(&*what, request.execute())? {
            Err(error) if errno(&error) == Some(nix::libc::EEXIST) => Ok(()),
            result => result.map_err(|source| kernel(what, source)),
        }
    }

    fn remove_device(&mut self, name: &str) -> Result<(), LinkError> {
        let handle = self.handle.clone();
        let what = format!("cannot remove the device {name}");
        let name = name.to_owned();
        let result = self.ask(&*what, async move {
            let mut found = handle.link().get().match_name(name).execute();
            match found.try_next().await? {
                Some(link) => handle.link().del(link.header.index).execute().await,
                None => Ok(()),
            }
        })?;
        match result {
            Err(error) if errno(&error) == Some(nix::libc::ENODEV) => Ok(()),
            result => result.map_err(|source| kernel(what, source)),
        }
    }

    fn neighbors(&mut self) -> Result<Vec<(Mac, IpAddr)>, LinkError> {
        let request = self.handle.neighbours().get();
        let what = "cannot list this host's neighbors";
        let found = self.ask(what, request.execute().try_collect::<Vec<_>>())?;
        let found = found.map_err(|source| kernel(what, source))?;
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
        let what = format!("cannot look for {address}");
        let answer = self.ask(&*what, request.execute())?;
        answer.map_err(|source| kernel(what, source))
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

/// Returns the interface's own address: IFA_LOCAL if the message has it,
/// otherwise IFA_ADDRESS. On point-to-point links, IFA_ADDRESS is the peer's
/// address (`include/uapi/linux/if_addr.h`).
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Returns a socket whose connection passes on no request.
    fn hung() -> RouteSocket {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let (connection, handle, _) = {
            let _inside = runtime.enter();
            rtnetlink::new_connection().expect("a socket")
        };
        // The connection must not be dropped, or the requests would fail at
        // once.
        runtime.spawn(async move {
            let _kept = connection;
            std::future::pending::<()>().await;
        });
        RouteSocket {
            runtime,
            handle,
            patience: Duration::from_millis(50),
            is_silent: false,
        }
    }

    #[test]
    fn a_kernel_that_does_not_answer_is_waited_for_once() {
        let mut socket = hung();
        let failed = socket.interfaces().expect_err("nobody answers");
        assert_eq!(
            failed.to_string(),
            "cannot list this host's addresses: the kernel did not answer within 10 s"
        );
        socket.patience = Duration::from_secs(3600);
        let began = Instant::now();
        socket.neighbors().expect_err("nobody answers");
        let address = IpAddr::from([192, 0, 2, 1]);
        socket.add(1, address).expect_err("nobody answers");
        assert!(
            began.elapsed() < Duration::from_secs(1800),
            "it is not waited for again"
        );
    }
}
