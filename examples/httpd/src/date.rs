//! Dates as HTTP has them: RFC 9110, section 5.6.7.

use core::{fmt, time::Duration};

/// A time since 1970.
#[derive(Debug, Clone, Copy)]
pub struct HttpDate(pub Duration);

const SECONDS: u64 = 86_400;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// 1970 started with a Thursday.
const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

impl fmt::Display for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut day, second) = (self.0.as_secs() / SECONDS, self.0.as_secs() % SECONDS);
        let weekday = DAYS.into_iter().nth(usize::try_from(day % 7).unwrap_or(0)).unwrap_or("");
        let is_leap =
            |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
        let mut year = 1970;
        // In steps of 400 years first, so that a wrong clock costs nothing.
        year += day / 146_097 * 400;
        day %= 146_097;
        while day >= 365 + u64::from(is_leap(year)) {
            day -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let lengths = [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let mut month = "";
        for (name, length) in MONTHS.into_iter().zip(lengths) {
            month = name;
            if day < length {
                break;
            }
            day -= length;
        }
        let (hour, minute) = (second / 3600, second / 60 % 60);
        write!(f, "{weekday}, {:02} {month} {year:04} {hour:02}:{minute:02}:{:02} GMT", day + 1, second % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
        ] {
            assert_eq!(HttpDate(Duration::from_secs(seconds)).to_string(), text);
        }
        assert!(HttpDate(Duration::MAX).to_string().ends_with("GMT"));
    }
}
