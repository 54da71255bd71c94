//! The microphone in use by another program: somebody speaks, most likely, and no sound is listened to.
//!
//! Two ways, both without opening the microphone: the sound server's list of recordings (`pactl`, which comes with
//! PulseAudio and speaks to PipeWire too), and the kernel's word on whether a sound card records.

use crate::source::{Covers, Ended, Options, Outlet, Source, Trouble};
use crate::voice;
use hedge_model::owner::Activity;
use rustix::fs::OFlags;
use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Where the kernel tells of its sound cards.
const CARDS: &str = "/proc/asound";
/// Between two looks at those.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Recordings and sources of which more than this much text is told are cut, bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;

struct Microphone {
    /// Tells of every change at the sound server.
    changes: Option<Changes>,
    cards: bool,
}

/// A `pactl subscribe`, which ends with this.
struct Changes(Child);

impl Drop for Changes {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Finds a sound server or card.
pub(crate) fn open(_: &Options) -> Result<Box<dyn Source>, Trouble> {
    let cards = recording(Path::new(CARDS)).is_some();
    let changes = match subscribe() {
        Ok(changes) => Some(changes),
        Err(trouble) if !cards => return Err(trouble),
        Err(_) => None,
    };
    Ok(Box::new(Microphone { changes, cards }))
}

impl Source for Microphone {
    fn covers(&self) -> Covers {
        let what = match (&self.changes, self.cards) {
            (Some(_), true) => "recordings of the sound server and the sound cards",
            (Some(_), false) => "recordings of the sound server",
            (None, _) => "recordings of the sound cards",
        };
        Covers {
            what: format!("the microphone: {what}"),
            kinds: vec![Activity::Voice],
        }
    }

