//! Sizes as people write and read them: in units of 1024, everywhere.

/// Parses a number of bytes: `1048576`, `1024K`, `64Mi`, `1MiB`, `2G`. Units are powers of 1024,
/// however they are written; case and a space in front of them do not matter.
///
/// # Errors
/// Says what a size looks like. `MB` and its like, which may mean either, are refused.
///
/// ```
/// use modeloci::byte_size::parse_size;
///
/// assert_eq!(parse_size("64Mi"), Ok(64 << 20));
/// assert_eq!(parse_size("64M"), parse_size("64MiB"));
/// ```
pub fn parse_size(text: &str) -> Result<u64, &'static str> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = match number.parse() {
        Ok(number) => number,
        Err(_) if number.is_empty() => return Err("not a size such as 256MiB, 1G or 65536"),
        Err(_) => return Err("larger than 2^64 bytes"),
    };
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "ki" | "kib" => 10,
        "m" | "mi" | "mib" => 20,
        "g" | "gi" | "gib" => 30,
        "t" | "ti" | "tib" => 40,
        _ => return Err("its unit is none of K, M, G, T, Ki, Mi, Gi, Ti, KiB, MiB, GiB, TiB"),
    };
    number
        .checked_mul(1 << shift)
        .ok_or("larger than 2^64 bytes")
}

/// A number of bytes with three significant digits, in the units that [`parse_size`] takes: `3.01 MiB`.
///
/// ```
/// use modeloci::byte_size::format_size;
///
/// assert_eq!(format_size(64 << 20), "64.0 MiB");
/// ```
pub fn format_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "";
    for next in UNITS {
        value /= 1024.0;
        unit = next;
        // 1023.5 would round to 1024.
        if value < 1023.5 {
            break;
        }
    }
    match value {
        v if v < 9.995 => format!("{v:.2} {unit}"),
        v if v < 99.95 => format!("{v:.1} {unit}"),
        v => format!("{v:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_and_one_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (12_345, "12.1 KiB"),
            ((1024 << 10) - 513, "1023 KiB"),
            ((1024 << 10) - 512, "1.00 MiB"),
            (123_456_789, "118 MiB"),
            (1 << 30, "1.00 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(format_size(bytes), text);
        }
    }

    #[test]
    fn units_are_the_same_however_they_are_written() {
        for (unit, shift) in [("K", 10), ("M", 20), ("G", 30), ("T", 40)] {
            for suffix in ["", "i", "iB"] {
                let text = format!("3{unit}{suffix}");
                assert_eq!(parse_size(&text), Ok(3 << shift), "{text}");
                let spaced = format!("3 {}{suffix}", unit.to_lowercase());
                assert_eq!(parse_size(&spaced), Ok(3 << shift), "{spaced}");
            }
        }
        assert_eq!(parse_size("65536"), Ok(65536));
        assert_eq!(parse_size("65536B"), Ok(65536));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        let unit = "its unit is none of K, M, G, T, Ki, Mi, Gi, Ti, KiB, MiB, GiB, TiB";
        let size = "not a size such as 256MiB, 1G or 65536";
        let large = "larger than 2^64 bytes";
        for (text, why) in [
            ("", size),
            ("MiB", size),
            ("-1", size),
            ("+1", size),
            ("1.5M", unit),
            ("1MB", unit),
            ("1MiBs", unit),
            ("1MM", unit),
            ("99999999999G", large),
            ("99999999999999999999", large),
        ] {
            assert_eq!(parse_size(text), Err(why), "{text}");
        }
    }
}
