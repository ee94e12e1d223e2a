//! Tests of the condition Undisturbed.

use super::*;

#[test]
fn repairs_are_no_trouble_until_they_go_on_and_on() {
    let mut observed = well();
    let repairs = &mut observed.outcome.as_mut().expect("a round").repairs;
    repairs.latest = ["-e b", "sysctl c=1", "-e a"].map(str::to_owned).into();
    let calm = fresh(&observed);
    assert_eq!(said(&calm, "Undisturbed").0, "True");

    let repairs = &mut observed.outcome.as_mut().expect("a round").repairs;
    repairs.are_endless = true;
    let status = fresh(&observed);
    let (is, reason, message) = said(&status, "Undisturbed");
    assert_eq!((is, reason), ("False", "ForeignWriter"));
    assert!(message.ends_with(": -e a, -e b"), "{message}");
    assert_eq!(programmed(&status).0, "True", "each change was repaired");
}
