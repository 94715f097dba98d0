//! The journal of pins: restarts, crashes, damage.

use super::*;
use wiremesh_control::Level;

/// Some nodes that exist.
fn node(number: u8) -> NodeId {
    let secret = wiremesh_wire::SecretKey::from_bytes([number; 32]);
    crate::node_id(&secret).expect("a valid key")
}

fn pin(level: Level, max_seq: u64) -> Pin {
    Pin {
        level,
        max_seq,
        kem_pk_hash: (max_seq % 2 == 1).then_some([max_seq as u8; 32]),
        last_seen: max_seq + 100,
    }
}

fn batch(pins: &[(u8, Level, u64)], record_seq: u64) -> Kept {
    let pins = pins
        .iter()
        .map(|(n, level, seq)| (node(*n), pin(*level, *seq)));
    Kept {
        pins: pins.collect(),
        record_seq,
    }
}

/// A journal of three batches; gives what is kept after each.
fn three_batches(dir: &Path) -> Vec<(u64, Kept)> {
    let (mut journal, kept) = Journal::open(dir).expect("a fresh directory");
    assert!(kept.is_empty());
    let mut states = vec![(journal.len, kept)];
    for added in [
        batch(&[(1, Level::PostQuantum, 5), (2, Level::Classical, 6)], 0),
        batch(&[], 1_700_000_000),
        batch(&[(1, Level::PostQuantumAuthenticated, 8)], 1_700_000_001),
    ] {
        journal.append(&added).expect("writable");
        let mut kept = states.last().expect("one").1.clone();
        kept.pins.extend(added.pins);
        kept.record_seq = kept.record_seq.max(added.record_seq);
        states.push((journal.len, kept));
    }
    states
}

#[test]
fn what_was_added_is_there_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, kept) = three_batches(dir.path()).pop().expect("four states");
    let before = fs::read(dir.path().join(FILE_NAME)).expect("there");
    for _ in 0..2 {
        let (journal, read) = Journal::open(dir.path()).expect("good");
        assert_eq!(read, kept);
        let file = fs::read(dir.path().join(FILE_NAME)).expect("there");
        assert_eq!(file.len() as u64, journal.len);
        assert!(file.len() < before.len(), "it was compacted");
    }
    assert_eq!(load(dir.path()).expect("good"), kept);
}

#[test]
fn a_crash_at_any_byte_of_a_write_loses_only_that_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let states = three_batches(dir.path());
    let whole = fs::read(dir.path().join(FILE_NAME)).expect("there");
    let next = batch(&[(3, Level::PostQuantum, 9)], 0);
    for cut in states[0].0..=whole.len() as u64 {
        let torn = &whole[..usize::try_from(cut).expect("short")];
        fs::write(dir.path().join(FILE_NAME), torn).expect("ours");
        let (mut journal, kept) = Journal::open(dir.path()).expect("only torn");
        let written = states.iter().rev().find(|(len, _)| *len <= cut);
        let (_, at_least) = written.expect("the header is whole");
        // A batch has several lines: of the one that was cut, those that are whole count.
        assert!(kept.record_seq >= at_least.record_seq, "{cut}");
        for (id, pin) in &at_least.pins {
            assert!(kept.pins[id].max_seq >= pin.max_seq, "{cut}");
        }
        if states.iter().any(|(len, _)| *len == cut) {
            assert_eq!(kept, *at_least, "{cut}");
        }
        // What is added later does not join what was torn.
        journal.append(&next).expect("writable");
        let after = load(dir.path()).expect("whole");
        assert_eq!(after.pins[&node(3)], pin(Level::PostQuantum, 9), "{cut}");
        assert_eq!(after.pins.len(), kept.pins.len() + 1, "{cut}");
    }
}

/// Adds number after number and tells each that is safe, until it is killed.
fn append_for_ever(dir: &Path) -> ! {
    let (mut journal, kept) = Journal::open(dir).expect("good after every kill");
    let mut number = kept.record_seq;
    loop {
        number += 1;
        let pins = [
            (1, Level::PostQuantum, number),
            (2, Level::Classical, number),
        ];
        journal.append(&batch(&pins, number)).expect("writable");
        println!("{number}");
    }
}

