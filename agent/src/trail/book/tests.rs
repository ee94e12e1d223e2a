use ipvs::{ActualService, DestinationConfig, WantedService};
use jiff::Timestamp;

use super::*;
use crate::{
    fixtures::{config, named, service, tcp},
    trail::{record::Object, round::Seen},
};

const NOON: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// Returns a service with the given weights of its servers: `("198.51.100.1:80", 1)`.
fn wanted(servers: &[(&str, u32)]) -> WantedService {
    let made = service("rr", &[]);
    let destinations = servers.iter().map(|(server, weight)| {
        let config = DestinationConfig {
            weight: *weight,
            ..config(1)
        };
        (named(server), config)
    });
    WantedService {
        config: made.config,
        destinations: destinations.collect(),
    }
}

fn object(name: &str, generation: i64) -> Object {
    Object {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        generation,
    }
}
