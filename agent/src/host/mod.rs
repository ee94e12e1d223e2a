//! What a director has around the IPVS table. Plans are pure; `netlink` acts.

pub mod addresses;
pub mod listeners;
pub mod netlink;
pub mod surroundings;
pub mod sysctls;
pub mod watch;
