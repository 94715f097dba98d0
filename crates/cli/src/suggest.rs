//! "Did you mean ...?" for misspelt words.
//!
//! Owns the edit distance and the limit up to which a suggestion helps more than it confuses.

/// The word of `known` that was most likely meant, if one is close. Case does not count.
pub fn closest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), *candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A remedy for an unknown word: the close one, or all of them.
pub fn remedy(word: &str, known: &[&str]) -> String {
    match closest(word, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// Insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let width = b.len() + 1;
    let mut rows: Vec<Vec<usize>> = vec![vec![0; width]; a.len() + 1];
    rows[0] = (0..width).collect();
    for i in 1..=a.len() {
        rows[i][0] = i;
        for j in 1..width {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j - 1] + change)
                .min(rows[i - 1][j] + 1)
                .min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_words_are_found_and_far_ones_are_not() {
        let known = ["listen", "network", "allowed-ips", "mtu"];
        assert_eq!(closest("lissen", &known), Some("listen"));
        assert_eq!(closest("Lsiten", &known), Some("listen"));
        assert_eq!(closest("allowedips", &known), Some("allowed-ips"));
        assert_eq!(closest("allowed_ips", &known), Some("allowed-ips"));
        assert_eq!(closest("mut", &known), Some("mtu"));
        assert_eq!(closest("banana", &known), None);
        assert_eq!(closest("", &known), None);
        assert!(remedy("banana", &known).contains("known here: listen"));
    }

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "ab", 2),
            ("ab", "ba", 1),
            ("kitten", "sitting", 3),
            ("a", "a", 0),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
