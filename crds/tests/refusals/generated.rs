//! Randomly generated specs: some are nearly valid, and some have almost
//! arbitrary values.

mod group;
mod health_check;

use std::sync::LazyLock;

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value, json};

use crate::{refusal, schema::Admission};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn admission_and_the_store_refuse_the_same_services(spec in service()) {
        static ADMISSION: LazyLock<Admission> = LazyLock::new(|| Admission::of("VirtualService"));
        same(&ADMISSION, &object("VirtualService", &spec), None)?;
    }

    #[test]
    fn admission_and_the_store_refuse_the_same_checks(spec in health_check::checked_service()) {
        static ADMISSION: LazyLock<Admission> = LazyLock::new(|| Admission::of("VirtualService"));
        same(&ADMISSION, &object("VirtualService", &spec), None)?;
    }

    #[test]
    fn admission_and_the_store_refuse_the_same_servers(spec in server()) {
        static ADMISSION: LazyLock<Admission> = LazyLock::new(|| Admission::of("RealServer"));
        same(&ADMISSION, &object("RealServer", &spec), None)?;
    }

    #[test]
    fn admission_and_the_store_refuse_the_same_groups(spec in group::group()) {
        static ADMISSION: LazyLock<Admission> = LazyLock::new(|| Admission::of("DirectorGroup"));
        same(&ADMISSION, &object("DirectorGroup", &spec), None)?;
    }

    #[test]
    fn admission_and_the_store_refuse_the_same_edits(
        before in near_valid_service(),
        after in near_valid_service(),
    ) {
        static ADMISSION: LazyLock<Admission> = LazyLock::new(|| Admission::of("VirtualService"));
        let before = object("VirtualService", &before);
        prop_assume!(refusal(&before, None).is_none());
        same(&ADMISSION, &object("VirtualService", &after), Some(&before))?;
    }
}

fn same(
    admission: &Admission,
    object: &Value,
    before: Option<&Value>,
) -> Result<(), TestCaseError> {
    let by_admission = admission.refusals(object, before);
    let by_the_store = refusal(object, before);
    prop_assert_eq!(
        by_admission.is_empty(),
        by_the_store.is_none(),
        "{:#}\nadmission: {:?}\nstore: {:?}",
        object,
        by_admission,
        by_the_store
    );
    Ok(())
}

fn object(kind: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "ipvs.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "it", "namespace": "default"},
        "spec": spec,
    })
}

