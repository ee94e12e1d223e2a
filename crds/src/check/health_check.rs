mod http;

use std::{net::IpAddr, time::Duration};

use super::{invalid, name, port};
use crate::{
    DnsProbe, HealthCheck, Probe, Rejection, ServiceId,
    api::{self, DnsRecordType},
    bounds,
};

const PATH: &str = "spec.healthCheck";

/// Checks `spec.healthCheck` of a service.
pub(super) fn health_check(
    raw: &api::HealthCheck,
    service: ServiceId,
) -> Result<HealthCheck, Rejection> {
    let (probe, port) = probe(raw, service)?;
    let period = seconds("periodSeconds", raw.period_seconds, bounds::PERIOD_SECONDS)?;
    let timeout = seconds("timeoutSeconds", raw.timeout_seconds, bounds::PROBE_SECONDS)?;
    if timeout > period {
        return Err(invalid(
            &format!("{PATH}.timeoutSeconds"),
            format_args!(
                "{} is above periodSeconds, {}; write 1 to {1}, or a longer periodSeconds",
                raw.timeout_seconds, raw.period_seconds
            ),
        ));
    }
    Ok(HealthCheck {
        probe,
        port,
        period,
        timeout,
        success_threshold: threshold("successThreshold", raw.success_threshold)?,
        failure_threshold: threshold("failureThreshold", raw.failure_threshold)?,
    })
}

/// Checks that exactly one probe is given, and returns it with its port.
fn probe(raw: &api::HealthCheck, service: ServiceId) -> Result<(Probe, Option<u16>), Rejection> {
    let mut given = Vec::new();
    if let Some(raw) = &raw.http_get {
        given.push(http::probe(raw).map(|probe| (Probe::Http(probe), "httpGet", raw.port)));
    }
    if let Some(raw) = &raw.tcp_socket {
        given.push(tcp(raw).map(|probe| (probe, "tcpSocket", raw.port)));
    }
    if let Some(raw) = &raw.grpc {
        given.push(grpc(raw).map(|probe| (probe, "grpc", raw.port)));
    }
    if let Some(raw) = &raw.udp {
        given.push(udp(raw).map(|probe| (probe, "udp", raw.port)));
    }
    if let Some(raw) = &raw.dns {
        given.push(dns(raw).map(|probe| (Probe::Dns(probe), "dns", raw.port)));
    }
    if raw.icmp.is_some() {
        given.push(Ok((Probe::Icmp, "icmp", None)));
    }
    if given.len() > 1 {
        return Err(invalid(
            PATH,
            "a check is one probe; write only one of httpGet, tcpSocket, grpc, udp, dns and icmp",
        ));
    }
    let Some(probe) = given.pop() else {
        return Err(invalid(
            PATH,
            "there is no probe; write one of httpGet, tcpSocket, grpc, udp, dns and icmp",
        ));
    };
    let (probe, name, port) = probe?;
    let path = format!("{PATH}.{name}.port");
    let port = port
        .map(|port| self::port(&path, port, "each real server's own"))
        .transpose()?;
    if port.is_none() && probe != Probe::Icmp && service.port().is_none() {
        return Err(invalid(
            &path,
            "the service has no port of its own that could be probed; write 1 to 65535",
        ));
    }
    Ok((probe, port))
}

fn tcp(raw: &api::TcpSocketProbe) -> Result<Probe, Rejection> {
    Ok(Probe::Tcp {
        send: text("tcpSocket.send", raw.send.as_deref(), bounds::TEXT)?,
        expect: text("tcpSocket.expect", raw.expect.as_deref(), bounds::TEXT)?,
    })
}

fn grpc(raw: &api::GrpcProbe) -> Result<Probe, Rejection> {
    Ok(Probe::Grpc {
        service: text("grpc.service", raw.service.as_deref(), bounds::GRPC_SERVICE)?,
    })
}

fn udp(raw: &api::UdpProbe) -> Result<Probe, Rejection> {
    Ok(Probe::Udp {
        send: text("udp.send", Some(&raw.send), bounds::TEXT)?,
        expect: text("udp.expect", raw.expect.as_deref(), bounds::TEXT)?,
    })
}

fn dns(raw: &api::DnsProbe) -> Result<DnsProbe, Rejection> {
    name::queried(&format!("{PATH}.dns.name"), &raw.name)?;
    let answer = text(
        "dns.expectedAnswer",
        raw.expected_answer.as_deref(),
        bounds::DNS_ANSWER,
    )?;
    let expect = match (raw.record_type, raw.expected_answer.is_some()) {
        (_, false) => None,
        (DnsRecordType::A, true) => Some(answer_address("an IPv4", &answer, IpAddr::is_ipv4)?),
        (DnsRecordType::Aaaa, true) => Some(answer_address("an IPv6", &answer, IpAddr::is_ipv6)?),
        (_, true) => Some(answer),
    };
    Ok(DnsProbe {
        name: raw.name.clone(),
        record_type: raw.record_type.mnemonic().to_owned(),
        expect,
    })
}

/// Checks the address that a DNS answer must contain. Returns the address in
/// its standard form, because the prober compares addresses as text.
fn answer_address(
    family: &str,
    text: &str,
    is_of_family: impl Fn(&IpAddr) -> bool,
) -> Result<String, Rejection> {
    let address = name::address(text).filter(is_of_family);
    let address = address.ok_or_else(|| {
        invalid(
            &format!("{PATH}.dns.expectedAnswer"),
            format_args!(
                "{text:?} is not {family} address, which is what records of the type hold; write \
                 one, or leave it out for any"
            ),
        )
    })?;
    Ok(address.to_string())
}

/// Checks the length of an optional text. Refuses an empty text, because the
/// checked form uses the empty text for a missing field.
fn text(field: &str, raw: Option<&str>, longest: usize) -> Result<String, Rejection> {
    let Some(raw) = raw else {
        return Ok(String::new());
    };
    let length = raw.chars().count();
    if !(1..=longest).contains(&length) {
        return Err(invalid(
            &format!("{PATH}.{field}"),
            format_args!("has {length} characters; write 1 to {longest}"),
        ));
    }
    Ok(raw.to_owned())
}

fn seconds(field: &str, raw: i32, longest: i32) -> Result<Duration, Rejection> {
    let seconds = Some(raw).filter(|seconds| (1..=longest).contains(seconds));
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map(Duration::from_secs).ok_or_else(|| {
        invalid(
            &format!("{PATH}.{field}"),
            format_args!("{raw} is out of range; write 1 to {longest} seconds"),
        )
    })
}

fn threshold(field: &str, raw: i32) -> Result<u32, Rejection> {
    const LARGEST: i32 = bounds::THRESHOLD;
    let threshold = Some(raw).filter(|it| (1..=LARGEST).contains(it));
    let threshold = threshold.and_then(|it| u32::try_from(it).ok());
    threshold.ok_or_else(|| {
        invalid(
            &format!("{PATH}.{field}"),
            format_args!("{raw} is out of range; write 1 to {LARGEST} probes in a row"),
        )
    })
}
