//! The Mandelbrot set far below a double's resolution: one orbit is computed exactly, and every
//! sample follows it as a small difference, which a double holds well.

use super::dd::Dd;

/// A sample has left for infinity when it is this far out, squared. Far more than the 4 that
/// would do: the smooth count and the slope get their accuracy from it.
const ESCAPE_SQUARED: f64 = 1.0e8;

/// The part of the plane that the picture shows.
#[derive(Clone, Debug)]
pub struct View {
    /// The centre, as decimals of up to 31 digits: real and imaginary part.
    pub centre: (Dd, Dd),
    /// How much of the real axis the picture's width spans.
    pub width: f64,
    /// A sample that has not left after so many steps counts as inside.
    pub steps_max: u32,
}

/// What became of one sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// It never left, as far as was looked.
    Inside,
    /// It left.
    Escaped {
        /// After how many steps, with a fraction so that neighbours differ smoothly.
        steps: f64,
        /// The direction in which the surroundings rise: a unit vector.
        slope: Complex,
    },
}

/// The exact orbit of a view's centre, rounded to doubles once it is computed.
#[derive(Debug)]
pub struct Orbit {
    points: Vec<Complex>,
    steps_max: u32,
    head: Head,
}

/// Real and imaginary part.
pub type Complex = (f64, f64);

/// Samples that are followed side by side: one alone leaves most of a processor waiting for its
/// own last result.
const LANES: usize = 4;

/// Samples on their way, each in a lane of its own.
#[derive(Default)]
struct Lanes {
    sample: [Option<usize>; LANES],
    /// Where on the orbit each follows it.
    at: [usize; LANES],
    steps: [u32; LANES],
    offset_re: [f64; LANES],
    offset_im: [f64; LANES],
    d_re: [f64; LANES],
    d_im: [f64; LANES],
    z_re: [f64; LANES],
    z_im: [f64; LANES],
    slope_re: [f64; LANES],
    slope_im: [f64; LANES],
}

/// The steps that all samples of a view have in common, as one polynomial in the offset: at depth
/// they are most of the work, and without them the costs of tiles differ as the picture does.
#[derive(Clone, Copy, Debug)]
struct Head {
    steps: usize,
    /// The difference after these steps is `a·offset + b·offset² + c·offset³`.
    a: Complex,
    b: Complex,
    c: Complex,
}

impl Orbit {
    /// Follows the centre of `view` until it leaves or `steps_max` is reached.
    pub fn of(view: &View) -> Orbit {
        let (c_re, c_im) = view.centre;
        let two = Dd::from(2.0);
        let (mut re, mut im) = (Dd::ZERO, Dd::ZERO);
        let mut points = vec![(0.0, 0.0)];
        for _ in 0..view.steps_max {
            (re, im) = (re * re - im * im + c_re, two * re * im + c_im);
            let point = (re.round(), im.round());
            points.push(point);
            if point.0 * point.0 + point.1 * point.1 > 16.0 {
                break;
            }
        }
        let head = Head::of(&points, view.width);
        Orbit {
            points,
            steps_max: view.steps_max,
            head,
        }
    }

    /// Finds out what becomes of the samples at `offsets` from the centre and tells `found` of each,
    /// with its place among them, in no particular order. Answers how many steps that took.
    pub fn follow(&self, offsets: &[Complex], mut found: impl FnMut(usize, Fate)) -> u64 {
        let mut waiting = offsets.iter().copied().enumerate();
        let mut lanes = Lanes::default();
        let mut active = 0;
        for lane in 0..LANES {
            active += usize::from(self.start(&mut lanes, lane, waiting.next()));
        }
        let mut total = 0;
        while active > 0 {
            total += active as u64;
            let size = self.step(&mut lanes);
            for (lane, size) in size.into_iter().enumerate() {
                let escaped = size > ESCAPE_SQUARED;
                if escaped || lanes.steps[lane] >= self.steps_max {
                    if let Some(sample) = lanes.sample[lane] {
                        found(
                            sample,
                            if escaped {
                                lanes.escaped(lane)
                            } else {
                                Fate::Inside
                            },
                        );
                        active -= 1;
                    }
                    active += usize::from(self.start(&mut lanes, lane, waiting.next()));
                }
            }
        }
        total
    }

