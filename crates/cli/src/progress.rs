//! Progress on standard error: a line that is redrawn on a terminal, a new line every few seconds
//! elsewhere.
//!
//! Owns the rate, the estimate and the drawing; the numbers come from a [`Meter`].

use crate::term;
use crate::transfer::Meter;
use crate::transfer::meter::Snapshot;
use crate::units;
use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const REDRAW_EVERY: Duration = Duration::from_millis(100);
const PRINT_EVERY: Duration = Duration::from_secs(5);

/// The rate is that of the last few seconds.
const RATE_OVER: Duration = Duration::from_secs(5);

/// Columns of everything but the bar, at most.
const WORDS: usize = 68;

/// Draws until it is stopped.
pub struct Progress {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Progress {
    /// Begins to draw the counters of `meter`.
    pub fn start(meter: Arc<Meter>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(draw(meter, stopped));
        Self { stop, task }
    }

    /// Draws the last state and leaves the line.
    pub async fn finish(self) {
        let _ = self.stop.send(());
        // It only ends; there is nothing to tell.
        let _ = self.task.await;
    }
}

/// A bar for work whose parts are known by number and name. Drawn on a terminal only: elsewhere it
/// would be a line for each part.
#[derive(Debug)]
pub struct Steps {
    total: usize,
    done: usize,
    redraws: bool,
}

impl Steps {
    /// For so many parts.
    pub fn new(total: usize) -> Self {
        Self {
            total,
            done: 0,
            redraws: term::stderr_redraws(),
        }
    }

    /// The next part begins.
    pub fn next(&mut self, what: &str) {
        self.done += 1;
        self.draw(&steps_line(self.done, self.total, what, term::columns()));
    }

    /// Removes the bar: what was made speaks for itself.
    pub fn finish(&self) {
        self.draw("");
    }

    fn draw(&self, text: &str) {
        if self.redraws {
            let mut stderr = std::io::stderr().lock();
            // Progress that nobody can see is no reason to stop.
            let _ = write!(stderr, "\r\u{1b}[K{text}").and_then(|()| stderr.flush());
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        // A message that follows begins on a clean line.
        self.finish();
    }
}

/// One line: bar, number, name. The part that is under way is not done.
fn steps_line(number: usize, total: usize, what: &str, columns: usize) -> String {
    let bar = bar((number.saturating_sub(1)) as f64 / total.max(1) as f64, 24);
    let text = format!("{bar} {number} of {total}  {what}");
    text.chars().take(columns.saturating_sub(1)).collect()
}

fn bar(part: f64, width: usize) -> String {
    let filled = ((part * width as f64) as usize).min(width);
    format!("{}{}", "█".repeat(filled), "░".repeat(width - filled))
}

async fn draw(meter: Arc<Meter>, mut stopped: oneshot::Receiver<()>) {
    let redraws = term::stderr_redraws();
    let mut ticks = tokio::time::interval(if redraws { REDRAW_EVERY } else { PRINT_EVERY });
    let begun = Instant::now();
    let mut rate = Rate::default();
    let mut drawn = false;
    loop {
        let last = tokio::select! {
            _ = &mut stopped => true,
            _ = ticks.tick() => false,
        };
        let snapshot = meter.snapshot();
        rate.add(begun.elapsed(), snapshot.bytes_moved);
        if snapshot.files_total > 0 && (redraws || last || begun.elapsed() >= PRINT_EVERY) {
            let text = line(
                &snapshot,
                &rate,
                if redraws { term::columns() } else { usize::MAX },
            );
            let mut stderr = std::io::stderr().lock();
            // Progress that nobody can see is no reason to stop.
            let _ = if redraws {
                write!(stderr, "\r\u{1b}[K{text}").and_then(|()| stderr.flush())
            } else {
                writeln!(stderr, "{text}")
            };
            drawn = true;
        }
        if last {
            if drawn && redraws {
                let _ = writeln!(std::io::stderr());
            }
            return;
        }
    }
}

/// The rate over the last seconds.
#[derive(Debug, Default)]
struct Rate {
    samples: VecDeque<(Duration, u64)>,
}

impl Rate {
    fn add(&mut self, now: Duration, bytes: u64) {
        self.samples.push_back((now, bytes));
        while self.samples.len() > 2
            && self
                .samples
                .get(1)
                .is_some_and(|(at, _)| now.saturating_sub(*at) >= RATE_OVER)
        {
            self.samples.pop_front();
        }
    }

