//! smoke
use ipvs::*;
#[test]
fn smoke() {
    let mut s = Socket::open().unwrap();
    println!("{:?}", s.info());
    println!("{:?}", s.table());
    let k = ServiceKey::Address {
        protocol: Protocol::TCP,
        address: "10.0.0.1".parse().unwrap(),
        port: 80,
    };
    let c = ServiceConfig {
        scheduler: "wrr".into(),
        flags: ServiceFlags(1),
        timeout: 300,
        prefix_length: 24,
        persistence_engine: None,
    };
    let d = DestinationKey {
        address: "10.0.1.1".parse().unwrap(),
        port: 80,
    };
    let dc = DestinationConfig {
        method: ForwardingMethod::Masquerade,
        weight: 3,
        upper_threshold: 0,
        lower_threshold: 0,
    };
    let ops = [
        Op::NewService(k, c.clone()),
        Op::NewDestination(k, d, dc),
        Op::NewDestination(k, d, dc),
        Op::DeleteService(k),
        Op::NewService(k, c),
        Op::NewDestination(k, d, dc),
    ];
    let f = s.apply(&ops).unwrap();
    println!("{f:?}");
    for f in f {
        println!("{}", f.errno.explain(&ops[f.index]));
    }
    println!("{:?}", s.table());
    println!("{:?}", s.statistics());
    println!("{} {}", s.writes(), s.system_calls());
    for o in &ops {
        println!("{o}");
    }
}
