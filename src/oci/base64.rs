//! Base64 of inline blobs and of credentials (RFC 4648, section 4), strictly: one text for one value.

/// Decodes padded standard base64. `None` for any other text: white space, the URL-safe alphabet,
/// missing padding, or bits set behind the last byte (RFC 4648, section 3.5).
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let (groups, rest) = text.as_bytes().as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    let mut out = Vec::with_capacity(groups.len() * 3);
    for (n, group) in groups.iter().enumerate() {
        let last = n + 1 == groups.len();
        let digits = match group {
            [_, _, b'=', b'='] if last => 2,
            [_, _, _, b'='] if last => 3,
            _ => 4,
        };
        let mut bits: u32 = 0;
        for &c in group.iter().take(digits) {
            bits = bits << 6 | value(c)?;
        }
        bits <<= 6 * (4 - digits);
        let [_, bytes @ ..] = bits.to_be_bytes();
        let (kept, dropped) = bytes.split_at_checked(digits - 1)?;
        if dropped.iter().any(|&b| b != 0) {
            return None;
        }
        out.extend_from_slice(kept);
    }
    Some(out)
}

/// Encodes as padded standard base64.
pub(crate) fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let byte = |n: usize| u32::from(group.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            let digit = (bits >> (18 - 6 * n)) & 63;
            match n <= group.len() {
                true => out.extend(DIGITS.get(digit as usize).map(|digit| char::from(*digit))),
                false => out.push('='),
            }
        }
    }
    out
}

fn value(c: u8) -> Option<u32> {
    Some(u32::from(match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn the_vectors_of_the_rfc() {
        for (text, bytes) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
            ("e30=", "{}"),
        ] {
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()), "{text}");
            assert_eq!(encode(bytes.as_bytes()), text);
        }
        assert_eq!(
            decode("+/+/").as_deref(),
            Some([0xfb, 0xff, 0xbf].as_slice())
        );
        assert_eq!(encode(&[0xfb, 0xff, 0xbf]), "+/+/");
    }

    #[test]
    fn j7_other_spellings_of_base64_are_refused() {
        for text in [
            "Zg", "Zg=", "Zg===", "Zh==", "Zm9=", "Zg==Zg==", "Z===", "====", "Zm9v\n", "-_-_",
            " Zm9", "Zm=v",
        ] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }
}
