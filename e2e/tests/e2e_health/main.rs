//! CASES.md 5: a server that fails is taken out of service within the time that
//! its check allows, and other servers' clients do not notice. Events that are
//! no failure of a server change nothing.

mod calm;
mod failure;
mod farm;
mod policy;
mod restart;
mod shared;
