//! Tests parts of the agent on a real kernel, without an API server.

mod manifests;
mod probes;
