//! Tells errors of the system that mean a shortage of the machine (disk, memory, processes) from others.

use hedge_model::Ending;
use hedge_model::ending::Shortage;
use std::io;

/// The beginning of other errors that mean a full disk.
const NO_SPACE: &str = "no space left";

/// Returns what the machine is short of, if the error means a shortage.
pub fn shortage(error: &io::Error) -> Option<Shortage> {
    shortage_of(error.raw_os_error()?)
}

/// The same for the text of an error.
pub fn told_shortage(text: &str) -> Option<Shortage> {
    let number = || {
        text.split("(os error ")
            .nth(1)?
            .split(')')
            .next()?
            .parse()
            .ok()
    };
    match number().map(shortage_of) {
        Some(known) => known,
        None => text.contains(NO_SPACE).then_some(Shortage::Disk),
    }
}

pub(crate) fn shortage_of(errno: i32) -> Option<Shortage> {
    Some(match errno {
        libc::EMFILE => Shortage::Files,
        libc::ENFILE => Shortage::MachineFiles,
        libc::EAGAIN => Shortage::Processes,
        libc::ENOMEM => Shortage::Memory,
        libc::ENOSPC => Shortage::Disk,
        libc::EDQUOT => Shortage::Quota,
        _ => return None,
    })
}

/// Returns the ending of an attempt for which the worker could not do something, by no fault of the task.
pub(crate) fn worker_ending(doing: impl Into<String>, error: &io::Error) -> Ending {
    let doing = doing.into();
    match shortage(error) {
        Some(of) => Ending::Short { of, doing },
        None => Ending::worker(format!("it cannot {doing}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_is_known_by_number_and_by_text() {
        for (errno, of) in [
            (libc::EMFILE, Some(Shortage::Files)),
            (libc::EAGAIN, Some(Shortage::Processes)),
            (libc::EACCES, None),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(shortage(&error), of);
            assert_eq!(told_shortage(&format!("cannot: {error}; sorry")), of);
        }
        assert_eq!(told_shortage("(os error x)"), None);
        let full = "cannot take in it: no space left on the disk: 3 are free";
        assert_eq!(told_shortage(full), Some(Shortage::Disk));
    }
}
