//! A thread that the kernel notifies of changed interfaces and addresses. After
//! a change, the thread only sends an event, and the loop reads the interfaces
//! again.

use std::{io, sync::mpsc::Sender, thread, time::Duration};

use futures::StreamExt;
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::{runtime, time};

use crate::event::Event;

/// The shortest time between two events that the thread sends. The interfaces
/// of pods change often.
const LEAST_REST: Duration = Duration::from_millis(200);
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Starts the thread that watches the interfaces, in the caller's network
/// namespace. The thread that watches the interfaces ends when the loop has
/// ended.
///
/// # Errors
/// Returns an error if the system has no thread or descriptor left.
pub fn start(events: Sender<Event>) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("links".to_owned())
        .spawn(move || runtime.block_on(run(&events)))?;
    Ok(())
}

async fn run(events: &Sender<Event>) {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ];
    let mut said = None;
    loop {
        match new_multicast_connection(&groups) {
            Ok((connection, _handle, mut messages)) => {
                said = None;
                let connection = tokio::spawn(connection);
                // Interfaces may have changed before the thread subscribed to
                // changes. So the loop must read the interfaces now.
                loop {
                    while messages.try_recv().is_ok() {}
                    if events.send(Event::Links).is_err() {
                        return;
                    }
                    time::sleep(LEAST_REST).await;
                    // The stream of messages ends if the kernel dropped
                    // messages because they were not read in time.
                    if messages.next().await.is_none() {
                        break;
                    }
                }
                connection.abort();
            }
            Err(error) => {
                let message = error.to_string();
                if said.as_ref() != Some(&message) {
                    tracing::warn!(
                        "cannot watch for changed interfaces: {message}. An address that another \
                         process removes is restored with a delay"
                    );
                    said = Some(message);
                }
            }
        }
        time::sleep(AFTER_FAILURE).await;
    }
}
