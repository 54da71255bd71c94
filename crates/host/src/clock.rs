//! The machine's local time.

/// Minutes since Monday 00:00 of the local time.
pub fn minute_of_week() -> u32 {
    // SAFETY: all zeroes is a valid value of both, and both are valid for the calls.
    let local = unsafe {
        let mut local: libc::tm = std::mem::zeroed();
        let now = libc::time(std::ptr::null_mut());
        libc::localtime_r(&raw const now, &raw mut local);
        local
    };
    let part = |value: i32, below: u32| u32::try_from(value).unwrap_or(0) % below;
    // The C library counts from Sunday.
    let day = (part(local.tm_wday, 7) + 6) % 7;
    day * 24 * 60 + part(local.tm_hour, 24) * 60 + part(local.tm_min, 60)
}
