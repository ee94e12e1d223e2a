//! What this host should have: pure. Objects and facts go in, and the wanted
//! state of this host comes out, stage by stage. Time is an argument. Nothing
//! here opens a socket or a file, or logs.

pub mod addresses;
pub mod caution;
pub mod desired;
pub mod guard;
pub mod ours;
pub mod protect;
pub mod retain;
pub mod serving;
pub mod sysctls;
