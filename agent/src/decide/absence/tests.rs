use super::*;
use crate::{event::origin::Folder, fixtures::named};

const SERVICE: Kind = Kind::VirtualService;

fn folder(inode: u64, is_empty: bool) -> Source {
    Source::Folder(Folder {
        device: 1,
        inode,
        is_empty,
    })
}

/// Completes a listing from `source`. The listing contains the services in
/// `there`, and leaves out the known services in `gone`.
fn list(absence: &mut Absence, source: Source, there: &[&str], gone: &[&str]) {
    absence.begin(SERVICE, source);
    let gone = gone.iter().map(|name| named(name));
    let is_there = |key: &ObjectKey| there.iter().any(|name| named(name) == *key);
    absence.end(SERVICE, gone, [], is_there);
}

/// Completes a listing from `source` that shows the service `web` with another
/// content than before.
fn list_altered(absence: &mut Absence, source: Source) {
    absence.begin(SERVICE, source);
    absence.end(SERVICE, [], [named("web")], |_| true);
}

fn cause(absence: &Absence, name: &str) -> Cause {
    absence.cause(SERVICE, Some(&named(name)))
}

/// Returns the decision of a round that holds the removal of the named
/// services.
fn doubtful(names: &[&str]) -> Doubtful {
    Doubtful {
        objects: names.iter().map(|name| (SERVICE, named(name))).collect(),
        has_orphans: false,
    }
}

/// Returns the state of a run that has listed the service `web` at version
/// 1000.
fn settled() -> Absence {
    let mut absence = Absence::of_new_run();
    list(&mut absence, Source::Version(1000), &["web"], &[]);
    assert_eq!(absence.judge(&Doubtful::default()), []);
    absence
}

#[test]
fn absence_from_a_list_that_is_not_newer_is_doubted() {
    for (version, expected) in [
        (900, Cause::Doubted),
        (1000, Cause::Doubted),
        (1001, Cause::Unjudged),
    ] {
        let mut absence = settled();
        list(&mut absence, Source::Version(version), &[], &["web"]);
        assert_eq!(cause(&absence, "web"), expected, "at {version}");
        assert_eq!(cause(&absence, "other"), Cause::Certain, "at {version}");
    }
}

#[test]
fn the_highest_version_is_that_of_events_too_and_never_falls() {
    let mut absence = settled();
    absence.apply(SERVICE, &named("new"), Some(2000), true);
    list(&mut absence, Source::Version(1500), &["web"], &["new"]);
    assert_eq!(cause(&absence, "new"), Cause::Doubted);
    // The listing at version 1600 has all known objects, but the listing is
    // old.
    list(&mut absence, Source::Version(1600), &["web", "new"], &[]);
    assert_eq!(cause(&absence, "new"), Cause::Certain);
    list(&mut absence, Source::Version(1700), &["web"], &["new"]);
    assert_eq!(cause(&absence, "new"), Cause::Doubted);
}

#[test]
fn the_objects_of_a_list_do_not_make_the_list_itself_old() {
    let mut absence = settled();
    absence.begin(SERVICE, Source::Version(1001));
    // This object is newer than the version that was read before the listing.
    absence.list(SERVICE, Some(1002));
    absence.end(SERVICE, [named("web")], [], |_| false);
    assert_eq!(cause(&absence, "web"), Cause::Unjudged);
    list(&mut absence, Source::Version(1002), &[], &["other"]);
    assert_eq!(
        cause(&absence, "other"),
        Cause::Doubted,
        "1002 is known now"
    );
}

#[test]
fn a_version_that_is_no_number_proves_nothing() {
    let mut absence = settled();
    let source = Source::Unordered("a1".to_owned());
    list(&mut absence, source, &[], &["web"]);
    assert_eq!(cause(&absence, "web"), Cause::Doubted);
}

#[test]
fn absence_from_a_folder_that_is_empty_or_another_one_is_doubted() {
    for (found, expected) in [
        (folder(1, false), Cause::Unjudged),
        (folder(1, true), Cause::Doubted),
        (folder(2, false), Cause::Doubted),
        (Source::Version(5000), Cause::Doubted),
    ] {
        let mut absence = Absence::of_new_run();
        list(&mut absence, folder(1, false), &["web"], &[]);
        absence.judge(&Doubtful::default());
        list(&mut absence, found.clone(), &[], &["web"]);
        assert_eq!(cause(&absence, "web"), expected, "{found:?}");
    }
    let mut absence = settled();
    list(&mut absence, folder(1, false), &[], &["web"]);
    assert_eq!(cause(&absence, "web"), Cause::Doubted, "no folder before");
}

