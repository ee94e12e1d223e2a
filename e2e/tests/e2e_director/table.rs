//! Builds the table of the LVS course row by row, with kubectl instead of
//! ipvsadm.

use e2e::{
    Host, Segment,
    cluster::{
        Cluster, PATIENCE, example, expect_table, start_agent, value, wait_for_words,
        wait_until_ready,
    },
    eventually, ipvsadm, kubectl, kubectl_apply,
    segment::attach_to_management,
    wait::eventually_equal,
};

const STRANGER: &str = "-A -t 192.168.4.5:8080 -s rr";
const WEB: &str = "-A -t 192.168.4.5:80 -s wrr";
const WEB_RR: &str = "-A -t 192.168.4.5:80 -s rr";
const WEB_100: &str = "-a -t 192.168.4.5:80 -r 192.168.2.100:80 -g -w 1";
const WEB_200: &str = "-a -t 192.168.4.5:80 -r 192.168.2.200:80 -m -w 2";
const WEB_201: &str = "-a -t 192.168.4.5:80 -r 192.168.2.201:80 -m -w 3";
const WEB_202: &str = "-a -t 192.168.4.5:80 -r 192.168.2.202:80 -m -w 4";
const WEB_202_DR: &str = "-a -t 192.168.4.5:80 -r 192.168.2.202:80 -g -w 4";
const MYSQL: &str = "-A -t 192.168.4.5:3306 -s lc";
const MYSQL_PERSISTENT: &str = "-A -t 192.168.4.5:3306 -s lc -p 60";
const MYSQL_100: &str = "-a -t 192.168.4.5:3306 -r 192.168.2.100:3306 -m -w 1";
const MYSQL_200: &str = "-a -t 192.168.4.5:3306 -r 192.168.2.200:3306 -m -w 1";
const INTRANET: &str = "-A -t 10.10.10.1:80 -s wrr";
const INTRANET_11: &str = "-a -t 10.10.10.1:80 -r 192.168.10.11:80 -m -w 1";

#[test]
fn the_table_by_hand() {
    let _cluster = Cluster::start();
    let (outer, intranet) = (Segment::new("outer"), Segment::new("intranet"));
    let director = Host::new("director");
    outer.attach(&director, "eth0", "192.168.4.5/24");
    intranet.attach(&director, "eth1", "10.10.10.5/24");
    attach_to_management(&director);
    director.run("ipvsadm -A -t 192.168.4.5:8080 -s rr");
    let agent = start_agent(&director, "director1");

    // In place of `ipvsadm -A` and `-a`, manifests create three services. One
    // of the services has servers with different forwarding methods.
    let mut table = vec![
        STRANGER,
        WEB,
        WEB_100,
        WEB_200,
        WEB_201,
        WEB_202,
        MYSQL,
        MYSQL_100,
        MYSQL_200,
        INTRANET,
        INTRANET_11,
    ];
    kubectl_apply(&example("table-by-hand.yaml"));
    wait_until_ready(&["web", "mysql", "intranet"]);
    expect_table(&director, &table);
    assert!(
        director
            .run("ip -brief address show eth1")
            .contains("10.10.10.1/32"),
        "the VIP must be on the interface whose subnet contains it"
    );

    // In place of `ipvsadm -Ln`, `kubectl get ivs` shows the three services.
    for line in [
        "web 192.168.4.5 80 4 director1 True Ready",
        "mysql 192.168.4.5 3306 2 director1 True Ready",
        "intranet 10.10.10.1 80 1 director1 True Ready",
    ] {
        eventually(
            &format!("kubectl get ivs to show {line:?}"),
            PATIENCE,
            || {
                let shown = kubectl(&["get", "ivs", "--no-headers"]);
                match shown.lines().any(|row| words(row).starts_with(line)) {
                    true => Ok(()),
                    false => Err(shown),
                }
            },
        );
    }

    // In place of `ipvsadm -E -s rr`, a patch changes the scheduler, and the
    // real servers stay.
    patch("ivs/web", r#"{"spec":{"scheduler":"rr"}}"#);
    replace(&mut table, WEB, WEB_RR);
    expect_table(&director, &table);

    // In place of `ipvsadm -e -g`, a patch changes the forwarding method, and
    // the weight stays.
    patch("irs/web-202", r#"{"spec":{"forwarding":{"method":"DR"}}}"#);
    replace(&mut table, WEB_202, WEB_202_DR);
    expect_table(&director, &table);

    // In place of `ipvsadm -E -p 60`, a patch makes the service persistent.
    patch(
        "ivs/mysql",
        r#"{"spec":{"persistence":{"timeoutSeconds":60}}}"#,
    );
    replace(&mut table, MYSQL, MYSQL_PERSISTENT);
    expect_table(&director, &table);

    // In place of `ipvsadm -d` and `-D`, kubectl deletes a RealServer and a
    // VirtualService. When the agent removes a service, the kernel also removes
    // the service's servers.
    kubectl(&["delete", "irs/web-100", "ivs/mysql"]);
    table.retain(|line| *line != WEB_100 && !line.contains(":3306"));
    expect_table(&director, &table);
    let selected = || value("ivs/web", ".status.realServers.selected");
    let three = "3".to_owned();
    eventually_equal("web's real servers", PATIENCE, &three, selected);
    wait_until_ready(&["web"]);
    // The RealServers of the deleted VirtualService still exist, but are no
    // longer selected.
    wait_for_words("irs/mysql-100", "Ready", &["NotSelected: "]);

    // In place of `ipvsadm -C`, kubectl deletes all objects. The agent removes
    // our entries, while the stranger's entry and its VIP stay.
    kubectl(&["delete", "ivs,irs", "--all"]);
    expect_table(&director, &[STRANGER]);
    assert!(
        !director
            .run("ip -brief address show eth1")
            .contains("10.10.10.1/32"),
        "the VIP that the agent added must be removed with its last service"
    );
    assert!(
        director
            .run("ip -brief address show eth0")
            .contains("192.168.4.5/24"),
        "the director's own address must stay"
    );
    assert_eq!(ipvsadm::saved(&director).lines().count(), 1);
    drop(agent);
}

fn replace<'a>(table: &mut [&'a str], old: &str, new: &'a str) {
    let line = table.iter_mut().find(|line| **line == old);
    *line.expect("the table has the line that an edit replaces") = new;
}

fn patch(object: &str, patch: &str) {
    kubectl(&["patch", object, "--type=merge", "-p", patch]);
}

fn words(row: &str) -> String {
    row.split_whitespace().collect::<Vec<_>>().join(" ")
}
