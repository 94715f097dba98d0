//! Levels at the command line: status, policy, suites and pins, with real nodes.

#[path = "support/home.rs"]
mod home;

use home::{Home, Running, field, free_port};
use serde_json::Value;
use std::fs;

/// A home with a key, and the key's node id.
fn home() -> (Home, String) {
    let home = Home::new();
    let id = field(&home.good(&["key", "new", "--key", "key"]), "node id");
    (home, id)
}

/// Two homes whose configurations name each other; the second one waits for the first.
fn two_homes(security: [&str; 2]) -> [Home; 2] {
    let ((one, one_id), (two, two_id)) = (home(), home());
    let port = free_port();
    let config = |security: &str, listen: u16, name: &str, peer: &str, endpoint: &str| {
        format!(
            "[node]\nkey = \"key\"\nlisten = [\"127.0.0.1:{listen}\"]\n[security]\n{security}\n\
             [[peer]]\nname = \"{name}\"\nid = \"{peer}\"\n{endpoint}\n"
        )
    };
    let endpoint = format!("endpoint = \"127.0.0.1:{port}\"");
    let first = config(security[0], 0, "two", &two_id, &endpoint);
    one.write("node.toml", &first);
    two.write("node.toml", &config(security[1], port, "one", &one_id, ""));
    [one, two]
}

fn json(home: &Home, arguments: &[&str]) -> Value {
    serde_json::from_str(&home.good(arguments)).expect("JSON")
}

/// The only peer in the status.
fn peer(home: &Home) -> Value {
    json(home, &["status", "--json"])["peers"][0].clone()
}

fn ping(home: &Home, peer: &str) -> String {
    home.good(&["ping", peer, "-c", "1"])
}

fn stop(mut node: Running) {
    node.signal("TERM");
    assert_eq!(node.code(), Some(0));
}