#[test]
fn what_is_removed_later_from_another_folder_is_believed_once_it_is_known() {
    let mut absence = Absence::of_new_run();
    list(&mut absence, folder(1, false), &["web", "shop"], &[]);
    list(&mut absence, folder(2, false), &["shop"], &["web"]);
    absence.judge(&doubtful(&["web"]));
    list(&mut absence, folder(2, false), &[], &["shop"]);
    assert_eq!(cause(&absence, "shop"), Cause::Unjudged);
    assert_eq!(
        cause(&absence, "web"),
        Cause::Doubted,
        "it is still missing"
    );
}

#[test]
fn a_doubt_ends_with_an_event_or_with_a_list_that_has_the_object() {
    let doubted = || {
        let mut absence = settled();
        list(&mut absence, Source::Version(900), &[], &["web"]);
        absence.judge(&doubtful(&["web"]));
        assert_eq!(cause(&absence, "web"), Cause::Doubted);
        absence
    };
    let mut absence = doubted();
    list(&mut absence, Source::Version(9000), &[], &[]);
    assert_eq!(
        cause(&absence, "web"),
        Cause::Doubted,
        "a newer list without it"
    );
    list(&mut absence, Source::Version(9001), &["web"], &[]);
    assert_eq!(cause(&absence, "web"), Cause::Certain);

    let mut absence = doubted();
    absence.apply(SERVICE, &named("web"), Some(901), true);
    absence.forget(SERVICE, &named("web"));
    assert_eq!(
        cause(&absence, "web"),
        Cause::Certain,
        "made and deleted again"
    );
    assert_eq!(absence.missing(), None);
}

#[test]
fn what_a_round_does_not_hold_is_believed_and_what_it_holds_is_doubted() {
    let mut absence = settled();
    list(&mut absence, Source::Version(1001), &[], &["web", "shop"]);
    assert_eq!(absence.missing(), None, "nothing was decided yet");
    let believed = absence.judge(&doubtful(&["web"]));
    assert_eq!(believed, [(SERVICE, named("shop"))]);
    let missing = absence.missing().expect("web is held");
    assert_eq!((missing.doubt, missing.objects), (Doubt::MostMissing, 1));
    assert_eq!(cause(&absence, "web"), Cause::Doubted);
}

#[test]
fn a_release_believes_everything_and_takes_the_last_list_for_the_newest_state() {
    let mut absence = settled();
    list(&mut absence, Source::Version(500), &["shop"], &["web"]);
    absence.judge(&doubtful(&["web"]));
    assert_eq!(absence.release(), [(SERVICE, named("web"))]);
    assert_eq!(cause(&absence, "web"), Cause::Certain);
    list(&mut absence, Source::Version(501), &[], &["shop"]);
    assert_eq!(cause(&absence, "shop"), Cause::Unjudged, "500 was accepted");
}

#[test]
fn entries_without_a_known_object_are_as_doubtful_as_the_first_listings() {
    let orphan = |absence: &Absence| absence.cause(SERVICE, None);
    let held = Doubtful {
        has_orphans: true,
        ..Doubtful::default()
    };
    assert_eq!(orphan(&settled()), Cause::Certain, "they were judged");

    let mut absence = Absence::of_new_run();
    list(&mut absence, Source::Version(1), &["web"], &[]);
    assert_eq!(orphan(&absence), Cause::Unjudged);
    absence.judge(&held);
    assert_eq!(orphan(&absence), Cause::Doubted);
    let missing = absence.missing().expect("they are held");
    assert_eq!((missing.doubt, missing.objects), (Doubt::MostMissing, 0));
    absence.release();
    assert_eq!(orphan(&absence), Cause::Certain);

    // The listing came before a round could see which entries belong to the
    // service `web`.
    let mut absence = Absence::of_new_run();
    absence.restore(settled().unsaved().expect("it was listed"));
    list(&mut absence, Source::Version(900), &[], &["web"]);
    assert_eq!(orphan(&absence), Cause::Doubted);
    assert_eq!(absence.judge(&held), [], "web may be theirs");
    assert_eq!(orphan(&absence), Cause::Doubted);
}

