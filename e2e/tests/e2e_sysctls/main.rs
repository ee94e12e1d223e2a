//! CASES.md 2 and 3 on unprepared directors, which have addresses and routes and
//! nothing else. And what happens to sysctls that another process changes, that
//! cannot be written, or that are no longer needed.

mod default_route;
mod dr;
mod nat;
mod others;
mod scene;
