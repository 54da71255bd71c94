//! A timer wheel: setting, moving and taking out a timer cost the same whatever the number of others.

use hedge_model::Time;

/// A tick is 2^16 ns, about 66 µs: an eighth of the shortest interval.
const TICK_BITS: u32 = 16;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// 64^6 ticks are more than 50 days; what is later than half of that is looked at then and put off again.
const LEVELS: usize = 6;
const AHEAD_MAX: u64 = 1 << (SLOT_BITS * LEVELS as u32 - 1);
const NONE: u32 = u32::MAX;

/// One timer for each number; numbers are small and used again.
#[derive(Clone, Debug)]
pub(super) struct Wheel {
    elapsed: u64,
    occupied: [u64; LEVELS],
    heads: [[u32; SLOTS]; LEVELS],
    timers: Vec<Timer>,
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    tick: u64,
    home: Option<(u8, u8)>,
    before: u32,
    after: u32,
}

const UNSET: Timer = Timer {
    tick: 0,
    home: None,
    before: NONE,
    after: NONE,
};

impl Wheel {
    pub fn new() -> Self {
        Self {
            elapsed: 0,
            occupied: [0; LEVELS],
            heads: [[NONE; SLOTS]; LEVELS],
            timers: Vec::new(),
        }
    }

    /// Sets the timer of `number` to fire at the first tick that is not before `at`.
    pub fn set(&mut self, number: u32, at: Time) {
        self.clear(number);
        if self.timers.len() <= number as usize {
            self.timers.resize(number as usize + 1, UNSET);
        }
        let tick = at.0.div_ceil(1 << TICK_BITS);
        self.timers[number as usize].tick = tick;
        self.insert(number);
    }

    /// The timer of `number` does not fire any more.
    pub fn clear(&mut self, number: u32) {
        let Some(timer) = self.timers.get_mut(number as usize) else {
            return;
        };
        let Timer { before, after, .. } = *timer;
        let Some((level, slot)) = timer.home.take() else {
            return;
        };
        let (level, slot) = (level as usize, slot as usize);
        match before {
            NONE => self.heads[level][slot] = after,
            before => self.timers[before as usize].after = after,
        }
        if after != NONE {
            self.timers[after as usize].before = before;
        }
        if self.heads[level][slot] == NONE {
            self.occupied[level] &= !(1 << slot);
        }
    }

    /// When to look next: no timer fires before. It may be earlier than the first one.
    pub fn next(&self) -> Option<Time> {
        self.first().map(|(_, _, tick)| Time(tick << TICK_BITS))
    }

    /// Adds all numbers whose timers are due to `fired`, and forgets those timers.
    pub fn advance(&mut self, now: Time, fired: &mut Vec<u32>) {
        let now = now.0 >> TICK_BITS;
        while let Some((level, slot, tick)) = self.first()
            && tick <= now
        {
            self.elapsed = self.elapsed.max(tick);
            let mut number = std::mem::replace(&mut self.heads[level][slot], NONE);
            self.occupied[level] &= !(1 << slot);
            while number != NONE {
                let timer = &mut self.timers[number as usize];
                let (this, after) = (number, timer.after);
                timer.home = None;
                if timer.tick <= now {
                    fired.push(this);
                } else {
                    self.insert(this);
                }
                number = after;
            }
        }
        self.elapsed = self.elapsed.max(now);
    }

    /// The occupied slot that comes first, and the tick at which it begins.
    fn first(&self) -> Option<(usize, usize, u64)> {
        (0..LEVELS).find_map(|level| {
            let occupied = self.occupied[level];
            if occupied == 0 {
                return None;
            }
            let shift = SLOT_BITS * level as u32;
            let here = (self.elapsed >> shift) & (SLOTS as u64 - 1);
            let ahead = occupied.rotate_right(here as u32).trailing_zeros();
            let slot = (here + u64::from(ahead)) & (SLOTS as u64 - 1);
            let round = (self.elapsed >> shift) + u64::from(ahead);
            Some((level, slot as usize, (round << shift).max(self.elapsed)))
        })
    }

    fn insert(&mut self, number: u32) {
        let timer = &mut self.timers[number as usize];
        let tick = timer.tick.clamp(self.elapsed, self.elapsed + AHEAD_MAX);
        let differ = (self.elapsed ^ tick).checked_ilog2().unwrap_or(0);
        let level = ((differ / SLOT_BITS) as usize).min(LEVELS - 1);
        let slot = (tick >> (SLOT_BITS * level as u32)) as usize & (SLOTS - 1);
        let head = std::mem::replace(&mut self.heads[level][slot], number);
        timer.home = Some((level as u8, slot as u8));
        (timer.before, timer.after) = (NONE, head);
        if head != NONE {
            self.timers[head as usize].before = number;
        }
        self.occupied[level] |= 1 << slot;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Timers set, moved and cleared at random fire once each, in the look at or after their tick, as a plain
    /// map says; and no look that is needed is missed.
    #[test]
    fn the_wheel_fires_what_a_plain_map_would() {
        let mut dice = 1_u64;
        let mut roll = |below: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (dice >> 33) % below
        };
        for _ in 0..200 {
            let mut wheel = Wheel::new();
            let mut plain: BTreeMap<u32, u64> = BTreeMap::new();
            let mut now = roll(1 << 40);
            wheel.advance(Time(now), &mut Vec::new());
            for _ in 0..300 {
                let number = roll(20) as u32;
                match roll(4) {
                    0 => {
                        wheel.clear(number);
                        plain.remove(&number);
                    }
                    1 | 2 => {
                        let bits = 10 + roll(32);
                        let at = now + roll(1 << bits);
                        wheel.set(number, Time(at));
                        plain.insert(number, at.div_ceil(1 << TICK_BITS));
                    }
                    _ => {
                        let next = wheel.next().map_or(u64::MAX, |at| at.0);
                        let first = plain
                            .values()
                            .min()
                            .map_or(u64::MAX, |tick| tick << TICK_BITS);
                        assert!(
                            next <= first.max(now),
                            "a look at {next} for {first}, now {now}"
                        );
                        let bits = 10 + roll(30);
                        now = match roll(2) {
                            0 if next != u64::MAX => now.max(next),
                            _ => now + roll(1 << bits),
                        };
                        let mut fired = Vec::new();
                        wheel.advance(Time(now), &mut fired);
                        fired.sort_unstable();
                        let due = |_: &u32, tick: &mut u64| *tick <= now >> TICK_BITS;
                        let due: Vec<u32> = plain
                            .extract_if(.., due)
                            .map(|(number, _)| number)
                            .collect();
                        assert_eq!(fired, due, "now {now}");
                    }
                }
            }
        }
    }
}