#[test]
fn the_next_run_knows_the_versions_and_the_doubts() {
    let mut absence = settled();
    list(&mut absence, Source::Version(900), &[], &["web"]);
    absence.judge(&doubtful(&["web"]));
    let known = absence.unsaved().expect("there is news");
    assert_eq!(absence.unsaved(), None, "it was saved");
    let json = serde_json::to_string(&known).expect("a row");
    assert_eq!(
        json,
        r#"{"sources":{"VirtualService":{"version":1000}},"doubted":[["VirtualService",{"namespace":"shop","name":"web"},{"older":{"known":1000,"found":900}}]]}"#
    );

    let mut next = Absence::of_new_run();
    next.restore(serde_json::from_str(&json).expect("the row parses"));
    list(&mut next, Source::Version(5000), &[], &["web"]);
    assert_eq!(
        cause(&next, "web"),
        Cause::Doubted,
        "a restart is no reason"
    );
    let mut next = Absence::of_new_run();
    next.restore(known);
    list(&mut next, Source::Version(5000), &["web"], &[]);
    assert_eq!(cause(&next, "web"), Cause::Certain);
}

#[test]
fn a_change_that_is_not_used_need_not_be_saved() {
    let mut absence = settled();
    absence.unsaved();
    absence.apply(SERVICE, &named("web"), Some(1001), false);
    assert_eq!(absence.unsaved(), None);
    absence.apply(SERVICE, &named("web"), Some(1002), true);
    let known = absence.unsaved().expect("it is used");
    assert_eq!(known.sources[&SERVICE], Source::Version(1002));
}

#[test]
fn each_doubt_is_explained_with_what_to_do() {
    let of = |doubt| {
        let (objects, went_back) = (2, 0);
        let missing = Missing {
            doubt,
            went_back,
            objects,
        };
        missing.to_string()
    };
    for (doubt, part) in [
        (
            Doubt::Older {
                known: 10,
                found: 7,
            },
            "at resourceVersion 7, which is not higher than 10",
        ),
        (Doubt::Unordered("x".to_owned()), "resourceVersion x"),
        (Doubt::EmptyFolder, "has no file"),
        (Doubt::OtherFolder, "another one than before"),
        (Doubt::OtherSource, "the other way around"),
        (Doubt::MostMissing, "more than half"),
    ] {
        let text = of(doubt);
        for part in ["2 objects are missing", part, "allow the removals"] {
            assert!(text.contains(part), "{part} in: {text}");
        }
    }
}

#[test]
fn an_older_version_in_a_list_that_is_not_newer_is_doubted() {
    for (version, expected) in [
        (900, Cause::Doubted),
        (1000, Cause::Doubted),
        (1001, Cause::Certain),
    ] {
        let mut absence = settled();
        list_altered(&mut absence, Source::Version(version));
        assert_eq!(cause(&absence, "web"), expected, "at {version}");
        assert_eq!(cause(&absence, "other"), Cause::Certain, "at {version}");
    }
}

#[test]
fn an_object_went_back_until_it_changes() {
    let went_back = || {
        let mut absence = settled();
        list_altered(&mut absence, Source::Version(900));
        absence
    };
    let is_back = |absence: &Absence| cause(absence, "web") == Cause::Doubted;
    let web = named("web");

    let mut absence = went_back();
    list(&mut absence, Source::Version(900), &["web"], &[]);
    assert!(is_back(&absence), "the same list again");
    list(&mut absence, Source::Version(2000), &["web"], &[]);
    assert!(is_back(&absence), "a newer list of the same version");
    absence.apply(SERVICE, &web, Some(2001), false);
    assert!(is_back(&absence), "a new status");
    absence.apply(SERVICE, &web, Some(2002), true);
    assert!(!is_back(&absence), "an edit");

    let mut absence = went_back();
    list_altered(&mut absence, Source::Version(2000));
    assert!(!is_back(&absence), "an edit in a newer list");

    let mut absence = went_back();
    absence.forget(SERVICE, &web);
    assert!(!is_back(&absence), "its deletion");

    let mut absence = went_back();
    assert_eq!(absence.judge(&doubtful(&["web"])), []);
    assert!(is_back(&absence), "a round that holds its entries");
    assert_eq!(absence.judge(&Doubtful::default()), [], "it still exists");
    assert!(!is_back(&absence), "a round in which no entry leaves");

    let mut absence = went_back();
    assert_eq!(absence.release(), [], "it still exists");
    assert!(!is_back(&absence), "the administrator's word");
}

#[test]
fn the_next_run_knows_which_objects_went_back() {
    let mut absence = settled();
    list_altered(&mut absence, Source::Version(900));
    let known = absence.unsaved().expect("it went back");
    let mut next = Absence::of_new_run();
    next.restore(known);
    assert_eq!(cause(&next, "web"), Cause::Doubted);
    let orphan = next.cause(SERVICE, None);
    assert_eq!(orphan, Cause::Doubted, "an entry of an unknown object");
    let missing = next.missing().expect("one object").to_string();
    for part in [
        "1 object went back to an older version",
        "at resourceVersion 900",
    ] {
        assert!(missing.contains(part), "{part} in: {missing}");
    }
}
