//! Tests NAT and DR on freshly installed directors that have only addresses and
//! routes. Other tests cover read-only sysctls, sysctls that another process
//! changes, and sysctls that are no longer needed.

mod default_route;
mod dr;
mod nat;
mod others;
mod scene;
