//! A thread of its own that takes cheap readings of the kernel's table, as
//! hints that somebody else changed it. It decides nothing: the loop reads
//! again before it writes ([`crate::director`]).

use std::{
    collections::BTreeMap,
    sync::mpsc::Sender,
    thread,
    time::{Duration, Instant},
};

use ipvs::{ServiceConfig, ServiceKey};

use crate::event::Event;

/// How often the services are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// But a reading is followed by so many times its own duration of rest, so
/// that a large table does not cost more than a small part of a processor.
const REST: u32 = 20;
/// Opening a socket may make the kernel run modprobe.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// The services of the kernel's table, without their destinations.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reading {
    /// When the reading began.
    pub began: Instant,
    /// What it found.
    pub services: BTreeMap<ServiceKey, ServiceConfig>,
}

/// Reads for as long as somebody listens. A kernel that cannot be read is the
/// loop's to tell of.
pub fn watch(events: &Sender<Event>) {
    let mut socket = None;
    loop {
        let began = Instant::now();
        let services = match &mut socket {
            None => ipvs::Socket::open().and_then(|opened| socket.insert(opened).services()),
            Some(socket) => socket.services(),
        };
        match services {
            Ok(services) => {
                let reading = Event::Reading(Reading { began, services });
                if events.send(reading).is_err() {
                    return;
                }
            }
            Err(_) => {
                socket = None;
                thread::sleep(AFTER_FAILURE);
            }
        }
        thread::sleep(INTERVAL.max(began.elapsed() * REST));
    }
}
