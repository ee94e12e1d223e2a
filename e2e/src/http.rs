//! HTTP servers and clients over real sockets. Servers and clients run as
//! threads, because starting a process for each would take the guest seconds.

mod answer;
mod client;
mod server;
mod upload;

pub use client::{Client, Download};
pub use server::WebServer;
pub use upload::Upload;

/// Returns byte number `index` of every test stream. The byte sequence does not
/// repeat soon, so that the receiver notices lost, duplicated and swapped
/// segments.
fn stream_byte(index: u64) -> u8 {
    let mixed = index ^ (index >> 8) ^ (index >> 16);
    mixed.to_le_bytes()[0].wrapping_mul(31)
}
