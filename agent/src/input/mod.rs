//! The inputs: sources of objects. An input sends events to the loop and makes
//! no decisions.

use std::{collections::BTreeMap, path::PathBuf, sync::mpsc::Sender};

use crate::{
    disk::checkpoint::Recorder,
    event::{Event, origin::Folder},
};

pub mod api_servers;
pub mod api_time;
pub mod connection;
pub mod kubernetes;
pub mod leases;
pub mod links;
pub mod look;
pub mod manifests;
pub mod membership;
pub mod reader;
mod version;

/// The channels that an input sends to, and the manifests of the previous run.
#[derive(Debug)]
pub struct Input {
    /// The channel for events to the loop.
    pub events: Sender<Event>,
    /// Sends notes to the checkpoint, such as the text of a changed manifest.
    pub recorder: Recorder,
    /// The last good text of each manifest.
    pub files: BTreeMap<PathBuf, String>,
    /// The folder of manifests, if the previous run read one.
    pub folder: Option<Folder>,
}
