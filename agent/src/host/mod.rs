//! Reads and writes this host: its interfaces, sockets, connections, routes and sysctls,
//! and readings of the kernel's table. This module makes no decisions:
//! [`crate::decide`] does.

pub mod conntrack;
pub mod interface;
pub mod listeners;
pub mod lock;
pub mod netlink;
pub mod peers;
pub mod reading;
pub mod sockets;
pub mod surroundings;
pub mod sysctls;
