//! From a sample's fate to light.

use super::fractal::{Fate, log2};

/// Light of one sample or of a sum of samples: red, green and blue, each 0 to 1, linear.
pub type Light = [f64; 3];

/// The colours in their order, as they appear on a screen; the last leads back to the first.
const STOPS: [[u8; 3]; 8] = [
    [6, 10, 38],
    [18, 58, 128],
    [62, 150, 196],
    [226, 240, 226],
    [250, 206, 96],
    [226, 110, 34],
    [124, 26, 52],
    [38, 8, 58],
];

/// How many times the colours go round for each doubling of the steps above `base`.
const ROUNDS: f64 = 0.62;

/// Where the lamp hangs: a unit vector in the plane, and its height.
const LAMP: ([f64; 2], f64) = ([-0.6, 0.8], 1.35);

/// The light that a sample sends; `base` is about the fewest steps of any sample in the picture.
pub fn light(fate: Fate, base: f64) -> Light {
    let Fate::Escaped { steps, slope } = fate else {
        return [0.0012, 0.0012, 0.0045];
    };
    let turn = ROUNDS * log2((steps - base).max(0.0) / base * 8.0 + 1.0);
    let lit = (slope.0 * LAMP.0[0] + slope.1 * LAMP.0[1] + LAMP.1) / (1.0 + LAMP.1);
    let lit = 0.22 + 0.88 * lit.max(0.0);
    colour(turn).map(|part| (part * lit).min(1.0))
}

/// The screen's value of an amount of light. A plain square root stands in for the screen's
/// curve: it is exact on every machine.
pub fn screen(light: f64) -> u8 {
    (light.clamp(0.0, 1.0).sqrt() * 255.0 + 0.5) as u8
}

/// The colour at a place on the wheel, 1.0 being once round.
fn colour(turn: f64) -> Light {
    let place = (turn - turn.floor()) * STOPS.len() as f64;
    let index = place as usize % STOPS.len();
    let part = place - place.floor();
    // A smooth start and stop at each colour, so that no edge shows where two segments meet.
    let part = part * part * (3.0 - 2.0 * part);
    let (from, to) = (STOPS[index], STOPS[(index + 1) % STOPS.len()]);
    std::array::from_fn(|i| {
        let mixed = f64::from(from[i]) * (1.0 - part) + f64::from(to[i]) * part;
        (mixed / 255.0) * (mixed / 255.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wheel_closes_without_a_seam() {
        for turn in 0..16 {
            let at = f64::from(turn) / 8.0;
            let (before, after) = (colour(at - 1e-9), colour(at + 1e-9));
            for i in 0..3 {
                assert!((before[i] - after[i]).abs() < 1e-6, "a step at {at}");
            }
        }
    }

    #[test]
    fn light_fits_the_screen() {
        assert_eq!(
            (screen(0.0), screen(1.0), screen(7.0), screen(-1.0)),
            (0, 255, 255, 0)
        );
        let lit = light(
            Fate::Escaped {
                steps: 5.0,
                slope: (0.0, 0.0),
            },
            10.0,
        );
        assert!(lit.iter().all(|part| (0.0..=1.0).contains(part)), "{lit:?}");
    }
}
