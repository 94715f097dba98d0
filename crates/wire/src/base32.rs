//! Base32 (RFC 4648, section 6) without padding, written in lower case, read in both.
//!
//! Owns the alphabet. The decoder works into a slice of the caller and never allocates.

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Why decoding stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base32Error {
    /// The character at this index is not in the alphabet.
    Character(usize),
    /// There are characters left that carry no whole byte, or set bits that no byte uses. This
    /// many bytes are in the output.
    Tail(usize),
    /// The output is full.
    TooLong,
}

/// Calls `push` with each character of the text of `bytes`.
pub(crate) fn encode(bytes: &[u8], mut push: impl FnMut(char)) {
    let (mut bits, mut count) = (0u32, 0u32);
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            push(char_of(bits >> count));
        }
    }
    if count > 0 {
        push(char_of(bits << (5 - count)));
    }
}

/// Decodes `characters` into the front of `out` and returns the number of bytes.
pub(crate) fn decode(
    characters: impl Iterator<Item = char>,
    out: &mut [u8],
) -> Result<usize, Base32Error> {
    let (mut bits, mut count, mut len, mut seen) = (0u32, 0u32, 0usize, 0usize);
    for (index, character) in characters.enumerate() {
        let value = value_of(character).ok_or(Base32Error::Character(index))?;
        bits = (bits << 5 | value) & 0xfff;
        count += 5;
        seen = index + 1;
        if count >= 8 {
            count -= 8;
            *out.get_mut(len).ok_or(Base32Error::TooLong)? = (bits >> count & 0xff) as u8;
            len += 1;
        }
    }
    let unused = bits & ((1 << count) - 1);
    let whole = matches!(seen % 8, 0 | 2 | 4 | 5 | 7);
    if unused != 0 || !whole {
        Err(Base32Error::Tail(len))
    } else {
        Ok(len)
    }
}

fn char_of(bits: u32) -> char {
    char::from(ALPHABET[(bits & 31) as usize])
}

fn value_of(character: char) -> Option<u32> {
    let lower = u32::from(character.to_ascii_lowercase());
    match character {
        'a'..='z' | 'A'..='Z' => Some(lower - u32::from('a')),
        '2'..='7' => Some(lower - u32::from('2') + 26),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    /// RFC 4648, section 10.
    #[test]
    fn published_vectors_without_padding() {
        let table = [
            ("", ""),
            ("f", "my"),
            ("fo", "mzxq"),
            ("foo", "mzxw6"),
            ("foob", "mzxw6yq"),
            ("fooba", "mzxw6ytb"),
            ("foobar", "mzxw6ytboi"),
        ];
        for (bytes, text) in table {
            let mut encoded = String::new();
            encode(bytes.as_bytes(), |c| encoded.push(c));
            assert_eq!(encoded, text);
            for text in [String::from(text), text.to_ascii_uppercase()] {
                let mut out = [0; 6];
                let len = decode(text.chars(), &mut out).expect("valid");
                assert_eq!(&out[..len], bytes.as_bytes());
            }
        }
    }

    #[test]
    fn bad_text_is_refused() {
        let mut out = [0; 5];
        assert_eq!(
            decode("a1".chars(), &mut out),
            Err(Base32Error::Character(1))
        );
        assert_eq!(
            decode("aé".chars(), &mut out),
            Err(Base32Error::Character(1))
        );
        assert_eq!(decode("a".chars(), &mut out), Err(Base32Error::Tail(0)));
        assert_eq!(decode("aaa".chars(), &mut out), Err(Base32Error::Tail(1)));
        assert_eq!(decode("mz".chars(), &mut out), Err(Base32Error::Tail(1)));
        assert_eq!(
            decode("aaaaaaaaaa".chars(), &mut out),
            Err(Base32Error::TooLong)
        );
    }
}
