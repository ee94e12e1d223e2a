//! The tests run steps in any order, and check the condition `Programmed` of
//! every VirtualService. `Programmed` is True only if every live director has
//! used the state that the VirtualService needs. When all events and reports
//! have arrived, `Programmed` is True.
//!
//! The model contains all states that the API server had, for each kind of
//! object. A controller and directors follow each kind at their own pace, and
//! reports arrive late. The model knows the objects that a director has used;
//! the controller knows only their digests.

mod model;

use model::{Model, Step};
use proptest::prelude::*;
use serde_json::json;

/// The number of directors in the model.
const DIRECTORS: usize = 2;

fn kind() -> impl Strategy<Value = usize> {
    0..3_usize
}

/// Generates steps with a few names, so that the same objects change again and
/// again.
fn step(names: u8) -> impl Strategy<Value = Step> {
    let name = || 0..names;
    let observer = 0..=DIRECTORS;
    let director = 0..DIRECTORS;
    let app = 0..2_u8;
    prop_oneof![
        // Steps in which users edit objects.
        6 => (name(), 0..2_u8, app.clone())
            .prop_map(|(name, vip, app)| Step::MakeService { name, vip, app }),
        2 => name().prop_map(Step::RescheduleService),
        4 => name().prop_map(Step::ReselectService),
        2 => name().prop_map(Step::RelabelService),
        1 => name().prop_map(Step::BreakService),
        2 => name().prop_map(Step::DeleteService),
        6 => (name(), 0..2_u8, app.clone())
            .prop_map(|(name, address, app)| Step::MakeServer { name, address, app }),
        4 => name().prop_map(Step::ReweighServer),
        10 => (name(), app).prop_map(|(name, app)| Step::RelabelServer { name, app }),
        1 => name().prop_map(Step::BreakServer),
        2 => name().prop_map(Step::DeleteServer),
        1 => Just(Step::EditGroup),
        1 => Just(Step::DeleteGroup),
        2 => Just(Step::MakeGroup),
        // Single steps of a director or of the controller.
        10 => (observer.clone(), kind(), 1..3_usize)
            .prop_map(|(observer, kind, events)| Step::Deliver { observer, kind, events }),
        4 => observer.clone().prop_map(|observer| Step::DeliverAll { observer }),
        4 => (observer, kind()).prop_map(|(observer, kind)| Step::Relist { observer, kind }),
        4 => director.clone().prop_map(Step::Round),
        1 => director.clone().prop_map(Step::RestartAgent),
        6 => (director.clone(), 1..3_usize)
            .prop_map(|(director, reports)| Step::DeliverReports { director, reports }),
        1 => Just(Step::RestartController),
        8 => Just(Step::Resolve),
        // Combinations of steps that usually follow each other.
        20 => (director.clone(), kind(), 1..3_usize)
            .prop_map(|(director, kind, events)| Step::Follow { director, kind, events }),
        6 => director.prop_map(|director| Step::FollowAll { director }),
        14 => (kind(), 1..4_usize).prop_map(|(kind, events)| Step::Notice { kind, events }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn programmed_is_never_true_too_early_and_true_in_the_end(
        steps in proptest::collection::vec(step(2), 1..120),
    ) {
        tells_the_truth(Model::new(DIRECTORS), &steps)?;
    }

    /// A namespace joins the group with its first service, and leaves the group
    /// with its last one.
    #[test]
    fn programmed_is_never_true_too_early_when_namespaces_join_and_leave(
        steps in proptest::collection::vec(step(4), 1..120),
    ) {
        tells_the_truth(Model::with_two_namespaces(DIRECTORS), &steps)?;
    }

    #[test]
    fn programmed_is_never_true_too_early_where_budgets_leave_most_out(
        steps in proptest::collection::vec(step(3), 1..120),
        (servers, services, destinations) in (1..3_u8, 1..3_u8, 0..4_u8),
    ) {
        let budgets = json!({
            "serversPerService": servers,
            "perNamespace": {"services": services, "destinations": destinations},
        });
        tells_the_truth(Model::with_budgets(DIRECTORS, budgets), &steps)?;
    }
}

/// Checks that no service is reported as programmed too early, and that all
/// services are programmed in the end.
fn tells_the_truth(mut model: Model, steps: &[Step]) -> Result<(), TestCaseError> {
    for step in steps {
        model.take(step);
        // Conditions change only when the controller resolves objects.
        if let (Step::Resolve | Step::Notice { .. }, Some(lie)) = (step, model.lie()) {
            return Err(TestCaseError::fail(lie));
        }
    }
    model.come_to_rest();
    if let Some(lie) = model.lie() {
        return Err(TestCaseError::fail(lie));
    }
    prop_assert_eq!(model.not_programmed(), Vec::<String>::new());
    let before = model.conditions();
    model.take(&Step::RestartController);
    model.take(&Step::Resolve);
    prop_assert_eq!(
        model.conditions(),
        before,
        "a restart of the controller flips nothing"
    );
    Ok(())
}

/// A listing shows a new server, and the next event removes the server from its
/// service. A director that has used only the listing still has the server in
/// the service.
#[test]
fn what_comes_in_a_listing_and_goes_with_the_next_event_was_there() {
    let controller = DIRECTORS;
    let servers = 1;
    let mut model = Model::new(DIRECTORS);
    for step in [
        Step::MakeService {
            name: 1,
            vip: 0,
            app: 1,
        },
        Step::DeliverAll {
            observer: controller,
        },
        Step::Resolve,
        Step::MakeServer {
            name: 1,
            address: 0,
            app: 1,
        },
        Step::Relist {
            observer: controller,
            kind: servers,
        },
        Step::FollowAll { director: 0 },
        Step::RelabelServer { name: 1, app: 0 },
        Step::Notice {
            kind: servers,
            events: 1,
        },
    ] {
        model.take(&step);
    }
    assert_eq!(model.lie(), None);
}

/// When the server is deleted, all objects are again as they were before the
/// server's creation. So two directors report the same digest: one that never
/// saw the server, and one that saw the deletion. A controller that started
/// after the deletion cannot distinguish these directors.
#[test]
fn a_state_that_was_there_before_the_controller_started_proves_nothing_later() {
    let (services, servers) = (0, 1);
    let mut model = Model::new(DIRECTORS);
    for step in [
        Step::MakeServer {
            name: 1,
            address: 0,
            app: 0,
        },
        Step::MakeService {
            name: 0,
            vip: 0,
            app: 0,
        },
        Step::DeleteServer(1),
        Step::Follow {
            director: 0,
            kind: services,
            events: 1,
        },
        Step::RestartController,
        Step::Resolve,
        Step::Follow {
            director: 0,
            kind: servers,
            events: 1,
        },
        Step::Resolve,
    ] {
        model.take(&step);
    }
    assert_eq!(model.lie(), None);
}
