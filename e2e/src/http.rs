//! HTTP servers and clients over real sockets. Servers and clients run as
//! threads, because the guest takes seconds to start a process.

mod answer;
mod client;
mod patient;
mod server;
mod upload;

pub(crate) use patient::{LOOK, looks};

pub use client::{Client, Download};
pub use server::WebServer;
pub use upload::Upload;

/// Returns the byte at position `index` of an upload or download. All uploads
/// and downloads consist of the same byte sequence. The sequence has a long
/// period, so the receiver notices lost, duplicated and swapped segments.
fn stream_byte(index: u64) -> u8 {
    let mixed = index ^ (index >> 8) ^ (index >> 16);
    mixed.to_le_bytes()[0].wrapping_mul(31)
}
