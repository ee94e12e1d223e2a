//! Tests of sysctls: NAT and DR work on freshly installed directors, which have
//! only addresses and routes. Other tests cover sysctls that another process
//! changes, that the agent cannot write, or that are no longer needed.

mod default_route;
mod dr;
mod nat;
mod others;
mod scene;
