//! Tests of one director with a few objects: its table, its reports, and what
//! it does about faults of its machine and of the API server. Each test is
//! short, so the tests share one binary and few labs.

mod drift;
mod grants;
mod liveness;
mod reporting;
mod state_folder;
mod surface;
mod table;
mod trouble;
