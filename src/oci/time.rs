//! Times as annotations state them.
//!
//! Source: RFC 3339, section 5.6; the OCI image specification asks for it.

use std::time::Duration;

const DAY: u64 = 86_400;

/// The time that a text states, since the epoch, which stands for all times before it; `None` when it is
/// no time of RFC 3339. What is finer than nanoseconds is left out.
pub fn parse(text: &str) -> Option<Duration> {
    let (date, rest) = text.split_at_checked(10)?;
    let (clock, rest) = rest.strip_prefix(['T', 't', ' '])?.split_at_checked(8)?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    // Second 60 is a leap second.
    if !(1..=12).contains(&month) || day == 0 || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    if day > days_of(year, month) {
        return None;
    }
    let (nanoseconds, zone) = match rest.strip_prefix('.') {
        Some(fraction) => {
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            let (digits, zone) = fraction.split_at_checked(digits)?;
            let shown = format!("{digits:0<9}");
            (
                shown
                    .get(..9)
                    .filter(|_| !digits.is_empty())?
                    .parse()
                    .ok()?,
                zone,
            )
        }
        None => (0, rest),
    };
    let east = match zone {
        "Z" | "z" => 0,
        zone => {
            let sign = match zone.get(..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            let [hours, minutes] = numbers(zone.get(1..)?, ':', [2, 2])?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            sign * (hours * 3600 + minutes * 60) as i64
        }
    };
    let days = days_before(year, month).checked_add_signed(day as i64 - 1)?;
    let epoch = days_before(1970, 1);
    let seconds = (days as i64 - epoch as i64) * DAY as i64;
    let seconds = seconds + (hour * 3600 + minute * 60 + second) as i64 - east;
    let since = u64::try_from(seconds).map(|seconds| Duration::new(seconds, nanoseconds));
    Some(since.unwrap_or_default())
}

/// Writes a time, given in seconds since the epoch and before the year 10000.
pub fn format(seconds: u64) -> String {
    let (mut days, clock) = (seconds / DAY, seconds % DAY);
    let mut year = 1970;
    while days >= days_of_year(year) {
        days -= days_of_year(year);
        year += 1;
    }
    let mut month = 1;
    while days >= days_of(year, month) {
        days -= days_of(year, month);
        month += 1;
    }
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    let day = days + 1;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Numbers of so many digits each, with `separator` between them.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[u64; N]> {
    let mut parts = text.split(separator);
    let mut found = [0; N];
    for (number, digits) in found.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_year(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

fn days_of(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from the first of the year 0 to that of a month.
fn days_before(year: u64, month: u64) -> u64 {
    let (past, leaps) = match year.checked_sub(1) {
        // The year 0 was one, and none of the ends of centuries but each fourth.
        Some(last) => (year * 365, 1 + last / 4 - last / 100 + last / 400),
        None => (0, 0),
    };
    past + leaps + (1..month).map(|month| days_of(year, month)).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_rfc_has_them() {
        for (text, seconds, nanoseconds) in [
            ("1970-01-01T00:00:01Z", 1, 0),
            ("2023-11-14T22:13:20Z", 1_700_000_000, 0),
            ("2023-11-14t22:13:20z", 1_700_000_000, 0),
            ("2023-11-14 22:13:20Z", 1_700_000_000, 0),
            ("2023-11-15T00:13:20+02:00", 1_700_000_000, 0),
            ("2023-11-14T16:43:20-05:30", 1_700_000_000, 0),
            ("2023-11-14T22:13:20.5Z", 1_700_000_000, 500_000_000),
            (
                "2023-11-14T22:13:20.1234567899+00:00",
                1_700_000_000,
                123_456_789,
            ),
            ("1970-01-01T00:00:00.000000001Z", 0, 1),
            ("1969-12-31T23:00:01-01:00", 1, 0),
            ("2000-02-29T00:00:00Z", 951_782_400, 0),
            ("2024-02-29T12:00:00Z", 1_709_208_000, 0),
            ("2016-12-31T23:59:60Z", 1_483_228_800, 0),
            ("9999-12-31T23:59:59Z", 253_402_300_799, 0),
            // Not after the epoch.
            ("1970-01-01T00:00:00Z", 0, 0),
            ("1970-01-01T00:30:00+01:00", 0, 0),
            ("1969-12-31T23:59:59.9Z", 0, 0),
            ("0001-01-01T00:00:00Z", 0, 0),
            ("0000-01-01T00:00:00+23:59", 0, 0),
        ] {
            let expected = Duration::new(seconds, nanoseconds);
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn j9_what_is_no_time_is_none() {
        for text in [
            "",
            "now",
            "1700000000",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13Z",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20,5Z",
            "2023-11-14T22:13:20Z ",
            " 2023-11-14T22:13:20Z",
            "2023-11-14T22:13:20+0200",
            "2023-11-14T22:13:20+24:00",
            "2023-11-14T22:13:20+-1:00",
            "2023-13-14T22:13:20Z",
            "2023-00-14T22:13:20Z",
            "2023-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2023-04-31T00:00:00Z",
            "2023-11-00T22:13:20Z",
            "2023-11-14T24:00:00Z",
            "2023-11-14T22:60:00Z",
            "2023-11-14T22:13:61Z",
            "+023-11-14T22:13:20Z",
            "2023-11-14T22:13:\u{662}0Z",
            "2023-11-1\u{e9}T22:13:20Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(format(0), "1970-01-01T00:00:00Z");
        assert_eq!(format(1_700_000_000), "2023-11-14T22:13:20Z");
        for seconds in (1..0o777_7777_7777).step_by(86_399 * 37) {
            let text = format(seconds);
            assert_eq!(parse(&text), Some(Duration::from_secs(seconds)), "{text}");
        }
    }
}
