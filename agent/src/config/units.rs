//! Durations and sizes as people write them: a whole number and one unit.

use std::time::Duration;

/// What a duration looks like.
pub(super) const DURATION: &str =
    "a duration: a whole number and s, m, h or d, such as \"90s\" or \"10m\"";
/// What a size looks like.
pub(super) const SIZE: &str = "a size: a whole number and B, KiB, MiB or GiB, such as \"64MiB\"";

/// Reads `90s`, `10m`, `24h`, `2d`. Zero is refused: a limit of no time is a mistake.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    let (number, unit) = split(text).ok_or("not a duration")?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err("not a duration: the unit is not s, m, h or d"),
    };
    match number.checked_mul(seconds) {
        None => Err("too long"),
        Some(0) => Err("no time at all"),
        Some(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

/// Reads `512B`, `64KiB`, `64MiB`, `2GiB` into bytes.
pub(super) fn size(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = split(text).ok_or("not a size")?;
    let bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("not a size: the unit is not B, KiB, MiB or GiB"),
    };
    number.checked_mul(bytes).ok_or("too large")
}

/// Digits, then letters; nothing between, before or after.
fn split(text: &str) -> Option<(u64, &str)> {
    let unit = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit);
    let plain = number == "0" || !number.starts_with('0');
    number.parse().ok().filter(|_| plain).map(|number| (number, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_what_an_operator_wrote() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("2d"), Ok(Duration::from_secs(172_800)));
    }

    #[test]
    fn an_ambiguous_duration_is_refused_rather_than_guessed() {
        for text in [
            "", "10", "m", "10 m", " 10m", "10m ", "1h30m", "1.5h", "-1m", "+1m", "010m", "10M",
            "0s", "10ms",
        ] {
            assert!(duration(text).is_err(), "{text:?} was taken for a duration");
        }
        assert_eq!(duration("213503982334602d"), Err("too long"));
    }

    #[test]
    fn sizes_are_bytes() {
        assert_eq!(size("512B"), Ok(512));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("2GiB"), Ok(2 << 30));
        for text in ["64MB", "64M", "64", "MiB", "1e3B", "18446744073709551615GiB"] {
            assert!(size(text).is_err(), "{text:?} was taken for a size");
        }
    }
}