    fn run(&mut self, out: &mut Outlet) -> Ended {
        // Asking makes the server tell of the one who asks: it is asked when recordings change, and once.
        let (mut server, mut asked) = (false, false);
        loop {
            let cards = recording(Path::new(CARDS)).unwrap_or(false);
            if let Some(Changes(child)) = &mut self.changes {
                let changed = match child.stdout.as_mut().map(drain) {
                    Some(Ok(changed)) => changed,
                    _ => return Ended::Broken("the sound server is gone".to_owned()),
                };
                if changed || !std::mem::replace(&mut asked, true) {
                    server = recorded().unwrap_or(false);
                }
            }
            out.lasting(Activity::Voice, server || cards);
            let fds: Vec<_> = self
                .changes
                .iter()
                .filter_map(|changes| changes.0.stdout.as_ref().map(AsFd::as_fd))
                .collect();
            let timeout = self.cards.then_some(LOOK_EVERY);
            if !out.wait(&fds, timeout) {
                return Ended::Stopped;
            }
        }
    }
}

fn pactl(args: &[&str]) -> Command {
    let mut command = Command::new("pactl");
    command
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

fn subscribe() -> Result<Changes, Trouble> {
    let absent = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Trouble::Lacking {
            why: "no sound card, and no `pactl` to ask a sound server".to_owned(),
            mend: "sudo apt install pulseaudio-utils, or what has `pactl` on this system"
                .to_owned(),
        },
        _ => Trouble::Absent(format!(
            "no sound card, and no sound server: pactl: {error}"
        )),
    };
    // It would start a server where there is none.
    let there = pactl(&["info"])
        .env("PULSE_NO_SPAWN", "1")
        .output()
        .map_err(absent)?;
    if !there.status.success() {
        let why = "no sound card, and no sound server that lets this user in";
        return Err(Trouble::Absent(why.to_owned()));
    }
    let child = pactl(&["subscribe"]).spawn().map_err(absent)?;
    if let Some(stdout) = &child.stdout {
        let flags = rustix::fs::fcntl_getfl(stdout).map_err(|error| absent(error.into()))?;
        let set = rustix::fs::fcntl_setfl(stdout, flags | OFlags::NONBLOCK);
        set.map_err(|error| absent(error.into()))?;
    }
    Ok(Changes(child))
}

/// Takes all that was said; whether it was anything about recordings.
fn drain(from: &mut std::process::ChildStdout) -> io::Result<bool> {
    use std::io::Read;
    let mut buffer = [0; 4096];
    let mut any = false;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                let text = &buffer[..read];
                any |= text.windows(13).any(|part| part == b"source-output");
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether any program records from a microphone, by the sound server's lists.
fn recorded() -> Option<bool> {
    let list = |args: &[&str]| {
        let output = pactl(args).output().ok()?;
        let text = &output.stdout[..output.stdout.len().min(TEXT_BYTES_MAX)];
        Some(String::from_utf8_lossy(text).into_owned())
    };
    Some(from_microphone(
        &list(&["list", "source-outputs"])?,
        &list(&["list", "short", "sources"])?,
    ))
}

/// `outputs`: a paragraph for each recording. `sources`: a line for each source, its name second. What records a
/// loudspeaker (its `monitor`) hears the machine and not a person.
fn from_microphone(outputs: &str, sources: &str) -> bool {
    let microphones: HashSet<&str> = sources
        .lines()
        .filter_map(|line| {
            let mut fields = line.split('\t');
            let (number, name) = (fields.next()?, fields.next()?);
            (!name.ends_with(".monitor")).then_some(number)
        })
        .collect();
    let ours = format!("application.name = \"{}\"", voice::NAME);
    outputs.split("Source Output #").skip(1).any(|recording| {
        let field = |name: &str| {
            let mut lines = recording.lines().map(str::trim);
            lines.find_map(|line| Some(line.strip_prefix(name)?.trim()))
        };
        // Recordings without a client are the server's own, between its parts.
        field("Source:").is_some_and(|source| microphones.contains(source))
            && field("Client:").is_some_and(|client| client != "n/a")
            && !recording.lines().any(|line| line.trim() == ours)
    })
}

/// Whether a sound card records; none where there is no card that could.
fn recording(cards: &Path) -> Option<bool> {
    let mut found = None;
    for card in std::fs::read_dir(cards).ok()?.flatten() {
        if !card.file_name().as_encoded_bytes().starts_with(b"card") {
            continue;
        }
        for device in std::fs::read_dir(card.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = device.file_name();
            let name = name.as_encoded_bytes();
            // `pcm0c` captures, `pcm0p` plays.
            if name.starts_with(b"pcm") && name.ends_with(b"c") {
                let status = std::fs::read_to_string(device.path().join("sub0/status"));
                let runs = status.is_ok_and(|text| text.contains("state: RUNNING"));
                found = Some(found.unwrap_or(false) | runs);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_that_record_a_microphone_count() {
        let sources =
            "0\tspeakers.monitor\tmodule\ts16le\tIDLE\n1\tmicrophone\tmodule\ts16le\tRUNNING\n";
        let output = |source: &str, client: &str, name: &str| {
            format!(
                "Source Output #7\n\tDriver: protocol-native.c\n\tClient: {client}\n\tSource: {source}\n\
                 \tProperties:\n\t\tapplication.name = \"{name}\"\n"
            )
        };
        for (outputs, is) in [
            (String::new(), false),
            (output("1", "40", "parec"), true),
            (output("0", "40", "parec"), false),
            (output("1", "n/a", "loopback"), false),
            (output("1", "41", voice::NAME), false),
            (
                output("1", "41", voice::NAME) + &output("1", "40", "call"),
                true,
            ),
        ] {
            assert_eq!(from_microphone(&outputs, sources), is, "{outputs}");
        }
    }

    #[test]
    fn a_sound_card_that_records_is_known_by_the_kernels_word() {
        let cards = tempfile::tempdir().unwrap();
        assert_eq!(recording(cards.path()), None);
        let status = |device: &str, text: &str| {
            let path = cards.path().join("card0").join(device).join("sub0");
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("status"), text).unwrap();
        };
        status("pcm0p", "state: RUNNING\n");
        assert_eq!(recording(cards.path()), None, "it plays");
        status("pcm0c", "closed\n");
        assert_eq!(recording(cards.path()), Some(false));
        status("pcm0c", "state: RUNNING\nowner_pid   : 7\n");
        assert_eq!(recording(cards.path()), Some(true));
    }
}
