//! Dates, in the three forms that images have.

/// A time: seconds since 1970-01-01 00:00:00 UTC, and nanoseconds on top.
///
/// Images hold whole seconds, or hundredths in the long form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// What is beyond them, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// A whole second.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanoseconds: 0 }
    }
}

/// Date and time in UTC, such as `2024-02-29 12:00:00`.
impl core::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let digits = to_long(*self);
        for (at, &digit) in digits[..14].iter().enumerate() {
            match at {
                4 | 6 => f.write_str("-")?,
                8 => f.write_str(" ")?,
                10 | 12 => f.write_str(":")?,
                _ => {}
            }
            core::fmt::Write::write_char(f, char::from(digit))?;
        }
        Ok(())
    }
}

/// 1900-01-01 00:00:00 and 2156-01-01 00:00:00: what seven bytes can express lies between (ECMA-119, 9.1.5).
pub const SHORT_RANGE: core::ops::Range<i64> = -2_208_988_800..5_869_584_000;
/// 0001-01-01 00:00:00 and 10000-01-01 00:00:00: what 17 bytes can express lies between (ECMA-119, 8.4.26.1).
pub const LONG_RANGE: core::ops::Range<i64> = -62_135_596_800..253_402_300_800;

const DAY: i64 = 86_400;

/// A point in time by the calendar, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Civil {
    year: i64,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar. The year is one of four digits.
fn days_from_civil(year: i64, month: u8, day: u8) -> i64 {
    // Years that begin in March have the leap day at their end.
    let (year, month) =
        if month <= 2 { (year - 1, i64::from(month) + 9) } else { (year, i64::from(month) - 3) };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The calendar's date of a time within [`LONG_RANGE`].
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "months, days and hours are small"
)]
fn civil(seconds: i64) -> Civil {
    let days = seconds.div_euclid(DAY) + 719_468;
    let rest = seconds.rem_euclid(DAY);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    Civil {
        year,
        month: month as u8,
        day: day as u8,
        hour: (rest / 3600) as u8,
        minute: (rest / 60 % 60) as u8,
        second: (rest % 60) as u8,
    }
}

/// The date and time of directory records (9.1.5) and of RRIP's `TF` in its short form, in UTC.
///
/// Times outside of [`SHORT_RANGE`] become the nearest that can be expressed.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the year is 1900 to 2155")]
pub fn to_short(time: Timestamp) -> [u8; 7] {
    let seconds = time.seconds.clamp(SHORT_RANGE.start, SHORT_RANGE.end - 1);
    let Civil { year, month, day, hour, minute, second } = civil(seconds);
    [(year - 1900) as u8, month, day, hour, minute, second, 0]
}

/// The date and time of volume descriptors (8.4.26.1) and of RRIP's `TF` in its long form, in UTC.
///
/// Times outside of [`LONG_RANGE`] become the nearest that can be expressed.
#[must_use]
pub fn to_long(time: Timestamp) -> [u8; 17] {
    let seconds = time.seconds.clamp(LONG_RANGE.start, LONG_RANGE.end - 1);
    let hundredths = if seconds == time.seconds { time.nanoseconds / 10_000_000 } else { 0 };
    let Civil { year, month, day, hour, minute, second } = civil(seconds);
    let mut text = [0; 17];
    let fields = [
        (0, 4, year),
        (4, 2, month.into()),
        (6, 2, day.into()),
        (8, 2, hour.into()),
        (10, 2, minute.into()),
        (12, 2, second.into()),
        (14, 2, i64::from(hundredths.min(99))),
    ];
    for (at, width, mut value) in fields {
        for digit in text[at..at + width].iter_mut().rev() {
            *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
            value /= 10;
        }
    }
    text
}

/// The long form of "not specified" (8.4.26.1).
pub const LONG_UNSPECIFIED: [u8; 17] = *b"0000000000000000\0";

