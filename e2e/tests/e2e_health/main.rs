//! CASES.md 5: a server that fails is taken out of service within the time that
//! its check allows, and nobody else notices. And what is no failure of a
//! server changes nothing.

mod calm;
mod failure;
mod farm;
mod policy;
mod restart;
mod shared;
