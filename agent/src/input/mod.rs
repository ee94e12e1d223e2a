//! Where objects come from. An input sends events and decides nothing.

use std::{collections::BTreeMap, path::PathBuf, sync::mpsc::Sender};

use crate::{disk::checkpoint::Recorder, event::Event};

pub mod api_servers;
pub mod kubernetes;
pub mod links;
pub mod manifests;
pub mod membership;
pub mod origin;
pub mod reader;

/// Where an input sends to, and what the previous run knew.
#[derive(Debug)]
pub struct Input {
    /// The channel to the loop.
    pub events: Sender<Event>,
    /// The way to the checkpoint.
    pub recorder: Recorder,
    /// The last good text of each manifest.
    pub files: BTreeMap<PathBuf, String>,
}
