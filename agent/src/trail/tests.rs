//! Tests the trail's files and its thread.

use std::{fs, sync::Arc, time::Duration};

use ipvs::{DestinationKey, Op, ServiceKey};
use jiff::{Timestamp, tz::TimeZone};

use super::{
    files::{self, Files, Line, ManyChanges},
    history::{self, Filter},
    log::Log,
    ours::Ours,
    record::{Cause, Object, Objects, Record},
    round::{Round, Seen},
    writer::Writer,
};
use crate::{
    act::Difference,
    fixtures::{NOON, config, server, service, tcp, weight},
};

fn vip(port: u16) -> ServiceKey {
    tcp("192.0.2.10", port)
}

fn record(difference: Difference) -> Record {
    let object = |name: &str| Object {
        namespace: "shop".into(),
        name: name.into(),
        generation: 1,
    };
    let entry = difference.entry();
    let service = entry.and_then(|(service, _)| match service {
        ServiceKey::Address { port, .. } => Some(object(&format!("web{port}"))),
        ServiceKey::FirewallMark { .. } => None,
    });
    let server = entry.and_then(|(_, server)| Some(object(&server?.address.to_string())));
    Record {
        at: NOON,
        cause: Cause::Edit,
        written: true,
        objects: Objects {
            virtual_service: service,
            real_server: server,
        },
        difference,
    }
}

fn made(port: u16) -> Record {
    record(Difference::Service {
        service: vip(port),
        old: None,
        new: Some(config("wrr")),
    })
}

fn added(port: u16, destination: DestinationKey) -> Record {
    record(Difference::Destination {
        service: vip(port),
        destination,
        old: None,
        new: Some(weight(1)),
    })
}

fn spelled(ours: &Ours) -> Vec<String> {
    ours.table().iter().map(Op::to_string).collect()
}

/// Writes lines as the trail's thread does, into a new file if there is none.
fn append(files: &mut Files, ours: &mut Arc<Ours>, record: Record) {
    if !files.is_open() {
        files.begin(NOON, ours).expect("a file can be made");
    }
    Arc::make_mut(ours).apply(&record);
    files.append(&[Line::record(record)]).expect("room");
    if files.is_full() {
        files.begin(NOON, ours).expect("a file can be made");
    }
}

#[test]
fn what_was_written_is_read_again_even_after_a_line_that_a_kill_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Files::new(folder.path());
    let mut ours = Arc::default();
    append(&mut files, &mut ours, made(80));
    drop(files);
    let path = folder.path().join("history.jsonl");
    let mut text = fs::read(&path).unwrap();
    text.extend(br#"{"record":{"at":"2027"#);
    fs::write(&path, text).unwrap();

    let mut files = Files::new(folder.path());
    files.resume().expect("the file can be continued");
    append(&mut files, &mut ours, added(80, server(1)));
    let told = files::read_ours(folder.path()).unwrap();
    assert_eq!(told, ours, "both records are there");
    assert_eq!(
        files::read(folder.path()).unwrap().len(),
        3,
        "and the snapshot"
    );
}

#[test]
fn the_files_are_bounded_and_each_tells_what_is_ours_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Files::new(folder.path());
    files.most = 64 << 10;
    let mut ours = Arc::default();
    append(&mut files, &mut ours, made(80));
    for number in 0..3_000_u32 {
        let last = (number % 200) as u8;
        append(&mut files, &mut ours, added(80, server(last)));
    }
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name(), entry.metadata().unwrap().len()))
        .collect();
    names.sort();
    assert_eq!(names.len(), 5, "{names:?}");
    let bytes: u64 = names.iter().map(|(_, bytes)| bytes).sum();
    assert!(bytes < 1 << 20, "{bytes} bytes");
    for (name, _) in &names {
        let only = tempfile::tempdir().unwrap();
        fs::copy(folder.path().join(name), only.path().join("history.jsonl")).unwrap();
        let told = files::read_ours(only.path()).unwrap();
        assert_eq!(told.counts(), (1, 200), "{}", name.display());
    }
}