#[test]
fn two_nodes_are_at_l2_and_status_tells_all_of_it() {
    let [one, two] = two_homes(["", ""]);
    let _nodes = [one.up("node.toml"), two.up("node.toml")];
    ping(&one, "two");
    for home in [&one, &two] {
        let peer = peer(home);
        assert_eq!(peer["level"], "L2", "{peer}");
        assert_eq!(peer["suite"], "0x0002");
        assert_eq!(peer["bare_streams"], true);
        assert_eq!(peer["required"], "L2");
        assert_eq!(peer["pin"]["level"], "L1", "no promise was made");
        assert!(peer["psk_epoch"].as_u64() > Some(0), "{peer}");
        assert!(peer["level_since_unix"].is_u64() && peer["last_rotation_unix"].is_u64());
        assert!(
            peer["waiting"].is_null() && peer["reason"].is_null(),
            "{peer}"
        );
        let policy = &json(home, &["status", "--json"])["policy"];
        assert_eq!(
            (&policy["minimum"], &policy["stage"]),
            (&"L2".into(), &"both".into())
        );
    }
    let text = one.good(&["status"]);
    for part in [
        "policy    minimum L2, stage both",
        "LEVEL",
        "two   L2     0x0002",
        "PROMISED",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let suites = one.good(&["suites"]);
    assert!(suites.contains("1 peer has told its list"), "{suites}");
    let suites = json(&one, &["suites", "--json"]);
    assert_eq!(suites["peers"], 1);
    let hybrid = &suites["suites"][1];
    assert_eq!(
        (&hybrid["suite"], &hybrid["listed_by"]),
        (&"0x0002".into(), &1.into())
    );
    assert_eq!(
        (&hybrid["best_of"], &hybrid["offered"]),
        (&1.into(), &true.into())
    );
    assert_eq!(suites["suites"][0]["listed_by"], 0);
}

#[test]
fn without_a_node_the_suites_of_the_program_are_shown() {
    let home = Home::new();
    let text = home.good(&["suites"]);
    for part in [
        "0x0001",
        "L1",
        "WireGuard v1",
        "0x0002",
        "ML-KEM-768",
        "0x0003",
        "L3",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(!text.contains("SHARE"), "{text}");
    assert!(json(&home, &["suites", "--json"])["peers"].is_null());
    let missing = home.bad(&["suites", "--socket", "nowhere"], 1);
    assert!(missing.contains("no node is running"), "{missing}");
    let missing = home.bad(&["policy"], 1);
    assert!(missing.contains("wiremesh up"), "{missing}");
}

#[test]
fn a_policy_is_shown_and_changed_while_the_node_runs() {
    let [one, two] = two_homes(["", "minimum = \"L1\"\nstage = \"old-only\""]);
    let _nodes = [one.up("node.toml"), two.up("node.toml")];
    let shown = two.good(&["policy"]);
    assert!(
        shown.contains("old-only") && shown.contains("0x0001"),
        "{shown}"
    );

    // The strict one says why nothing flows, and the refused one too.
    one.bad(&["ping", "two", "-c", "1", "-W", "1"], 1);
    for (home, name) in [(&one, "two"), (&two, "one")] {
        let text = loop {
            let text = home.good(&["status"]);
            if text.contains("no suite in common") || text.contains("it refuses") {
                break text;
            }
        };
        let line = format!("{name}: no data flows, waiting for ");
        assert!(text.contains(&line) && text.contains("waiting  "), "{text}");
        let waiting = peer(home)["waiting"].clone();
        assert!(
            waiting["reason"].is_string() && waiting["since_unix"].is_u64(),
            "{waiting}"
        );
        assert!(peer(home)["level"].is_null());
    }

    // What contradicts itself changes nothing.
    let wrong = one.bad(&["policy", "--stage", "old-only"], 2);
    assert!(
        wrong.contains("lists nothing of L2") && wrong.contains("minimum = \"L1\""),
        "{wrong}"
    );
    let wrong = one.bad(&["policy", "--minimum", "L3"], 2);
    assert!(wrong.contains("static-kem"), "{wrong}");
    let wrong = one.bad(&["policy", "--minimum", "L7"], 2);
    assert!(wrong.contains("L1, L2 or L3"), "{wrong}");

    // The other side moves on.
    let changed = two.good(&["policy", "--stage", "both"]);
    assert!(changed.contains("0x0002, 0x0001"), "{changed}");
    assert_eq!(json(&two, &["policy", "--json"])["stage"], "both");
    while peer(&one)["level"] != "L2" {
        one.run(&["ping", "two", "-c", "1", "-W", "1"]);
    }
    let promised = json(
        &two,
        &["policy", "--json", "--minimum", "L2", "--stage", "new-only"],
    );
    assert_eq!(promised["promises"], "L2");
    while peer(&one)["pin"]["level"] != "L2" {
        ping(&one, "two");
    }
}

#[test]
fn a_pin_is_shown_and_lowered_in_a_running_node_and_without_one() {
    let [one, two] = two_homes(["minimum = \"L1\"", "minimum = \"L2\"\nstage = \"new-only\""]);
    let node = one.up("node.toml");
    let other = two.up("node.toml");
    ping(&one, "two");
    let show = |arguments: &[&str]| json(&one, &[&["pin", "show", "--json"], arguments].concat());
    let pins = show(&[]);
    assert_eq!(pins["pins"][0]["level"], "L2", "{pins}");
    assert_eq!(pins["pins"][0]["name"], "two");
    assert!(pins["pins"][0]["last_seen_unix"].is_u64());
    let text = one.good(&["pin", "show", "two"]);
    assert!(text.contains("PROMISED") && text.contains("L2"), "{text}");
    let wrong = one.bad(&["pin", "show", "tow"], 2);
    assert!(wrong.contains("did you mean `two`"), "{wrong}");

    // Nobody can be asked, so nothing is done.
    let refused = one.bad(&["pin", "lower", "two"], 2);
    assert!(
        refused.contains("no terminal") && refused.contains("--yes"),
        "{refused}"
    );
    assert_eq!(show(&["two"])["pins"][0]["level"], "L2");
    let nothing = one.bad(&["pin", "lower", "two", "--to", "L2", "--yes"], 2);
    assert!(nothing.contains("nothing above L2"), "{nothing}");

    // The state folder is the running node's, whoever asks.
    one.write("other.toml", &other_socket(&one));
    let busy = one.bad(&["pin", "show", "--config", "other.toml"], 1);
    assert!(
        busy.contains("a running node uses this directory"),
        "{busy}"
    );

    stop(node);
    stop(other);
    // Without a node, from the configuration and its state folder.
    let place = ["--config", "node.toml"];
    assert_eq!(show(&place)["pins"][0]["level"], "L2");
    one.good(&[&["pin", "lower", "two", "--yes"][..], &place].concat());
    assert_eq!(show(&place)["pins"][0]["level"], "L1");
    assert_eq!(show(&place)["pins"][0]["name"], "two");
    let nothing = one.bad(
        &["pin", "lower", "two", "--yes", "--config", "node.toml"],
        2,
    );
    assert!(nothing.contains("nothing above L1"), "{nothing}");

    // The other node is back at L1, and is let in: the pin was all that stood in the way.
    go_back(&two);
    let _nodes = [one.up("node.toml"), two.up("node.toml")];
    ping_until_l1(&one);
}

/// Lets a node offer L1 only from its next start on.
fn go_back(home: &Home) {
    let text = fs::read_to_string(home.path().join("node.toml")).expect("there");
    let text = text.replace("new-only", "old-only");
    home.write(
        "node.toml",
        &text.replace("minimum = \"L2\"", "minimum = \"L1\""),
    );
}

fn ping_until_l1(home: &Home) {
    while peer(home)["level"] != "L1" {
        home.run(&["ping", "two", "-c", "1", "-W", "1"]);
    }
    ping(home, "two");
}

/// The configuration of a home with another control socket.
fn other_socket(home: &Home) -> String {
    let text = fs::read_to_string(home.path().join("node.toml")).expect("there");
    text.replace("[node]\n", "[node]\ncontrol-socket = \"other.sock\"\n")
}

#[test]
fn a_pin_that_is_lowered_at_run_time_lets_the_node_in_again() {
    let [one, two] = two_homes(["minimum = \"L1\"", "minimum = \"L2\"\nstage = \"new-only\""]);
    let (node, other) = (one.up("node.toml"), two.up("node.toml"));
    ping(&one, "two");
    stop(node);
    stop(other);
    go_back(&two);
    let _nodes = [one.up("node.toml"), two.up("node.toml")];
    let text = loop {
        one.run(&["ping", "two", "-c", "1", "-W", "1"]);
        let text = one.good(&["status"]);
        if text.contains("it promised L2") || text.contains("it refuses") {
            break text;
        }
    };
    assert!(text.contains("no data flows"), "{text}");
    one.good(&["pin", "lower", "two", "--yes"]);
    ping_until_l1(&one);
}

#[test]
fn damaged_pins_are_told_with_file_line_and_remedy() {
    let [one, _two] = two_homes(["", ""]);
    let folder = one.path().join(".local/state/wiremesh");
    fs::create_dir_all(&folder).expect("made");
    fs::write(folder.join("pins"), "wiremesh-pins 1\npin x\n").expect("written");
    for arguments in [&["pin", "show"][..], &["up", "--config", "node.toml"]] {
        let shown = one.bad(arguments, 1);
        assert!(
            shown.contains("pins, line 2: its checksum is wrong"),
            "{shown}"
        );
        assert!(shown.contains("backup"), "{shown}");
    }
    fs::remove_dir_all(&folder).expect("ours");
    assert_eq!(one.good(&["pin", "show"]), "no pins\n");
    assert!(!folder.exists(), "looking makes nothing");
}

#[test]
fn two_nodes_do_not_share_a_state_folder() {
    let [one, _two] = two_homes(["", ""]);
    let _node = one.up("node.toml");
    one.write("other.toml", &other_socket(&one));
    let refused = one.bad(&["up", "--config", "other.toml"], 1);
    assert!(
        refused.contains("a running node uses this directory"),
        "{refused}"
    );
    assert!(refused.contains("state-dir"), "{refused}");
}