    fn bytes_per_second(&self) -> f64 {
        let (Some((from, before)), Some((to, after))) = (self.samples.front(), self.samples.back())
        else {
            return 0.0;
        };
        let seconds = to.saturating_sub(*from).as_secs_f64();
        if seconds <= 0.0 {
            0.0
        } else {
            after.saturating_sub(*before) as f64 / seconds
        }
    }
}

/// One line: bar, percent, bytes, rate, time left, files.
fn line(snapshot: &Snapshot, rate: &Rate, columns: usize) -> String {
    let done = (snapshot.bytes_moved + snapshot.bytes_kept).min(snapshot.bytes_total);
    let part = if snapshot.bytes_total == 0 {
        snapshot.files_done as f64 / snapshot.files_total.max(1) as f64
    } else {
        done as f64 / snapshot.bytes_total as f64
    };
    let width = columns.saturating_sub(WORDS).clamp(6, 24);
    let bar = bar(part, width);
    let speed = rate.bytes_per_second();
    let left = snapshot.bytes_total - done;
    let eta = match (left, speed) {
        (0, _) => String::new(),
        (_, ..1.0) => "stalled".to_owned(),
        _ => format!("{} left", units::span(whole_seconds(left as f64 / speed))),
    };
    let mut text = format!(
        "{bar} {:3}%  {} of {}  {}  {eta}",
        (part * 100.0) as u32,
        units::bytes(done),
        units::bytes(snapshot.bytes_total),
        units::rate(speed),
    );
    if snapshot.files_total > 1 {
        text += &format!("  file {} of {}", snapshot.files_done, snapshot.files_total);
    }
    let columns = columns.saturating_sub(1);
    text.trim_end().chars().take(columns).collect()
}

fn whole_seconds(seconds: f64) -> Duration {
    Duration::from_secs(seconds.ceil().clamp(1.0, 8.64e9) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(moved: u64, kept: u64, total: u64) -> Snapshot {
        Snapshot {
            bytes_total: total,
            bytes_moved: moved,
            bytes_kept: kept,
            files_total: 1,
            ..Snapshot::default()
        }
    }

    fn steady(bytes_per_second: u64) -> Rate {
        let mut rate = Rate::default();
        for second in 0..4 {
            rate.add(Duration::from_secs(second), second * bytes_per_second);
        }
        rate
    }

    #[test]
    fn line_shows_percent_bytes_rate_and_time_left() {
        let text = line(&snapshot(1 << 20, 1 << 20, 4 << 20), &steady(1 << 20), 200);
        assert!(
            text.contains(" 50%  2.0 MiB of 4.0 MiB  1.0 MiB/s  2.0 s left"),
            "{text}"
        );
        assert_eq!(text.matches('█').count(), 12);
        assert!(line(&snapshot(1, 1, 4), &steady(1), 80).chars().count() < 80);
    }

    #[test]
    fn edges_do_not_panic() {
        for (moved, kept, total) in [(0, 0, 0), (5, 0, 0), (9, 9, 10), (0, 0, u64::MAX)] {
            for columns in [0, 1, 40, 200] {
                let text = line(&snapshot(moved, kept, total), &steady(0), columns);
                assert!(text.chars().count() <= columns);
            }
        }
        let text = line(&snapshot(0, 0, 10), &steady(0), 200);
        assert!(text.contains("stalled"), "{text}");
    }

    #[test]
    fn steps_are_named_and_fit() {
        let text = steps_line(5, 16, "throughput up", 80);
        assert!(text.ends_with(" 5 of 16  throughput up"), "{text}");
        assert_eq!(text.matches('█').count(), 6);
        for (number, total, columns) in [(0, 0, 0), (9, 3, 10), (1, 1, 200)] {
            assert!(steps_line(number, total, "x", columns).chars().count() <= columns);
        }
    }

    #[test]
    fn rate_is_that_of_the_last_seconds() {
        let mut rate = Rate::default();
        for second in 0..60u64 {
            rate.add(
                Duration::from_secs(second),
                if second < 30 { 0 } else { (second - 30) * 1000 },
            );
        }
        assert_eq!(rate.bytes_per_second() as u64, 1000);
        assert!(rate.samples.len() < 10);
    }
}