/// Generates an object in which each of the given fields may be absent.
fn fields<const N: usize>(
    fields: [(&'static str, BoxedStrategy<Option<Value>>); N],
) -> BoxedStrategy<Value> {
    let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    values
        .prop_map(move |values| {
            let drawn = names.iter().zip(values);
            Value::Object(
                drawn
                    .filter_map(|(name, value)| Some(((*name).to_owned(), value?)))
                    .collect::<Map<_, _>>(),
            )
        })
        .boxed()
}

fn always(value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Option<Value>> {
    option::weighted(0.97, value).boxed()
}

fn often(value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Option<Value>> {
    option::weighted(0.7, value).boxed()
}

fn seldom(value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Option<Value>> {
    option::weighted(0.2, value).boxed()
}

/// Draws mostly a good value, sometimes a bad value, and rarely a value of
/// another type.
fn pool(good: Vec<Value>, bad: Vec<Value>) -> BoxedStrategy<Value> {
    prop_oneof![
        120 => select(good),
        8 => select(bad),
        1 => select(vec![json!(true), json!("80"), json!([]), json!({}), json!(-1), json!(9_999_999_999_i64)]),
    ]
    .boxed()
}

fn texts(all: &[&str]) -> Vec<Value> {
    all.iter().map(|text| json!(text)).collect()
}

fn numbers(all: &[i64]) -> Vec<Value> {
    all.iter().map(|number| json!(number)).collect()
}

fn address() -> BoxedStrategy<Value> {
    let pooled = pool(
        texts(&[
            "192.0.2.10",
            "10.0.0.1",
            "169.254.20.10",
            "100.64.0.1",
            "0.0.0.1",
            "240.0.0.1",
            "2001:db8::10",
            "2001:DB8::10",
            "fd00::1",
            "::1.2.3.4",
            "fec0::1",
            "64:ff9b::192.0.2.1",
            "2001:0db8:0000:0000:0000:0000:192.0.2.10",
            "1:2:3:4:5:6:7::",
        ]),
        texts(&[
            "",
            " 192.0.2.10",
            "192.0.2.10 ",
            "192.0.2",
            "192.0.2.256",
            "192.0.2.010",
            "0xc0.0.2.10",
            "3221225994",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "::",
            "::1",
            "ff02::1",
            "fe80::1",
            "febf::1",
            "::ffff:192.0.2.10",
            "::ffff:c000:20a",
            "fe80::1%eth0",
            "[2001:db8::1]",
            "2001:db8::/64",
            "1:2:3:4:5:6:7:8:9",
            "00001::1",
            "www.example.com",
        ]),
    );
    prop_oneof![
        20 => pooled,
        1 => any::<[u8; 4]>().prop_map(|bytes| json!(std::net::Ipv4Addr::from(bytes).to_string())),
        1 => any::<[u8; 16]>().prop_map(|bytes| json!(std::net::Ipv6Addr::from(bytes).to_string())),
        1 => "[0-9a-f:.]{0,50}".prop_map(Value::from),
    ]
    .boxed()
}

fn port() -> BoxedStrategy<Value> {
    pool(
        numbers(&[1, 80, 8080, 65535]),
        numbers(&[0, 65536, 70000, -80]),
    )
}

fn tunnel() -> BoxedStrategy<Value> {
    fields([
        (
            "type",
            often(pool(texts(&["IPIP", "GUE", "GRE"]), texts(&["", "gue"]))),
        ),
        ("port", option::of(port()).boxed()),
        (
            "checksum",
            often(pool(texts(&["None", "Full", "Remote"]), texts(&["full"]))),
        ),
    ])
}

fn forwarding() -> BoxedStrategy<Value> {
    fields([
        (
            "method",
            always(pool(
                texts(&["NAT", "DR", "TUN", "TUN"]),
                texts(&["dr", ""]),
            )),
        ),
        ("tunnel", seldom(tunnel())),
    ])
}

fn vip() -> BoxedStrategy<Value> {
    fields([
        ("address", always(address())),
        ("port", always(port())),
        (
            "protocol",
            often(pool(texts(&["TCP", "UDP", "SCTP"]), texts(&["tcp"]))),
        ),
    ])
}

fn firewall_mark() -> BoxedStrategy<Value> {
    fields([
        (
            "mark",
            always(pool(
                numbers(&[1, 7, 4_294_967_295]),
                numbers(&[0, 4_294_967_296]),
            )),
        ),
        (
            "ipFamily",
            often(pool(texts(&["IPv4", "IPv6"]), texts(&["ipv4"]))),
        ),
    ])
}

fn persistence() -> BoxedStrategy<Value> {
    fields([
        (
            "timeoutSeconds",
            often(pool(
                numbers(&[1, 300, 4_294_967]),
                numbers(&[0, 4_294_968]),
            )),
        ),
        (
            "prefixLength",
            often(pool(numbers(&[1, 24, 32, 33, 64, 128]), numbers(&[0, 129]))),
        ),
        ("engine", seldom(pool(texts(&["sip"]), texts(&["SIP"])))),
    ])
}

fn label_key() -> BoxedStrategy<String> {
    let long = "a".repeat(63);
    let good = [
        "app",
        "a",
        "A.b_c-d",
        "example.com/app",
        long.as_str(),
        "a.b.c/d",
    ]
    .map(str::to_owned);
    let bad = [
        String::new(),
        "-a".into(),
        "a-".into(),
        "a b".into(),
        "/a".into(),
        "a/".into(),
        "a/b/c".into(),
        "A.com/a".into(),
        "a..b/c".into(),
        "é".into(),
        "a".repeat(64),
        format!("{}/a", "a".repeat(254)),
        format!("{}/a", "a".repeat(253)),
        "app\n".into(),
    ];
    prop_oneof![60 => select(good.to_vec()), 2 => select(bad.to_vec())].boxed()
}

fn label_value() -> BoxedStrategy<Value> {
    pool(
        vec![
            json!("web"),
            json!(""),
            json!("1.2_3-4"),
            json!("a".repeat(63)),
        ],
        vec![
            json!("a/b"),
            json!("-"),
            json!("a".repeat(64)),
            json!("é"),
            json!("web\n"),
        ],
    )
}

fn labels() -> BoxedStrategy<Value> {
    let some = vec((label_key(), label_value()), 0..4);
    let many = vec(("[a-z]{4}", label_value()), 15..19);
    prop_oneof![60 => some, 1 => many]
        .prop_map(|pairs| Value::Object(pairs.into_iter().collect()))
        .boxed()
}

fn expression() -> BoxedStrategy<Value> {
    let values = prop_oneof![20 => vec(label_value(), 0..3), 1 => vec(label_value(), 63..67)];
    fields([
        ("key", always(label_key().prop_map(Value::from))),
        (
            "operator",
            always(pool(
                texts(&["In", "NotIn", "Exists", "DoesNotExist"]),
                texts(&["in", "Gt"]),
            )),
        ),
        ("values", often(values.prop_map(Value::from))),
    ])
}

fn selector() -> BoxedStrategy<Value> {
    let expressions = prop_oneof![30 => vec(expression(), 0..3), 1 => vec(expression(), 15..19)];
    fields([
        ("matchLabels", option::weighted(0.9, labels()).boxed()),
        (
            "matchExpressions",
            seldom(expressions.prop_map(Value::from)),
        ),
    ])
}

fn name() -> BoxedStrategy<Value> {
    pool(
        vec![
            json!("default"),
            json!("edge-1.example"),
            json!("a".repeat(253)),
        ],
        vec![
            json!(""),
            json!("Edge"),
            json!("a_b"),
            json!("a."),
            json!(".a"),
            json!("a".repeat(254)),
            json!("a\n"),
        ],
    )
}

fn service() -> BoxedStrategy<Value> {
    fields([
        ("vip", option::weighted(0.85, vip()).boxed()),
        (
            "firewallMark",
            option::weighted(0.1, firewall_mark()).boxed(),
        ),
        (
            "scheduler",
            often(pool(
                texts(&["rr", "wlc", "sh", "mh", "twos"]),
                texts(&["WLC", "quantum"]),
            )),
        ),
        (
            "schedulerFlags",
            seldom(
                vec(
                    pool(
                        texts(&["sh-port", "sh-fallback", "mh-port", "mh-fallback"]),
                        texts(&["port"]),
                    ),
                    0..3,
                )
                .prop_map(Value::from),
            ),
        ),
        (
            "onePacketScheduling",
            seldom(any::<bool>().prop_map(Value::from)),
        ),
        ("persistence", option::weighted(0.4, persistence()).boxed()),
        ("forwarding", often(forwarding())),
        ("realServerSelector", always(selector())),
        ("directorGroupName", seldom(name())),
    ])
}

fn server() -> BoxedStrategy<Value> {
    fields([
        ("address", always(address())),
        ("port", often(port())),
        (
            "weight",
            often(pool(numbers(&[0, 1, 65535]), numbers(&[65536, -1]))),
        ),
        ("forwarding", often(forwarding())),
        (
            "connections",
            seldom(fields([
                (
                    "upperThreshold",
                    always(pool(
                        numbers(&[1, 100, 2_147_483_647]),
                        numbers(&[0, 2_147_483_648]),
                    )),
                ),
                (
                    "lowerThreshold",
                    often(pool(
                        numbers(&[1, 75, 100, 2_147_483_647]),
                        numbers(&[0, 101]),
                    )),
                ),
            ])),
        ),
        (
            "unknownToThisVersion",
            seldom(Just(json!({"any": "thing"}))),
        ),
    ])
}

/// Generates a service with only the parts that tests of edits need. There are
/// only a few addresses to choose from, so that an edit often keeps the
/// service's address. One of the addresses is written in three forms.
fn near_valid_service() -> BoxedStrategy<Value> {
    let vip = fields([
        (
            "address",
            always(select(texts(&[
                "192.0.2.10",
                "2001:db8::10",
                "2001:DB8::10",
                "2001:db8:0::0.0.0.16",
            ]))),
        ),
        ("port", always(select(numbers(&[0, 80])))),
        ("protocol", often(select(texts(&["TCP", "UDP"])))),
    ]);
    let mark = fields([
        ("mark", always(select(numbers(&[7])))),
        ("ipFamily", often(select(texts(&["IPv4", "IPv6"])))),
    ]);
    let known = prop_oneof![
        vip.prop_map(|vip| json!({"vip": vip})),
        mark.prop_map(|mark| json!({"firewallMark": mark})),
    ];
    let rest = fields([
        ("scheduler", often(select(texts(&["rr", "sh"])))),
        (
            "directorGroupName",
            seldom(select(texts(&["default", "edge"]))),
        ),
        (
            "persistence",
            option::weighted(0.5, Just(json!({}))).boxed(),
        ),
    ]);
    (known, rest)
        .prop_map(|(mut spec, rest)| {
            spec["realServerSelector"] = json!({"matchLabels": {"app": "web"}});
            for (name, value) in rest.as_object().unwrap() {
                spec[name.as_str()] = value.clone();
            }
            spec
        })
        .boxed()
}
