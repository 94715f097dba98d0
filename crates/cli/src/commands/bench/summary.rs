//! What is made of the single times and lengths: percentiles, and the search for the largest
//! datagram.
//!
//! Never does I/O.

use std::time::Duration;

/// Times of round trips.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pings {
    /// Of those that ended.
    pub times: Vec<Duration>,
}

impl Pings {
    /// The time that `percent` of the round trips are not above (nearest rank).
    pub fn percentile(&self, percent: usize) -> Option<Duration> {
        let mut times = self.times.clone();
        let rank = (times.len() * percent).div_ceil(100).max(1);
        if rank > times.len() {
            return None;
        }
        let (_, time, _) = times.select_nth_unstable(rank - 1);
        Some(*time)
    }
}

/// Sizes of packets that many networks end at, bytes.
const LIKELY_MTUS: [usize; 8] = [1_280, 1_420, 1_480, 1_492, 1_500, 4_470, 9_000, 65_535];

/// The largest UDP payload over IPv4.
const PAYLOAD_MAX: usize = 65_507;

/// A search for the largest datagram that arrives.
#[derive(Clone, Debug)]
pub struct Search {
    /// The largest that arrived.
    arrived: usize,
    /// The smallest that did not, or one more than can be sent.
    missed: usize,
    likely: Vec<usize>,
}

impl Search {
    /// Inside a tunnel that says what it takes.
    pub fn tunnel(payload_max: usize) -> Self {
        Self {
            arrived: 0,
            missed: payload_max + 1,
            likely: vec![payload_max],
        }
    }

    /// On a network, below which so many bytes of headers are.
    pub fn network(header_bytes: usize) -> Self {
        let payload = |mtu: &usize| mtu - header_bytes;
        Self {
            arrived: 0,
            missed: PAYLOAD_MAX + 1,
            likely: LIKELY_MTUS.iter().map(payload).collect(),
        }
    }

    /// The length to try next, never below `least`; `None` when the search is over.
    pub fn next(&self, least: usize) -> Option<usize> {
        let open = self.arrived.max(least - 1) + 1..self.missed;
        if open.is_empty() {
            return None;
        }
        if self.likely.contains(&self.arrived) {
            return Some(open.start);
        }
        let mut inside = self.likely.iter().filter(|length| open.contains(*length));
        // Ethernet first: there the search ends with the second question.
        let ethernet = inside
            .clone()
            .find(|length| (1_400..=1_500).contains(*length));
        let guess = match (self.arrived, ethernet) {
            (0, Some(_)) => inside.rfind(|length| **length <= 1_500),
            (0, None) => inside.next_back(),
            _ => inside.next(),
        };
        Some(guess.copied().unwrap_or(open.start + open.len() / 2))
    }

    /// Notes whether one of this length arrived.
    pub fn note(&mut self, length: usize, arrived: bool) {
        if arrived {
            self.arrived = self.arrived.max(length);
        } else {
            self.missed = self.missed.min(length);
        }
    }

    /// The largest that arrived so far; 0 for none.
    pub fn arrived(&self) -> usize {
        self.arrived
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let of = |count: u64, percent| {
            let times = (1..=count).rev().map(Duration::from_millis).collect();
            let found = Pings { times }.percentile(percent);
            found.map(|time| time.as_millis())
        };
        assert_eq!(of(0, 50), None);
        assert_eq!(
            (of(1, 50), of(1, 99), of(1, 0)),
            (Some(1), Some(1), Some(1))
        );
        assert_eq!((of(2, 50), of(3, 50)), (Some(1), Some(2)));
        assert_eq!(
            (of(100, 99), of(101, 99), of(100, 100)),
            (Some(99), Some(100), Some(100))
        );
    }

    /// Questions until the search ends, and what it found.
    fn find(mut search: Search, largest: usize) -> (usize, usize) {
        let mut questions = 0;
        while let Some(length) = search.next(29) {
            search.note(length, length <= largest);
            questions += 1;
            assert!(questions < 40, "it goes on for ever");
        }
        (search.arrived(), questions)
    }

    #[test]
    fn search_finds_every_limit() {
        for largest in (29..3_000).chain([8_972, 30_000, 65_506, 65_507]) {
            let (found, questions) = find(Search::network(28), largest);
            assert_eq!(found, largest);
            assert!(questions <= 24, "{largest}: {questions} questions");
        }
        assert_eq!(find(Search::network(28), 99_999).0, PAYLOAD_MAX);
        assert_eq!(find(Search::network(28), 28).0, 0, "nothing arrives");
    }

    #[test]
    fn usual_limits_take_few_questions() {
        assert_eq!(find(Search::network(28), 1_472), (1_472, 2));
        assert_eq!(find(Search::network(48), 1_452), (1_452, 2));
        assert_eq!(find(Search::tunnel(1_372), 1_372), (1_372, 1));
        assert_eq!(find(Search::tunnel(1_372), 1_200).0, 1_200);
    }
}
