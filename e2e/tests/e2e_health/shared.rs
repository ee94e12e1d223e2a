//! Tests many services that share servers and a health check. The agent must
//! probe each server only once per period.

use std::time::{Duration, Instant};

use e2e::{
    cluster::{Cluster, start_agent, wait_until_ready},
    kubectl_apply,
};

use crate::farm::{DIRECTOR, Farm, service_named, wait_for_healthy};

const SERVICES: usize = 50;
const SERVERS: usize = 20;
const PERIOD: Duration = Duration::from_secs(2);
const PERIODS: usize = 5;

#[test]
fn fifty_services_with_twenty_servers_in_common_cost_twenty_probes_a_period() {
    let _cluster = Cluster::start();
    let farm = Farm::new(SERVERS);
    let _agent = start_agent(&farm.course.director, "director1");
    let check = format!(
        "healthCheck: {{httpGet: {{path: /healthz}}, periodSeconds: {}, timeoutSeconds: 2}}",
        PERIOD.as_secs()
    );
    let names: Vec<_> = (0..SERVICES).map(|number| format!("web{number}")).collect();
    let services = names.iter().enumerate();
    let services: String = services
        .map(|(number, name)| service_named(name, 8000 + number, &check))
        .collect();
    kubectl_apply(&farm.real_servers(1));
    kubectl_apply(&services);
    wait_until_ready(&names.iter().map(String::as_str).collect::<Vec<_>>());
    wait_for_healthy(SERVICES * SERVERS, SERVICES * SERVERS);

    let begun = Instant::now();
    farm.wait_for_probes_since(begun, PERIODS);
    let ended = Instant::now();
    let counts: Vec<_> = farm
        .servers
        .iter()
        .map(|server| {
            let arrivals = server.arrivals();
            let probes = arrivals
                .iter()
                .filter(|arrival| arrival.from == DIRECTOR && (begun..ended).contains(&arrival.at));
            probes.count()
        })
        .collect();
    let total: usize = counts.iter().sum();
    let periods = (ended - begun).as_secs_f64() / PERIOD.as_secs_f64();
    let per_period = f64::from(u32::try_from(total).expect("a few")) / periods;
    println!("{total} probes in {periods:.1} periods, {per_period:.1} per period: {counts:?}");
    // In N full periods, a server may get up to N + 2 probes. One probe may
    // fall on each end of the measured interval. A busy machine may also delay
    // an earlier probe into the interval.
    let most = SERVERS * (periods.floor() as usize + 2);
    assert!(
        total <= most,
        "{total} probes in {periods:.1} periods: {counts:?}"
    );
}
