//! Counts of the API server's own metrics.

use anyhow::Result;
use kube::Client;

/// The status patches that the API server has accepted, by resource.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StatusPatches {
    pub(super) services: u64,
    pub(super) servers: u64,
    pub(super) groups: u64,
    /// The patches of Directors, by their agents and by the controller.
    pub(super) directors: u64,
}

impl StatusPatches {
    /// Reads the counts from the API server.
    pub(super) async fn read(administrator: &Client) -> Result<Self> {
        let request = hyper::Request::get("/metrics").body(Vec::new())?;
        Ok(Self::of(&administrator.request_text(request).await?))
    }

    fn of(metrics: &str) -> Self {
        let mut all = Self::default();
        for line in metrics.lines() {
            let is_counted = line.starts_with("apiserver_request_total{")
                && line.contains(r#"code="200""#)
                && line.contains(r#"group="ipvs.dev""#)
                && line.contains(r#"subresource="status""#)
                && (line.contains(r#"verb="APPLY""#) || line.contains(r#"verb="PATCH""#));
            let value = line.rsplit(' ').next().and_then(|value| value.parse().ok());
            let (true, Some(value)) = (is_counted, value) else {
                continue;
            };
            let value: f64 = value;
            for (resource, count) in [
                ("ipvsvirtualservices", &mut all.services),
                ("realservers", &mut all.servers),
                ("directorgroups", &mut all.groups),
                ("directors", &mut all.directors),
            ] {
                if line.contains(&format!(r#"resource="{resource}""#)) {
                    *count += value as u64;
                }
            }
        }
        all
    }

    /// The patches since an earlier reading.
    pub(super) fn since(self, before: &Self) -> Self {
        Self {
            services: self.services - before.services,
            servers: self.servers - before.servers,
            groups: self.groups - before.groups,
            directors: self.directors - before.directors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_of_statuses_are_counted_by_resource() {
        let line = |resource, subresource, verb, value| {
            format!(
                r#"apiserver_request_total{{code="200",component="apiserver",dry_run="",group="ipvs.dev",resource="{resource}",scope="resource",subresource="{subresource}",verb="{verb}",version="v1alpha1"}} {value}"#
            )
        };
        let metrics = [
            line("realservers", "status", "APPLY", "2"),
            line("realservers", "", "APPLY", "5"),
            line("directors", "status", "APPLY", "1.5e+06"),
            line("directors", "status", "GET", "3"),
        ];
        let patches = StatusPatches::of(&metrics.join("\n"));
        assert_eq!(patches.servers, 2);
        assert_eq!(patches.directors, 1_500_000);
        assert_eq!(patches.services, 0);
    }
}
