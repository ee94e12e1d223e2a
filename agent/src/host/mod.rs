//! Reads the interfaces, sockets, connections, routes and sysctls of this host,
//! and changes interfaces and sysctls. Also defines what a reading of the
//! kernel's table contains. This module makes no decisions: [`crate::decide`]
//! makes them.

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
