//! Where nodes are in the world, and how long a packet takes between them.
//!
//! Owns the table of latencies (`world.txt`, with its source and licence) and the places of the
//! nodes. Never knows of links or protocols.

use crate::random::Random;
use crate::time::{MS, Nanos};

/// The published table.
const TABLE: &str = include_str!("../world.txt");

/// The round trip between two places of one region, which the source does not give.
const WITHIN_REGION_MS: f64 = 2.0;

/// The least and the most that a node's own access adds to each of its packets, one way.
const ACCESS_MS: (f64, f64) = (1.0, 5.0);

/// Nodes spread evenly over the regions.
pub struct World {
    one_way: Vec<Vec<Nanos>>,
    region_of: Vec<usize>,
    access: Vec<Nanos>,
}

impl World {
    /// Places `nodes` nodes; which is where follows from the seed.
    pub fn new(nodes: usize, random: &mut Random) -> Self {
        let one_way = table();
        let mut region_of: Vec<usize> = (0..nodes).map(|node| node % one_way.len()).collect();
        random.shuffle(&mut region_of);
        let span = ACCESS_MS.1 - ACCESS_MS.0;
        let access = (0..nodes)
            .map(|_| ((ACCESS_MS.0 + span * random.unit()) * MS as f64) as Nanos)
            .collect();
        Self {
            one_way,
            region_of,
            access,
        }
    }

    /// How long a packet is under way, without queues.
    pub fn latency(&self, from: usize, to: usize) -> Nanos {
        let regions = (self.region_of[from], self.region_of[to]);
        self.one_way[regions.0][regions.1] + self.access[from] + self.access[to]
    }

    /// There and back.
    pub fn round_trip(&self, from: usize, to: usize) -> Nanos {
        self.latency(from, to) + self.latency(to, from)
    }
}

/// One way, from the region of the row to the region of the column.
fn table() -> Vec<Vec<Nanos>> {
    let rows = TABLE.lines().filter(|line| !line.starts_with('#'));
    rows.map(|line| line.split_whitespace().skip(1).map(one_way).collect())
        .collect()
}

fn one_way(round_trip: &str) -> Nanos {
    let milliseconds = match round_trip {
        "-" => WITHIN_REGION_MS,
        number => number.parse().expect("a number of milliseconds"),
    };
    (milliseconds / 2.0 * MS as f64) as Nanos
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_square_and_nearly_symmetric() {
        let one_way = table();
        assert_eq!(one_way.len(), 24);
        for (from, row) in one_way.iter().enumerate() {
            assert_eq!(row.len(), one_way.len());
            for (to, there) in row.iter().enumerate() {
                assert!(there.abs_diff(one_way[to][from]) <= 26 * MS);
                assert!(from == to || *there > 3 * MS);
            }
        }
    }
}
