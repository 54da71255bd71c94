//! Logins from elsewhere: over SSH and the like, by the system's list of logins (`utmp`) and the times at which
//! their terminals were last typed at.

use crate::source::{Covers, Ended, Options, Outlet, Source, Trouble};
use hedge_model::owner::Activity;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Where the list is, by preference.
const LISTS: [&str; 2] = ["/run/utmp", "/var/run/utmp"];
/// Between two looks: one `stat` for the list and each terminal.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most of the list that is read, bytes.
const LIST_BYTES_MAX: u64 = 1 << 20;

/// Sizes and places in a record of `utmp.h` as glibc and musl have it on 64-bit Linux.
const RECORD: usize = 384;
const LINE: std::ops::Range<usize> = 8..40;
const HOST: std::ops::Range<usize> = 76..332;
const USER_PROCESS: u8 = 7;

struct Sessions {
    list: &'static str,
}

/// A login from elsewhere: its terminal and process.
type Login = (String, i32);

/// Finds the list.
pub(crate) fn open(_: &Options) -> Result<Box<dyn Source>, Trouble> {
    let there = |path: &&str| Path::new(path).is_file();
    match LISTS.into_iter().find(there) {
        Some(list) => Ok(Box::new(Sessions { list })),
        None => Err(Trouble::Absent(
            "this system keeps no list of logins (utmp)".to_owned(),
        )),
    }
}

impl Source for Sessions {
    fn covers(&self) -> Covers {
        Covers {
            what: format!("logins from elsewhere ({})", self.list),
            kinds: vec![Activity::Remote],
        }
    }

    fn run(&mut self, out: &mut Outlet) -> Ended {
        let mut stamp = None;
        let mut logins: Option<BTreeMap<Login, Option<i64>>> = None;
        loop {
            let now = std::fs::metadata(self.list).map(|about| (about.mtime(), about.mtime_nsec()));
            let Ok(now) = now else {
                return Ended::Broken(format!("{} is gone", self.list));
            };
            if stamp.replace(now) != Some(now) {
                let found = read(self.list);
                let fresh = logins
                    .as_ref()
                    .is_some_and(|known| found.iter().any(|login| !known.contains_key(login)));
                if fresh {
                    out.seen(Activity::Remote);
                }
                let known = logins.take().unwrap_or_default();
                let of = |login: Login| {
                    let typed = known
                        .get(&login)
                        .copied()
                        .unwrap_or_else(|| typed(&login.0));
                    (login, typed)
                };
                logins = Some(found.into_iter().map(of).collect());
            }
            for ((line, _), last) in logins.iter_mut().flatten() {
                let typed = typed(line);
                if typed > *last {
                    *last = typed;
                    out.seen(Activity::Remote);
                }
            }
            if !out.wait(&[], Some(LOOK_EVERY)) {
                return Ended::Stopped;
            }
        }
    }
}

/// When a terminal was last typed at, seconds since 1970; the kernel rounds it to 8 s.
pub(crate) fn typed(line: &str) -> Option<i64> {
    let about = std::fs::metadata(Path::new("/dev").join(line)).ok()?;
    Some(about.atime())
}

fn read(list: &str) -> Vec<Login> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let Ok(file) = std::fs::File::open(list) else {
        return Vec::new();
    };
    if file.take(LIST_BYTES_MAX).read_to_end(&mut bytes).is_err() {
        return Vec::new();
    }
    logins(&bytes)
}

/// The logins in a list that name a machine that they came from. Names of users and machines stay here.
fn logins(bytes: &[u8]) -> Vec<Login> {
    let login = |record: &[u8]| {
        let host = text(&record[HOST]);
        // `:0` is the display here; `tmux(…)` and `mosh` name no machine.
        let elsewhere = !host.is_empty() && !host.starts_with(':') && !host.contains('(');
        let pid = i32::from_ne_bytes(record[4..8].try_into().ok()?);
        let line = text(&record[LINE]);
        // A terminal's name must not lead out of `/dev`.
        let safe = !line.contains("..") && !line.starts_with('/');
        (record[0] == USER_PROCESS && elsewhere && safe).then_some((line, pid))
    };
    bytes.chunks_exact(RECORD).filter_map(login).collect()
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&field[..end.unwrap_or(field.len())]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, line: &str, host: &str, pid: i32) -> Vec<u8> {
        let mut record = vec![0; RECORD];
        record[0] = kind;
        record[4..8].copy_from_slice(&pid.to_ne_bytes());
        record[LINE][..line.len()].copy_from_slice(line.as_bytes());
        record[HOST][..host.len()].copy_from_slice(host.as_bytes());
        record
    }

    #[test]
    fn only_logins_from_other_machines_count() {
        assert_eq!(size_of::<libc::utmpx>(), RECORD);
        let list = [
            record(USER_PROCESS, "pts/3", "192.0.2.7", 70),
            record(USER_PROCESS, "tty2", "", 71),
            record(USER_PROCESS, ":0", ":0", 72),
            record(USER_PROCESS, "pts/4", "tmux(9).%0", 73),
            record(8, "pts/5", "192.0.2.8", 74),
            record(USER_PROCESS, "../etc/passwd", "192.0.2.9", 75),
            vec![7; 10],
        ]
        .concat();
        assert_eq!(logins(&list), [("pts/3".to_owned(), 70)]);
    }
}
