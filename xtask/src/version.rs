//! Semantic versions and requirements on them, as cargo reads them.
//!
//! Owns their order and the operators `=`, `>`, `>=`, `<`, `<=`, `~`, `^` and `*`. One difference:
//! a pre-release is compared like any other version, since a bug does not spare it.

/// Major, minor and patch, and the words of a pre-release.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    numbers: [u64; 3],
    pre: Pre,
}

/// A release comes after its pre-releases.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pre {
    Before(Vec<Word>),
    Release,
}

/// Numbers come before names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Number(u64),
    Name(String),
}

impl Version {
    /// Reads `1.2.3-rc.1+build`; also gives how many of the three numbers are written.
    fn read(text: &str) -> Option<(Self, usize)> {
        let text = text.split('+').next()?.trim();
        let (numbers, pre) = match text.split_once('-') {
            Some((numbers, pre)) => (numbers, Some(pre)),
            None => (text, None),
        };
        let mut out = [0; 3];
        let mut written = 0;
        for part in numbers.split('.') {
            if part == "*" || part == "x" {
                break;
            }
            *out.get_mut(written)? = part.parse().ok()?;
            written += 1;
        }
        let word = |word: &str| match word.parse() {
            Ok(number) => Word::Number(number),
            Err(_) => Word::Name(word.to_owned()),
        };
        let pre = match pre {
            Some(pre) => Pre::Before(pre.split('.').map(word).collect()),
            None => Pre::Release,
        };
        Some((Self { numbers: out, pre }, written))
    }

    /// Reads a whole version.
    pub fn parse(text: &str) -> Option<Self> {
        let (version, written) = Self::read(text)?;
        (written == 3).then_some(version)
    }

    /// The first version whose number at `place` is greater.
    fn next(&self, place: usize) -> Self {
        let mut numbers = [0; 3];
        numbers[..=place].copy_from_slice(&self.numbers[..=place]);
        numbers[place] += 1;
        let pre = Pre::Release;
        Self { numbers, pre }
    }
}

/// Whether a version meets all parts of a requirement; `None` if it cannot be read.
pub fn meets(version: &Version, requirement: &str) -> Option<bool> {
    let mut met = true;
    for part in requirement.split(',') {
        met &= meets_one(version, part.trim())?;
    }
    Some(met)
}

fn meets_one(version: &Version, part: &str) -> Option<bool> {
    let operators = [">=", "<=", ">", "<", "=", "~", "^"];
    let found = operators
        .iter()
        .find(|operator| part.starts_with(**operator));
    let operator = found.copied().unwrap_or("^");
    let (bound, written) = Version::read(part.trim_start_matches(operator).trim())?;
    if written == 0 {
        return Some(true);
    }
    let next = bound.next(written - 1);
    Some(match operator {
        ">=" => *version >= bound,
        "<" => *version < bound,
        ">" if written == 3 => *version > bound,
        ">" => *version >= next,
        "<=" if written == 3 => *version <= bound,
        "<=" => *version < next,
        "=" if written == 3 => *version == bound,
        "=" => *version >= bound && *version < next,
        "~" => *version >= bound && *version < bound.next((written - 1).min(1)),
        _ => {
            let significant = bound.numbers[..written].iter().position(|n| *n > 0);
            *version >= bound && *version < bound.next(significant.unwrap_or(written - 1))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{Version, meets};

    #[test]
    fn requirements_are_met_as_cargo_says() {
        for (requirement, yes, no) in [
            (">= 1.2.3", ["1.2.3", "2.0.0"], ["1.2.2", "1.2.3-rc.1"]),
            ("> 1.2.3", ["1.2.4", "1.3.0"], ["1.2.3", "1.0.0"]),
            ("> 1.2", ["1.3.0", "2.0.0"], ["1.2.9", "1.2.0"]),
            ("<= 1.2", ["1.2.9", "0.1.0"], ["1.3.0", "2.0.0"]),
            ("< 1.2.3", ["1.2.2", "1.2.3-rc.1"], ["1.2.3", "1.10.0"]),
            ("^1.2", ["1.2.0", "1.10.0"], ["1.1.9", "2.0.0"]),
            ("^0.9.5", ["0.9.5", "0.9.9"], ["0.9.4", "0.10.0"]),
            ("^0.0.5", ["0.0.5", "0.0.5"], ["0.0.6", "0.0.4"]),
            ("1.2.3", ["1.2.3", "1.9.0"], ["2.0.0", "1.2.2"]),
            ("~1.2.3", ["1.2.3", "1.2.9"], ["1.3.0", "1.2.2"]),
            ("~1", ["1.0.0", "1.9.0"], ["2.0.0", "0.9.0"]),
            ("=1.2.3", ["1.2.3", "1.2.3+x"], ["1.2.4", "1.2.3-a"]),
            (">=0.7.3, <0.8", ["0.7.3", "0.7.9"], ["0.7.2", "0.8.0"]),
            (
                ">= 1.0.0-rc.2",
                ["1.0.0-rc.10", "1.0.0"],
                ["1.0.0-rc.1", "1.0.0-beta.9"],
            ),
        ] {
            let check = |text: &str| meets(&Version::parse(text).expect(text), requirement);
            yes.iter()
                .for_each(|v| assert_eq!(check(v), Some(true), "{v} {requirement}"));
            no.iter()
                .for_each(|v| assert_eq!(check(v), Some(false), "{v} {requirement}"));
        }
        let version = Version::parse("1.0.0").expect("a version");
        assert_eq!(meets(&version, "*"), Some(true));
        assert_eq!(meets(&version, "soon"), None);
        assert_eq!(Version::parse("1.0"), None);
    }
}
