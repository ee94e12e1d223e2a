//! Decides what this host should have. Several stages turn the API objects, and
//! facts about the host, into the wanted state of the host. The stages are
//! pure: time is an argument. No stage opens a socket or a file, or writes a
//! log.

pub mod absence;
pub mod addresses;
pub mod caution;
pub mod departures;
pub mod desired;
pub mod drains;
pub mod guard;
pub mod idle;
pub mod liveness;
pub mod ours;
pub mod permission;
pub mod places;
pub mod protect;
pub mod refusals;
pub mod retain;
pub mod serving;
pub mod sysctls;