#[cfg(unix)]
#[test]
fn a_node_that_is_killed_while_it_writes_has_kept_what_it_told() {
    use std::io::{BufRead, BufReader};
    const CHILD: &str = "WIREMESH_TEST_APPEND_TO";
    if let Some(dir) = std::env::var_os(CHILD) {
        append_for_ever(Path::new(&dir));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let this = "pins::tests::a_node_that_is_killed_while_it_writes_has_kept_what_it_told";
    let mut told = 0;
    for round in 1..=5 {
        let test = std::env::current_exe().expect("a test has a file");
        let mut child = std::process::Command::new(test)
            .args(["--exact", this, "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut numbers = 0;
        for line in output.lines() {
            let Ok(number) = line.expect("text").trim().parse::<u64>() else {
                continue;
            };
            assert!(number > told, "{number} after {told}");
            told = number;
            numbers += 1;
            if numbers == 10 * round {
                child.kill().expect("it runs");
            }
        }
        child.wait().expect("it was killed");
        let kept = load(dir.path()).expect("whole");
        assert!(kept.record_seq >= told, "{told} was told");
        assert!(kept.pins[&node(1)].max_seq >= told, "{told} was told");
    }
}

#[test]
fn zeros_behind_the_end_are_a_torn_write_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, kept) = three_batches(dir.path()).pop().expect("four states");
    let mut bytes = fs::read(dir.path().join(FILE_NAME)).expect("there");
    bytes.extend_from_slice(&[0; 4_096]);
    fs::write(dir.path().join(FILE_NAME), bytes).expect("ours");
    assert_eq!(load(dir.path()).expect("only torn"), kept);
}

#[test]
fn any_other_damage_is_an_error_with_file_line_and_remedy() {
    let dir = tempfile::tempdir().expect("a directory");
    three_batches(dir.path());
    let file = dir.path().join(FILE_NAME);
    let whole = fs::read(&file).expect("there");
    let line_of = |at: usize| whole[..at].iter().filter(|b| **b == b'\n').count() + 1;
    for at in 0..whole.len() - 1 {
        for mask in [0x01, 0x20, 0x80] {
            let mut damaged = whole.clone();
            damaged[at] ^= mask;
            fs::write(&file, &damaged).expect("ours");
            let error = Journal::open(dir.path()).expect_err("damaged").to_string();
            let line = format!("pins, line {}: ", line_of(at));
            assert!(error.contains(&line), "{at} {mask}: {error}");
            assert!(error.contains("remove"), "{error}");
            assert_eq!(fs::read(&file).expect("there"), damaged, "left as it is");
        }
    }
    // The last line feed is the only byte whose loss is a torn write.
    fs::write(&file, b"").expect("ours");
    assert!(Journal::open(dir.path()).is_err(), "an empty file is none");
}

#[test]
fn what_a_newer_version_wrote_is_not_guessed_at() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join(FILE_NAME);
    let known = pin_text(&node(1), &pin(Level::PostQuantum, 5));
    let future = known.replace(" L2 ", " L4 ");
    for (header, line, at) in [
        ("wiremesh-pins 2", known.clone(), 1),
        (HEADER, format!("{known} new-field"), 2),
        (HEADER, "seq 5 new-field".to_owned(), 2),
        (HEADER, "successor x y".to_owned(), 2),
        (HEADER, future, 2),
    ] {
        let mut text = format!("{header}\n");
        push_line(&mut text, &line);
        fs::write(&file, &text).expect("ours");
        let error = Journal::open(dir.path()).expect_err("not known here");
        let shown = error.to_string();
        assert!(
            matches!(error, PinsError::Newer { line, .. } if line == at),
            "{shown}"
        );
        assert!(shown.contains("newer version"), "{shown}");
        assert_eq!(
            fs::read_to_string(&file).expect("there"),
            text,
            "left as it is"
        );
    }
}

#[test]
fn a_failed_write_leaves_no_half_line_in_the_middle() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut journal, _) = Journal::open(dir.path()).expect("fresh");
    let first = batch(&[(1, Level::PostQuantum, 5)], 0);
    journal.append(&first).expect("writable");
    let good = std::mem::replace(
        &mut journal.file,
        File::open(&journal.path).expect("to read only"),
    );
    let second = batch(&[(2, Level::PostQuantum, 6)], 0);
    assert!(journal.append(&second).is_err(), "it cannot be written");
    // As a full disk leaves it: more than what is written next, and not whole.
    let mut torn = File::options()
        .append(true)
        .open(&journal.path)
        .expect("ours");
    let half = "pin half a line\n".repeat(100);
    torn.write_all(half.as_bytes()).expect("writable");
    journal.file = good;
    journal.append(&second).expect("writable again");
    let kept = load(dir.path()).expect("whole");
    assert_eq!(
        kept,
        batch(&[(1, Level::PostQuantum, 5), (2, Level::PostQuantum, 6)], 0)
    );
}

#[test]
fn a_long_journal_is_made_shorter_while_the_node_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut journal, _) = Journal::open(dir.path()).expect("fresh");
    journal.compact_at = 2_000;
    let mut longest = 0;
    for seq in 1..=100 {
        journal
            .append(&batch(&[(1, Level::PostQuantum, seq)], seq))
            .expect("writable");
        longest = longest.max(journal.len);
        journal.compact_at = 2_000;
    }
    assert!(longest < 2_000 && journal.len < 2_000, "{longest}");
    let kept = load(dir.path()).expect("good");
    assert_eq!(kept, batch(&[(1, Level::PostQuantum, 100)], 100));
}

#[test]
fn the_last_line_of_a_node_counts_and_the_highest_number() {
    let mut text = whole_text(&batch(&[(1, Level::PostQuantum, 5)], 7));
    assert_eq!(text.lines().count(), 3);
    text.push_str(&batch(&[(1, Level::Classical, 5)], 6).lines());
    let Ok(kept) = parse(text.as_bytes()) else {
        panic!("good");
    };
    // The operator lowered the pin; the number never falls.
    assert_eq!(kept, batch(&[(1, Level::Classical, 5)], 7));
}