#[test]
fn the_thread_writes_rounds_to_the_file_and_the_next_run_knows_them() {
    let folder = tempfile::tempdir().unwrap();
    for scheduler in ["rr", "wrr"] {
        let (mut trail, writer) = Writer::start(folder.path()).unwrap();
        let seen = Seen {
            ours: Some(service(scheduler, &[(1, 1)])),
            ..Seen::default()
        };
        trail.tell(
            Round {
                at: NOON,
                writes: Vec::new(),
                count: 0,
                is_whole: true,
                services: [(vip(80), seen)].into(),
                host: None,
            },
            Duration::ZERO,
        );
        drop(trail);
        writer.finish();
    }
    let lines = files::read(folder.path()).unwrap();
    let text = history::text(&Filter::default().events(&lines), &TimeZone::UTC, false);
    let told: Vec<_> = text.lines().map(|line| &line[21..]).collect();
    let start = format!(
        "start     -  the agent started, version {}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(
        told,
        [
            &*start,
            "found     -  -A -t 192.0.2.10:80 -s rr",
            "found     -  -a -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1",
            &*start,
            "found     -  -E -t 192.0.2.10:80 -s wrr (was -s rr)",
        ]
    );
}

#[test]
fn a_folder_that_cannot_be_written_costs_the_loop_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let (mut trail, writer) = Writer::start(&file).unwrap();
    for _ in 0..1000 {
        trail.tell(
            Round {
                at: NOON,
                writes: vec![made(80).difference],
                count: 1,
                is_whole: false,
                services: [].into(),
                host: None,
            },
            Duration::ZERO,
        );
    }
    drop(trail);
    writer.finish();
}

#[test]
fn history_shows_the_asked_time_and_service_alone() {
    let late = NOON + Duration::from_secs(3600);
    let mut recovered = added(81, server(2));
    recovered.at = late;
    let lines = [made(80), added(80, server(1)), made(81), recovered].map(Line::record);
    let shown = |filter: Filter| {
        let events = filter.events(&lines).into_iter();
        events.map(|event| event.what).collect::<Vec<_>>()
    };
    let since = Filter {
        since: Some(late),
        ..Filter::default()
    };
    let last = "-a -t 192.0.2.10:81 -r 198.51.100.2:80 -m -w 1";
    assert_eq!(shown(since), [last]);
    let of_service = Filter {
        service: Some(("shop".to_owned(), "web81".to_owned())),
        ..Filter::default()
    };
    assert_eq!(shown(of_service), ["-A -t 192.0.2.10:81 -s wrr", last]);
    let until = Filter {
        until: Some(NOON),
        ..Filter::default()
    };
    assert_eq!(
        spelled(&until.ours(&lines)),
        [
            "-A -t 192.0.2.10:80 -s wrr",
            "-a -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1",
            "-A -t 192.0.2.10:81 -s wrr",
        ]
    );
}

#[test]
fn a_round_with_very_many_writes_is_one_line_and_every_line_for_one_service() {
    let mut ours = Ours::default();
    for port in 1..=600 {
        ours.apply(&made(port));
        ours.apply(&added(port, server(1)));
    }
    let change = Some(ManyChanges {
        writes: 1200,
        cause: Cause::Edit,
    });
    let at = NOON;
    let ours = Arc::new(ours);
    let lines = [Line::Snapshot { at, change, ours }];
    let whole = history::text(&Filter::default().events(&lines), &TimeZone::UTC, false);
    assert_eq!(
        whole,
        "2027-01-15 08:00:00  edit      -  1200 writes in one round: services 0 -> 600, destinations 0 -> 600\n"
    );
    let one = Filter {
        service: Some(("shop".to_owned(), "web7".to_owned())),
        ..Filter::default()
    };
    assert_eq!(
        history::text(&one.events(&lines), &TimeZone::UTC, false),
        "2027-01-15 08:00:00  edit      shop/web7  -A -t 192.0.2.10:7 -s wrr\n\
         2027-01-15 08:00:00  edit      shop/web7 shop/198.51.100.1  -a -t 192.0.2.10:7 -r 198.51.100.1:80 -m -w 1\n"
    );
}

#[test]
fn the_log_has_one_line_for_each_record_up_to_a_rate_and_then_a_sum() {
    let records: Vec<_> = (0..100).map(|_| made(80)).collect();
    let after = |seconds| NOON + Duration::from_secs(seconds);
    let mut log = Log::default();
    let mut take = |count: usize, now: Timestamp| {
        let (each, sum) = log.take(&records[..count], now);
        (each.len(), sum)
    };
    assert_eq!(take(10, NOON), (10, None));
    assert_eq!(take(100, NOON), (50, Some(50)));
    assert_eq!(take(5, after(1)), (1, None), "one sum every 10 s at most");
    assert_eq!(take(10, after(10)), (9, Some(5)));
    assert_eq!(take(5, after(100)), (5, None));
}
