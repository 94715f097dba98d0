//! The replay window: a table of edges, and equality with a naive set.

use proptest::prelude::*;
use std::collections::BTreeSet;
use wiremesh_noise::ReplayWindow;
use wiremesh_noise::constants::REJECT_AFTER_MESSAGES;
use wiremesh_noise::replay::{BITS, WINDOW};

/// One more than the distance at which a counter is still told apart.
const BEYOND: u64 = WINDOW + 1;

/// What an opener does with a counter whose packet authenticates.
fn accept(window: &mut ReplayWindow, counter: u64) -> bool {
    let new = counter < REJECT_AFTER_MESSAGES && window.check(counter);
    if new {
        window.mark(counter);
    }
    new
}

fn assert_accepts_all(window: &mut ReplayWindow, counters: impl Iterator<Item = u64>) {
    for counter in counters {
        assert!(accept(window, counter), "counter {counter}");
    }
}

#[test]
fn window_is_the_one_of_the_kernel() {
    assert_eq!((BITS, WINDOW), (8192, 8128));
}

/// The edges that the kernel module's own self-test walks through, in its order.
#[test]
fn counters_at_the_edges_of_the_window() {
    let top = BEYOND * 4;
    let last = REJECT_AFTER_MESSAGES - 1;
    let steps = [
        (0, true, "counter zero is a counter like others"),
        (1, true, "in order"),
        (1, false, "seen"),
        (9, true, "a gap"),
        (8, true, "late, within the first block"),
        (7, true, "later still"),
        (7, false, "seen"),
        (BEYOND, true, "moves the window by nearly its length"),
        (BEYOND - 1, true, "late by one"),
        (BEYOND - 1, false, "seen"),
        (BEYOND - 2, true, "late by two"),
        (2, true, "old but still in the window"),
        (2, false, "seen"),
        (BEYOND + 16, true, "moves the window past the oldest gap"),
        (3, false, "fell out of the window"),
        (BEYOND + 16, false, "the greatest itself"),
        (top, true, "moves by several windows"),
        (top - WINDOW, true, "the oldest that can be told apart"),
        (10, false, "long gone"),
        (top - WINDOW - 1, false, "one too old"),
        (top - WINDOW - 2, false, "two too old"),
        (top - WINDOW + 1, true, "the oldest but one"),
        (top - WINDOW, false, "seen"),
        (0, false, "long gone"),
        (
            REJECT_AFTER_MESSAGES,
            false,
            "the first that no session may use",
        ),
        (last, true, "the last that a session may use"),
        (
            REJECT_AFTER_MESSAGES,
            false,
            "beyond, with the window at its end",
        ),
        (last, false, "seen"),
        (last - 1, true, "late by one at the end"),
        (REJECT_AFTER_MESSAGES + 1, false, "further beyond"),
        (REJECT_AFTER_MESSAGES + 2, false, "further beyond"),
        (u64::MAX, false, "as far as it goes"),
        (last - 1, false, "seen"),
        (last - 2, true, "late by two at the end"),
        (0, false, "long gone"),
    ];
    let mut window = ReplayWindow::new();
    for (step, (counter, expected, why)) in steps.into_iter().enumerate() {
        assert_eq!(
            accept(&mut window, counter),
            expected,
            "step {step}: {counter}: {why}"
        );
    }
}

#[test]
fn counter_zero_may_come_last_of_a_full_window() {
    let mut window = ReplayWindow::new();
    assert_accepts_all(&mut window, 1..=WINDOW);
    assert!(accept(&mut window, 0));
    assert!(!accept(&mut window, 0));
}

#[test]
fn counter_zero_is_too_old_one_step_later() {
    let mut window = ReplayWindow::new();
    assert_accepts_all(&mut window, 2..=BEYOND);
    assert!(accept(&mut window, 1));
    assert!(!accept(&mut window, 0));
}

#[test]
fn a_full_window_may_come_in_reverse() {
    let mut window = ReplayWindow::new();
    assert_accepts_all(&mut window, (0..=WINDOW).rev());

    let mut window = ReplayWindow::new();
    assert_accepts_all(&mut window, (1..=BEYOND).rev());
    assert!(!accept(&mut window, 0), "outside of what came in reverse");

    let mut window = ReplayWindow::new();
    assert_accepts_all(&mut window, (1..=WINDOW).rev());
    assert!(accept(&mut window, BEYOND), "moves the window off zero");
    assert!(!accept(&mut window, 0));

    let mut window = ReplayWindow::new();
    assert_accepts_all(&mut window, (1..=WINDOW).rev());
    assert!(accept(&mut window, 0));
    assert!(accept(&mut window, BEYOND));
}

#[test]
fn marking_what_is_too_old_changes_nothing() {
    let mut window = ReplayWindow::new();
    window.mark(BEYOND * 3);
    window.mark(5);
    window.mark(u64::MAX);
    assert_eq!(window.next(), BEYOND * 3 + 1);
    assert_accepts_all(&mut window, BEYOND * 3 - WINDOW..BEYOND * 3);
}

/// The window as one would write it without regard to memory.
#[derive(Default)]
struct Naive {
    seen: BTreeSet<u64>,
}

impl Naive {
    fn accept(&mut self, counter: u64) -> bool {
        let greatest = self.seen.last().copied().unwrap_or(0);
        greatest.saturating_sub(counter) <= WINDOW && self.seen.insert(counter)
    }
}

/// A step relative to the greatest counter so far.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ahead(u64),
    Behind(u64),
    At(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u64..4).prop_map(Step::Ahead),
        2 => (0u64..200).prop_map(Step::Ahead),
        1 => (WINDOW - 70..BITS + 70).prop_map(Step::Ahead),
        1 => (0u64..1 << 40).prop_map(Step::Ahead),
        4 => (0u64..200).prop_map(Step::Behind),
        3 => (WINDOW - 70..BITS + 70).prop_map(Step::Behind),
        1 => (0u64..3).prop_map(Step::At),
    ]
}

proptest! {
    #[test]
    fn window_equals_a_naive_set(steps in prop::collection::vec(step(), 1..400)) {
        let (mut window, mut naive) = (ReplayWindow::new(), Naive::default());
        for step in steps {
            let greatest = naive.seen.last().copied().unwrap_or(0);
            let counter = match step {
                Step::Ahead(by) => greatest + by,
                Step::Behind(by) => greatest.saturating_sub(by),
                Step::At(counter) => counter,
            };
            prop_assert_eq!(accept(&mut window, counter), naive.accept(counter), "{}", counter);
        }
    }
}
