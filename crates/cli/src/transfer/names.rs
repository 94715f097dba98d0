//! Which names a sender may use.
//!
//! Owns the rule that keeps everything of a transfer inside the target folder and out of the
//! user's terminal. The sender applies it too, so that it warns before the receiver refuses.

/// Ending of files that hold a part of a transfer.
pub const PART_SUFFIX: &str = ".wiremesh-part";

/// Ending of files that say how much of a part is safe.
pub const STATE_SUFFIX: &str = ".wiremesh-state";

/// Ending of a state file that is being written.
pub const STATE_NEW_SUFFIX: &str = ".wiremesh-state-new";

/// Longest path in bytes.
pub const PATH_MAX_BYTES: usize = 4096;

/// Longest single name in bytes, as on every common file system.
pub const NAME_MAX_BYTES: usize = 255;

/// Checks one name, without separators.
///
/// # Errors
///
/// What is wrong, as the end of a sentence: "the name ...".
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("has an empty part");
    }
    if name == "." || name == ".." {
        return Err("could leave the target folder");
    }
    if name.contains(['/', '\\']) {
        return Err("contains a path separator");
    }
    if name.chars().any(char::is_control) {
        return Err("contains a control character");
    }
    if name.len() > NAME_MAX_BYTES {
        return Err("is longer than 255 bytes");
    }
    if [PART_SUFFIX, STATE_SUFFIX, STATE_NEW_SUFFIX]
        .iter()
        .any(|end| name.ends_with(end))
    {
        return Err("is reserved for unfinished transfers");
    }
    Ok(())
}

/// Checks a relative path with `/` between its names.
///
/// # Errors
///
/// What is wrong, as the end of a sentence: "the path ...".
pub fn check_path(path: &str) -> Result<(), &'static str> {
    if path.len() > PATH_MAX_BYTES {
        return Err("is longer than 4096 bytes");
    }
    if path.starts_with('/') {
        return Err("is absolute");
    }
    path.split('/').try_for_each(check_name)
}

/// The path of the folder that holds `path`; `None` at the top.
pub fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(parent, _)| parent)
}

/// Replaces what could act on a terminal, and cuts what is very long.
pub fn printable(name: &str) -> String {
    let mut shown: String = name
        .chars()
        .take(200)
        .collect::<String>()
        .escape_debug()
        .to_string();
    shown.insert(0, '"');
    shown.push('"');
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        for path in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../b",
            "a/..",
            ".",
            "a/./b",
            "a//b",
            "a/",
            "a\\b",
            "..\\x",
            "a\0b",
            "a\nb",
            "a/\u{1b}[2J",
            "x.wiremesh-part",
            "a/.x.wiremesh-state",
        ] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
        assert!(check_path(&"n".repeat(256)).is_err());
        assert!(check_path(&"n/".repeat(3000)).is_err());
    }

    #[test]
    fn ordinary_paths_are_accepted() {
        for path in [
            "a",
            "a/b/c",
            ".hidden",
            "..a",
            "a..",
            "a b",
            "naïve/日本",
            "c:x",
            "~",
        ] {
            assert_eq!(check_path(path), Ok(()), "{path:?}");
        }
        assert_eq!(check_path(&"n".repeat(255)), Ok(()));
    }

    #[test]
    fn printable_never_has_control_characters() {
        assert!(!printable("a\u{1b}[31m\n").chars().any(char::is_control));
    }

    proptest! {
        #[test]
        fn accepted_path_stays_inside(path in "[a-z./\\\\]{0,12}") {
            if check_path(&path).is_ok() {
                let joined = std::path::Path::new("/base").join(&path);
                prop_assert!(joined.starts_with("/base"));
                let climbs = joined.components().any(|c| c == std::path::Component::ParentDir);
                prop_assert!(!climbs);
            }
        }
    }
}
