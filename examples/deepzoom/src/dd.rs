//! Numbers of twice a double's precision (about 31 digits), as the sum of two doubles: enough for
//! the one orbit that a deep zoom needs exactly.

use std::ops::{Add, Mul, Sub};

/// The unevaluated sum `high + low`, with `low` below half a unit in the last place of `high`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dd {
    high: f64,
    low: f64,
}

impl Dd {
    /// The number zero.
    pub const ZERO: Dd = Dd {
        high: 0.0,
        low: 0.0,
    };

    /// The nearest double.
    pub fn round(self) -> f64 {
        self.high
    }

    /// Reads a plain decimal number such as `-0.7436438870371587`.
    ///
    /// # Errors
    /// Anything but an optional sign, digits and at most one point is refused.
    pub fn parse(text: &str) -> Result<Dd, String> {
        let bad = || format!("`{text}` is not a plain decimal number such as -0.7436");
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && fraction.is_empty() {
            return Err(bad());
        }
        let ten = Dd::from(10.0);
        let mut value = Dd::ZERO;
        for digit in whole.chars().chain(fraction.chars()) {
            let digit = digit.to_digit(10).ok_or_else(bad)?;
            value = value * ten + Dd::from(f64::from(digit));
        }
        for _ in fraction.chars() {
            value = value.tenth();
        }
        Ok(if negative { Dd::ZERO - value } else { value })
    }

    /// A tenth: the quotient of the high part, corrected by that of what remains.
    fn tenth(self) -> Dd {
        let high = self.high / 10.0;
        let rest = self - Dd::from(10.0) * Dd::from(high);
        two_sum(high, rest.high / 10.0)
    }
}

impl From<f64> for Dd {
    fn from(high: f64) -> Dd {
        Dd { high, low: 0.0 }
    }
}

impl Add for Dd {
    type Output = Dd;
    fn add(self, other: Dd) -> Dd {
        let sum = two_sum(self.high, other.high);
        quick_two_sum(sum.high, sum.low + self.low + other.low)
    }
}

impl Sub for Dd {
    type Output = Dd;
    fn sub(self, other: Dd) -> Dd {
        self + Dd {
            high: -other.high,
            low: -other.low,
        }
    }
}

impl Mul for Dd {
    type Output = Dd;
    fn mul(self, other: Dd) -> Dd {
        let product = two_product(self.high, other.high);
        let cross = self.high * other.low + self.low * other.high;
        quick_two_sum(product.high, product.low + cross)
    }
}

/// The exact sum of two doubles (Knuth).
fn two_sum(a: f64, b: f64) -> Dd {
    let high = a + b;
    let part = high - a;
    Dd {
        high,
        low: (a - (high - part)) + (b - part),
    }
}

/// The exact sum where `|a| >= |b|` (Dekker).
fn quick_two_sum(a: f64, b: f64) -> Dd {
    let high = a + b;
    Dd {
        high,
        low: b - (high - a),
    }
}

/// The exact product (Dekker): without a fused multiply-add, so that every machine gives the same bits.
fn two_product(a: f64, b: f64) -> Dd {
    let high = a * b;
    let (a_high, a_low) = split(a);
    let (b_high, b_low) = split(b);
    let low = ((a_high * b_high - high) + a_high * b_low + a_low * b_high) + a_low * b_low;
    Dd { high, low }
}

/// A double as two halves of 26 bits each.
fn split(a: f64) -> (f64, f64) {
    let wide = 134_217_729.0 * a;
    let high = wide - (wide - a);
    (high, a - high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_more_digits_than_a_double() {
        let near = Dd::parse("0.12345678901234567890123").expect("a number");
        let far = Dd::parse("0.12345678901234567890124").expect("a number");
        let apart = (far - near).round();
        assert!((apart - 1e-23).abs() < 1e-28, "{apart:e}");
        assert_eq!(Dd::parse("-2.5").expect("a number").round(), -2.5);
    }

    #[test]
    fn what_is_not_a_number_is_refused() {
        for bad in ["", "-", ".", "1e5", "1.2.3", "0x1", "--1"] {
            assert!(Dd::parse(bad).is_err(), "{bad}");
        }
    }
}
