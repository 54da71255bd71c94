//! Secrets on the command line, which everybody on a machine can read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Overwrites an argument of this process with asterisks, wherever it occurs, as other processes see it. Where the
/// kernel refuses that, the argument stays.
pub fn hide(secret: &str) {
    _ = overwrite(secret);
}

fn overwrite(secret: &str) -> io::Result<()> {
    // The name, in brackets, may hold anything; the beginning of the arguments is the 46th field behind it.
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let start = fields
        .split_whitespace()
        .nth(45)
        .and_then(|text| text.parse::<u64>().ok());
    let start = start
        .filter(|start| *start > 0)
        .ok_or(io::ErrorKind::NotFound)?;
    let line = std::fs::read("/proc/self/cmdline")?;
    let memory = File::options().write(true).open("/proc/self/mem")?;
    let hidden = vec![b'*'; secret.len()];
    for (at, _) in line
        .windows(secret.len().max(1))
        .enumerate()
        .filter(|(_, part)| *part == secret.as_bytes())
    {
        memory.write_all_at(&hidden, start + at as u64)?;
    }
    Ok(())
}
