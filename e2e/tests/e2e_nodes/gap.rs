//! Measures for how long a node has no agent.

use std::{
    fmt,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use e2e::{control::on_node, layout::node_name};

/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// Watches whether an agent runs on a node.
pub(crate) struct Gap {
    number: u8,
    stop: Arc<AtomicBool>,
    longest: JoinHandle<Duration>,
}

impl Gap {
    pub(crate) fn watch(number: u8) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let longest = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let (mut seen, mut longest) = (Instant::now(), Duration::ZERO);
                while !stop.load(Ordering::Relaxed) {
                    let runs = on_node(number, &["sh", "-c", "busybox pidof ipvs-agent || true"]);
                    if !runs.trim().is_empty() {
                        longest = longest.max(seen.elapsed());
                        seen = Instant::now();
                    }
                    thread::sleep(LOOK);
                }
                longest
            }
        });
        Self {
            number,
            stop,
            longest,
        }
    }

    /// Prints the longest time without an agent.
    pub(crate) fn say(self, during: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let longest = self.longest.join().expect("the node answers");
        print(format_args!(
            "{during}: {} had no agent for {:.1} s",
            node_name(self.number),
            longest.as_secs_f64()
        ));
    }
}

/// Prints a line with a figure. Of what `println!` prints, libtest shows nothing
/// if the test passes.
pub(crate) fn print(line: fmt::Arguments<'_>) {
    writeln!(io::stdout(), "{line}").expect("the lab reads the output");
}
