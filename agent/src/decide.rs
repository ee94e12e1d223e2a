//! What should be: pure. Objects and facts in, the wanted state of this host
//! out, stage by stage; time is an argument, and nothing here opens a socket or
//! a file, or logs.

pub mod addresses;
pub mod caution;
pub mod desired;
pub mod guard;
pub mod protect;
pub mod retain;
pub mod serving;
pub mod sysctls;