    /// Puts a sample into a lane, behind the steps that all have in common; without one the lane
    /// idles at the centre. Answers whether there was one.
    fn start(&self, lanes: &mut Lanes, lane: usize, next: Option<(usize, Complex)>) -> bool {
        let offset = next.map_or((0.0, 0.0), |(_, offset)| offset);
        let (d, slope) = self.head.at(offset);
        let at = self.head.steps;
        let z = add(self.points[at], d);
        lanes.sample[lane] = next.map(|(sample, _)| sample);
        lanes.at[lane] = at;
        lanes.steps[lane] = at as u32;
        (lanes.offset_re[lane], lanes.offset_im[lane]) = offset;
        (lanes.d_re[lane], lanes.d_im[lane]) = d;
        (lanes.z_re[lane], lanes.z_im[lane]) = z;
        (lanes.slope_re[lane], lanes.slope_im[lane]) = slope;
        next.is_some()
    }

    /// One step of every lane; answers how far out each is now, squared.
    #[inline(always)]
    fn step(&self, l: &mut Lanes) -> [f64; LANES] {
        let last = self.points.len() - 1;
        let (mut size, mut difference) = ([0.0; LANES], [0.0; LANES]);
        let (mut p_re, mut p_im) = ([0.0; LANES], [0.0; LANES]);
        let (mut q_re, mut q_im) = ([0.0; LANES], [0.0; LANES]);
        for i in 0..LANES {
            (p_re[i], p_im[i]) = self.points[l.at[i]];
            l.at[i] += 1;
            (q_re[i], q_im[i]) = self.points[l.at[i]];
            l.steps[i] += 1;
        }
        for i in 0..LANES {
            let (s_re, s_im) = (l.slope_re[i], l.slope_im[i]);
            l.slope_re[i] = 2.0 * (l.z_re[i] * s_re - l.z_im[i] * s_im) + 1.0;
            l.slope_im[i] = 2.0 * (l.z_re[i] * s_im + l.z_im[i] * s_re);
            let (d_re, d_im) = (l.d_re[i], l.d_im[i]);
            let (f_re, f_im) = (2.0 * p_re[i] + d_re, 2.0 * p_im[i] + d_im);
            l.d_re[i] = f_re * d_re - f_im * d_im + l.offset_re[i];
            l.d_im[i] = f_re * d_im + f_im * d_re + l.offset_im[i];
            l.z_re[i] = q_re[i] + l.d_re[i];
            l.z_im[i] = q_im[i] + l.d_im[i];
            size[i] = l.z_re[i] * l.z_re[i] + l.z_im[i] * l.z_im[i];
            difference[i] = l.d_re[i] * l.d_re[i] + l.d_im[i] * l.d_im[i];
        }
        for i in 0..LANES {
            // Once the difference outgrows the point itself the orbit is no guide any more: the
            // sample starts on it anew, as a difference from its first point, which is zero.
            if size[i] < difference[i] || l.at[i] == last {
                (l.d_re[i], l.d_im[i]) = (l.z_re[i], l.z_im[i]);
                l.at[i] = 0;
            }
        }
        size
    }

    /// About the fewest steps that any sample of a view takes: those of a coarse set of samples.
    pub fn fewest_steps(&self, view_width: f64) -> f64 {
        let unit = view_width / 32.0;
        let offsets: Vec<Complex> = (0..33 * 25)
            .map(|n| (f64::from(n % 33) - 16.0, f64::from(n / 33) - 12.0))
            .map(|(across, down)| (across * unit, down * unit))
            .collect();
        let mut fewest = f64::from(self.steps_max);
        self.follow(&offsets, |_, fate| {
            if let Fate::Escaped { steps, .. } = fate {
                fewest = fewest.min(steps);
            }
        });
        fewest
    }
}

impl Lanes {
    fn escaped(&self, lane: usize) -> Fate {
        let z = (self.z_re[lane], self.z_im[lane]);
        escaped(
            self.steps[lane],
            z,
            (self.slope_re[lane], self.slope_im[lane]),
        )
    }
}

impl Head {
    /// As many steps as the polynomial can stand for, for offsets within a view of this width.
    fn of(points: &[Complex], view_width: f64) -> Head {
        let reach = view_width * 0.75;
        let mut head = Head {
            steps: 0,
            a: (0.0, 0.0),
            b: (0.0, 0.0),
            c: (0.0, 0.0),
        };
        for (step, point) in points[..points.len() - 1].iter().enumerate() {
            let Head { a, b, c, .. } = head;
            let double = (2.0 * point.0, 2.0 * point.1);
            let next_a = times(double, a);
            let next = Head {
                steps: step + 1,
                a: (next_a.0 + 1.0, next_a.1),
                b: add(times(double, b), times(a, a)),
                c: add(times(double, c), times((2.0 * a.0, 2.0 * a.1), b)),
            };
            let first = squared(next.a) * reach * reach;
            let third = squared(next.c) * reach * reach * reach * reach * reach * reach;
            let close = squared(points[step + 1]) < 16.0 * first;
            if !third.is_finite() || third > first * 1e-12 || close {
                break;
            }
            head = next;
        }
        head
    }

