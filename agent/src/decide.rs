//! Decides what this host should have. Objects and facts about the host go in,
//! and the wanted state of the host comes out, stage by stage. The stages are
//! pure: time is an argument, and no stage opens a socket or a file, or logs.

pub mod absence;
pub mod addresses;
pub mod caution;
pub mod desired;
pub mod guard;
pub mod liveness;
pub mod ours;
pub mod permission;
pub mod places;
pub mod protect;
pub mod refusals;
pub mod retain;
pub mod serving;
pub mod sysctls;