fn checked(civil: Civil, quarters: u8) -> Option<i64> {
    const DAYS: [u8; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let Civil { year, month, day, hour, minute, second } = civil;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = DAYS.get(usize::from(month).checked_sub(1)?)? + u8::from(leap && month == 2);
    // Seconds of 60 are not recorded by anybody, but are no reason to refuse an image.
    if day == 0 || day > days || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Quarters of an hour from Greenwich, -48 to 52; some writers record nonsense there (9.1.5).
    let zone = i64::from(i8::from_ne_bytes([quarters]));
    let zone = if (-48..=52).contains(&zone) { zone } else { 0 };
    let time = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    Some(days_from_civil(year, month, day) * DAY + time - zone * 900)
}

/// Reads the form of seven bytes. Nothing if they are no date; all zero means that none was recorded.
#[must_use]
pub fn from_short(bytes: [u8; 7]) -> Option<Timestamp> {
    let [year, month, day, hour, minute, second, zone] = bytes;
    let civil = Civil { year: i64::from(year) + 1900, month, day, hour, minute, second };
    checked(civil, zone).map(Timestamp::from_seconds)
}

/// Reads the form of 17 bytes. Nothing if they are no date; all zero means that none was recorded.
#[must_use]
pub fn from_long(bytes: &[u8; 17]) -> Option<Timestamp> {
    let number = |at: usize, width: usize| {
        bytes[at..at + width].iter().try_fold(0_u16, |value, digit| {
            digit.is_ascii_digit().then(|| value * 10 + u16::from(digit - b'0'))
        })
    };
    let small = |at| number(at, 2).and_then(|value| u8::try_from(value).ok());
    let civil = Civil {
        year: number(0, 4)?.into(),
        month: small(4)?,
        day: small(6)?,
        hour: small(8)?,
        minute: small(10)?,
        second: small(12)?,
    };
    let seconds = checked(civil, bytes[16])?;
    Some(Timestamp { seconds, nanoseconds: u32::from(small(14)?) * 10_000_000 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        for (seconds, text) in [
            (0, b"1970010100000000\0"),
            (951_782_400, b"2000022900000000\0"),
            (-1, b"1969123123595900\0"),
            (4_107_542_399, b"2100022823595900\0"),
            (LONG_RANGE.start, b"0001010100000000\0"),
            (LONG_RANGE.end - 1, b"9999123123595900\0"),
        ] {
            assert_eq!(&to_long(Timestamp::from_seconds(seconds)), text);
        }
        assert_eq!(to_short(Timestamp::from_seconds(SHORT_RANGE.start)), [0, 1, 1, 0, 0, 0, 0]);
        assert_eq!(to_short(Timestamp::from_seconds(SHORT_RANGE.end)), [255, 12, 31, 23, 59, 59, 0]);
    }

    #[test]
    fn every_day_comes_back_in_both_forms() {
        for day in -25_567..67_935 {
            let time = Timestamp::from_seconds(day * DAY + 86_399 * (day & 1));
            assert_eq!(from_short(to_short(time)), Some(time));
            assert_eq!(from_long(&to_long(time)), Some(time));
        }
    }

    #[test]
    fn zones_count_quarters_of_an_hour_to_the_east() {
        assert_eq!(from_short([70, 1, 1, 1, 0, 0, 4]), Some(Timestamp::from_seconds(0)));
        assert_eq!(from_short([70, 1, 1, 0, 0, 0, 0xfc]), Some(Timestamp::from_seconds(3600)));
        assert_eq!(from_short([70, 1, 1, 0, 0, 0, 100]), Some(Timestamp::from_seconds(0)));
    }

    #[test]
    fn what_is_no_date_is_nothing() {
        assert_eq!(from_short([0; 7]), None);
        assert_eq!(from_short([99, 2, 29, 0, 0, 0, 0]), None);
        assert_eq!(from_short([70, 13, 1, 0, 0, 0, 0]), None);
        assert_eq!(from_long(&LONG_UNSPECIFIED), None);
        assert_eq!(from_long(b"20x0010100000000\0"), None);
    }
}
