//! Reads and writes this host: its interfaces, listeners, routes and sysctls,
//! and readings of the kernel's table. This module makes no decisions; the
//! module [`crate::decide`] makes them.

pub mod interface;
pub mod listeners;
pub mod lock;
pub mod netlink;
pub mod reading;
pub mod surroundings;
pub mod sysctls;
