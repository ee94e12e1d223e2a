//! Real HTTP over real sockets, with servers and clients as threads: a process
//! for each would cost the guest seconds.

mod answer;
mod client;
mod server;
mod upload;

pub use client::{Client, Download};
pub use server::WebServer;
pub use upload::Upload;

/// Byte number `index` of every stream. The bytes do not repeat soon, so that
/// lost, doubled and swapped segments all show.
fn stream_byte(index: u64) -> u8 {
    let mixed = index ^ (index >> 8) ^ (index >> 16);
    mixed.to_le_bytes()[0].wrapping_mul(31)
}
