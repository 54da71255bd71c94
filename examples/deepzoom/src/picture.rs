//! Draws one tile.

use super::fractal::{Complex, Orbit};
use super::layout::{Area, Layout};
use super::palette::{self, Light};

/// Samples along each side of a pixel.
const SAMPLES: u32 = 2;

/// The pixels of `area`, three bytes each, and the steps that drawing took.
pub fn draw(orbit: &Orbit, view_width: f64, layout: &Layout, area: &Area) -> (Vec<u8>, u64) {
    let step = view_width / f64::from(layout.width * SAMPLES);
    let middle = (layout.width * SAMPLES, layout.height * SAMPLES);
    let middle = (f64::from(middle.0) * 0.5, f64::from(middle.1) * 0.5);
    let base = orbit.fewest_steps(view_width);
    let mut pixels = Vec::with_capacity((area.width * area.height * 3) as usize);
    let mut total = 0;
    for y in area.top..area.top + area.height {
        let offsets: Vec<Complex> = (area.left * SAMPLES..(area.left + area.width) * SAMPLES)
            .flat_map(|x| (y * SAMPLES..(y + 1) * SAMPLES).map(move |y| (x, y)))
            .map(|(x, y)| (f64::from(x) + 0.5 - middle.0, f64::from(y) + 0.5 - middle.1))
            .map(|(across, down)| (across * step, -down * step))
            .collect();
        let mut row: Vec<Light> = vec![[0.0; 3]; offsets.len()];
        total += orbit.follow(&offsets, |sample, fate| {
            row[sample] = palette::light(fate, base)
        });
        for samples in row.chunks((SAMPLES * SAMPLES) as usize) {
            let share = 1.0 / samples.len() as f64;
            let whole: Light = std::array::from_fn(|i| samples.iter().map(|one| one[i]).sum());
            pixels.extend(whole.map(|part| palette::screen(part * share)));
        }
    }
    (pixels, total)
}
