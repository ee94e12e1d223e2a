use super::*;
use ipvs::ActualService;

fn other_weights(kernel_weights: [u32; 2], results: &str) -> Vec<u32> {
    let mut scene = Scene::new(2).served();
    scene.wish();
    for _ in 0..3 {
        scene.probe(results);
    }
    let other = tcp("192.0.2.11", 80);
    let kernel = ActualService {
        config: scene.wanted.config.clone(),
        destinations: [
            (server(1), weight(kernel_weights[0])),
            (server(2), weight(kernel_weights[1])),
        ]
        .into_iter()
        .collect(),
    };
    let found = Found {
        service: Some(&kernel),
        is_ours: true,
    };
    let wish = Some((&scene.guarded, &scene.wanted));
    scene.serving.wish(other, wish, found, at(scene.second));
    scene.serving.settle(other, &scene.wanted, at(scene.second));
    for _ in 0..20 {
        scene.probe(results);
    }
    scene.serving.pass(at(scene.second));
    let settled = scene.serving.settle(other, &scene.wanted, at(scene.second));
    settled.destinations.values().map(|d| d.weight).collect()
}

#[test]
fn dead_left_in() {
    assert_eq!(other_weights([10, 10], "+-"), [10, 0]);
}

#[test]
fn healthy_left_out() {
    assert_eq!(other_weights([10, 0], "++"), [10, 10]);
}

#[test]
fn rise_forgotten_but_not_on_disk() {
    let mut scene = Scene::with(
        2,
        Availability {
            slow_start: Some(Duration::from_secs(100)),
            ..availability()
        },
    )
    .served();
    scene.wish();
    for _ in 0..3 {
        scene.probe("--");
    }
    scene.probe("+-");
    assert_eq!(scene.probe("+-"), "10 0");
    scene.wait(5);
    assert_eq!(scene.restart(), "10 0");
}

fn sorry_scene() -> Scene {
    let mut scene = Scene::with(
        2,
        Availability {
            below: BelowMinimum::Sorry(crds::SorryServer {
                address: server(99).address,
                port: 80,
                forwarding: crds::ForwardingRule::Nat,
            }),
            ..availability()
        },
    )
    .served();
    Arc::get_mut(&mut scene.guarded).unwrap().sorry = Some((server(99), weight(1)));
    scene.wish();
    scene
}

#[test]
fn restart_in_sorry_with_new_server() {
    let mut scene = sorry_scene();
    for _ in 0..3 {
        scene.probe("--");
    }
    scene.wanted.destinations.insert(server(3), weight(10));
    scene.restart();
    assert!(
        scene
            .kernel
            .as_ref()
            .unwrap()
            .destinations
            .contains_key(&server(99))
    );
}
