//! The restart of the API server under the fleet.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use super::{
    Fleet,
    tally::{Call, Counts, Second},
};

/// How long the requests after the restart are counted.
const MINUTE: Duration = Duration::from_secs(60);
/// The number of seconds that one line of the histogram covers.
const STEP: usize = 5;
/// The width of the longest bar of the histogram.
const WIDTH: u32 = 50;

impl Fleet {
    /// Restarts the API server, and counts the fleet's requests in the first
    /// minute after the API server answers again.
    pub(super) async fn restart_api_server(&mut self) -> Result<()> {
        self.log.say("restarting the API server");
        let expired = self.expired();
        let start = Instant::now();
        self.cluster.restart()?;
        self.cluster.wait_until_ready().await?;
        let ready = Instant::now();
        let (before, used) = (self.tally.read(), self.used()?);
        self.log.say("the API server answers again");
        self.report(
            "restart_away",
            ready.duration_since(start).as_secs_f64(),
            "s",
        );
        sleep(MINUTE).await;
        let since = self.tally.read().since(&before);
        let used_after = self.used()?;
        let seconds = self.tally.seconds(ready);
        let seconds = &seconds[..seconds.len().min(MINUTE.as_secs() as usize)];
        for line in histogram(seconds) {
            println!("{line}");
        }
        let sum = sum(seconds);
        self.report("restart_requests", f64::from(sum.total()), "requests");
        for call in [Call::List, Call::Watch] {
            let name = format!("restart_{}", call.name());
            self.report(&name, f64::from(sum.answered[call as usize]), "requests");
        }
        self.report("restart_refused", f64::from(sum.refused), "requests");
        self.report("restart_failed", f64::from(sum.failed), "requests");
        let expired = self.expired() - expired;
        self.report("restart_expired", expired as f64, "watches");
        let peak = seconds.iter().map(Second::total).max().unwrap_or_default();
        self.report("restart_peak", f64::from(peak), "requests/s");
        self.report("restart_bytes", since.bytes as f64 / 1e6, "MB");
        let server = used_after.percent(&used, |used| used.server);
        self.report("restart_api_server", server, "%");
        Ok(())
    }

    fn expired(&self) -> u64 {
        self.counts().map(Counts::expired).sum()
    }
}

/// Formats the answers of each few seconds as a line with a bar.
fn histogram(seconds: &[Second]) -> Vec<String> {
    let steps: Vec<Second> = seconds.chunks(STEP).map(sum).collect();
    let most = steps
        .iter()
        .map(Second::total)
        .max()
        .unwrap_or_default()
        .max(1);
    let names = Call::ALL.map(|call| format!("{:>7}", call.name())).concat();
    let head = format!("    from{names} refused  failed");
    let lines = steps.iter().enumerate().map(|(number, step)| {
        let counts = step.answered.map(|count| format!("{count:>7}")).concat();
        let width = (step.total() * WIDTH).div_ceil(most);
        format!(
            "  {:>4} s{counts}{:>8}{:>8}  {}",
            number * STEP,
            step.refused,
            step.failed,
            "#".repeat(width as usize)
        )
    });
    std::iter::once(head).chain(lines).collect()
}

fn sum(seconds: &[Second]) -> Second {
    let mut all = Second::default();
    for second in seconds {
        for (sum, count) in all.answered.iter_mut().zip(second.answered) {
            *sum += count;
        }
        all.refused += second.refused;
        all.failed += second.failed;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_is_the_busiest_time() {
        let second = |lists| Second {
            answered: [lists, 0, 0, 0, 0, 0, 0],
            ..Second::default()
        };
        let seconds: Vec<Second> = [4, 0, 0, 0, 0, 2].map(second).to_vec();
        let lines = histogram(&seconds);
        let bar = |line: usize| lines[line].matches('#').count();
        assert_eq!((lines.len(), bar(1), bar(2)), (3, 50, 25));
    }
}
