//! Reads a host's IPVS table with ipvsadm.

use crate::Host;

/// Returns a host's IPVS table in the format of `ipvsadm-save -n`, with one
/// `-A` or `-a` command per line.
///
/// # Panics
/// Panics if the kernel has no IPVS or `ipvsadm` is not installed.
#[track_caller]
pub fn saved(host: &Host) -> String {
    host.run("ipvsadm -Sn")
}

/// Returns a host's IPVS table in the format of `ipvsadm -Ln`, with connection
/// counts.
///
/// # Panics
/// Panics if the kernel has no IPVS or `ipvsadm` is not installed.
#[track_caller]
pub fn listed(host: &Host) -> String {
    host.run("ipvsadm -Ln")
}

/// Returns a host's IPVS table in the format of `ipvsadm-save -n`, but sorted,
/// because the kernel's own order depends on a hash. The services are sorted,
/// and each service is followed by its sorted destinations.
///
/// # Panics
/// Panics if the kernel has no IPVS or `ipvsadm` is not installed.
#[track_caller]
pub fn sorted(host: &Host) -> Vec<String> {
    sort(&saved(host))
}

fn sort(saved: &str) -> Vec<String> {
    let mut services: Vec<Vec<String>> = Vec::new();
    for line in saved.lines().map(|line| line.trim_end().to_owned()) {
        match services.last_mut() {
            Some(service) if line.starts_with("-a") => service.push(line),
            _ => services.push(vec![line]),
        }
    }
    for service in &mut services {
        service[1..].sort();
    }
    services.sort();
    services.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_stay_below_their_service() {
        let saved = "\
-A -t 10.0.0.2:80 -s rr
-a -t 10.0.0.2:80 -r 10.1.0.2:80 -m -w 1
-a -t 10.0.0.2:80 -r 10.1.0.1:80 -m -w 2
-A -t 10.0.0.1:80 -s wrr
-a -t 10.0.0.1:80 -r 10.1.0.3:80 -g -w 1
";
        assert_eq!(
            sort(saved),
            [
                "-A -t 10.0.0.1:80 -s wrr",
                "-a -t 10.0.0.1:80 -r 10.1.0.3:80 -g -w 1",
                "-A -t 10.0.0.2:80 -s rr",
                "-a -t 10.0.0.2:80 -r 10.1.0.1:80 -m -w 2",
                "-a -t 10.0.0.2:80 -r 10.1.0.2:80 -m -w 1",
            ]
        );
    }
}
