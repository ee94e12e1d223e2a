//! CASES.md 2 and 3 on directors that nobody has prepared: addresses and routes
//! are all that they have. And what becomes of sysctls that others change, that
//! cannot be written, and that nothing needs any more.

mod default_route;
mod dr;
mod nat;
mod others;
mod scene;
