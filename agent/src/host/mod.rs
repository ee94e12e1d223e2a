//! This host: its interfaces, listeners, routes, sysctls, and the kernel's
//! table as a reader finds it. Facts in, writes out; decisions are made in
//! [`crate::decide`].

pub mod interface;
pub mod listeners;
pub mod lock;
pub mod netlink;
pub mod reading;
pub mod surroundings;
pub mod sysctls;