    /// The difference of a sample after these steps, and its derivative by the offset.
    fn at(&self, offset: Complex) -> (Complex, Complex) {
        let Head { a, b, c, .. } = *self;
        let inner = add(times(add(times(c, offset), b), offset), a);
        let (b2, c3) = ((2.0 * b.0, 2.0 * b.1), (3.0 * c.0, 3.0 * c.1));
        let derivative = add(times(add(times(c3, offset), b2), offset), a);
        (times(inner, offset), derivative)
    }
}

#[inline(always)]
fn add(a: Complex, b: Complex) -> Complex {
    (a.0 + b.0, a.1 + b.1)
}

#[inline(always)]
fn times(a: Complex, b: Complex) -> Complex {
    (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0)
}

#[inline(always)]
fn squared(a: Complex) -> f64 {
    a.0 * a.0 + a.1 * a.1
}

fn escaped(step: u32, z: Complex, derivative: Complex) -> Fate {
    let doublings = log2(log2(z.0 * z.0 + z.1 * z.1) * 0.5);
    // z divided by its derivative points away from the set.
    let up = (
        z.0 * derivative.0 + z.1 * derivative.1,
        z.1 * derivative.0 - z.0 * derivative.1,
    );
    let largest = up.0.abs().max(up.1.abs());
    let slope = if largest > 0.0 && largest.is_finite() {
        let up = (up.0 / largest, up.1 / largest);
        let length = (up.0 * up.0 + up.1 * up.1).sqrt();
        (up.0 / length, up.1 / length)
    } else {
        (0.0, 0.0)
    };
    Fate::Escaped {
        steps: f64::from(step) + 1.0 - doublings,
        slope,
    }
}

/// The logarithm to base 2 of a positive, normal number, from basic arithmetic alone: the system's
/// own may differ in the last bit from machine to machine, and then so would the picture.
pub fn log2(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let mut mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | (1023 << 52));
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let square = s * s;
    let series = (0..12)
        .rev()
        .fold(0.0, |sum, k| sum * square + 1.0 / f64::from(2 * k + 1));
    f64::from(exponent) + 2.0 * std::f64::consts::LOG2_E * s * series
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(re: &str, im: &str) -> View {
        View {
            centre: (
                Dd::parse(re).expect("a number"),
                Dd::parse(im).expect("a number"),
            ),
            width: 1.0,
            steps_max: 500,
        }
    }

    /// Steps until a point leaves, by the definition itself.
    fn plainly(c: (f64, f64)) -> Option<u32> {
        let mut z = (0.0, 0.0);
        (1..=500).find(|_| {
            z = (z.0 * z.0 - z.1 * z.1 + c.0, 2.0 * z.0 * z.1 + c.1);
            z.0 * z.0 + z.1 * z.1 > ESCAPE_SQUARED
        })
    }

    #[test]
    fn samples_agree_with_the_definition_wherever_the_orbit_lies() {
        // A centre inside, one outside that leaves at once, and one at the edge.
        for centre in [("-0.1", "0.2"), ("1.5", "0.5"), ("-0.75", "0.1")] {
            let view = view(centre.0, centre.1);
            let orbit = Orbit::of(&view);
            let (c_re, c_im) = (view.centre.0.round(), view.centre.1.round());
            let offsets: Vec<Complex> = (0..1600)
                .map(|n| {
                    (
                        f64::from(n % 40 - 20) * 0.0503,
                        f64::from(n / 40 - 20) * 0.0507,
                    )
                })
                .collect();
            let mut told = vec![0; offsets.len()];
            orbit.follow(&offsets, |sample, fate| {
                told[sample] += 1;
                let expected = plainly((c_re + offsets[sample].0, c_im + offsets[sample].1));
                match (expected, fate) {
                    // Beyond that rounding alone decides, in either computation.
                    (Some(60..), _) => {}
                    (Some(expected), Fate::Escaped { steps, .. }) => {
                        assert!(
                            (steps - f64::from(expected)).abs() < 5.0,
                            "{steps} {expected}"
                        );
                    }
                    (None, Fate::Inside) => {}
                    (expected, fate) => panic!("{expected:?}, but {fate:?}"),
                }
            });
            assert!(told.iter().all(|times| *times == 1));
        }
    }

    #[test]
    fn logarithms_are_right() {
        for x in [
            1e-300,
            0.3,
            0.999,
            1.0,
            std::f64::consts::SQRT_2,
            2.0,
            12345.678,
            1e300,
        ] {
            assert!(
                (log2(x) - x.log2()).abs() <= 4e-16 * x.log2().abs().max(1.0),
                "{x}"
            );
        }
    }
}
