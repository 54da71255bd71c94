//! Desktops for owners who come back: X servers with real devices, and a sound server with a microphone.

use super::again::Again;
use super::{Kept, until};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A display that ends with the test.
pub struct Desktop {
    _server: Kept,
    pub display: String,
}

impl Desktop {
    /// An X server with a virtual keyboard and mouse.
    pub fn virtual_one(folder: &Path) -> Desktop {
        Desktop::start(folder, "Xvfb", &["-screen", "0", "640x480x24"])
    }

    /// The same, which lets in only processes that can read the cookie in the file that is also returned.
    pub fn guarded(folder: &Path) -> (Desktop, PathBuf) {
        let cookie = folder.join("cookie");
        fs::write(&cookie, cookie_for_all()).unwrap();
        let args = [
            "-screen",
            "0",
            "640x480x24",
            "-auth",
            cookie.to_str().unwrap(),
        ];
        (Desktop::start(folder, "Xvfb", &args), cookie)
    }

    /// An X server with a touchscreen, an absolute pointer and a tablet with a stylus, whose drivers are told what to
    /// report at sockets in `folder`.
    pub fn with_devices(folder: &Path) -> Desktop {
        let device = |name: &str, kind: &str| {
            format!(
                "Section \"InputDevice\"\nIdentifier \"{name}\"\nDriver \"inputtest\"\nOption \"DeviceType\" \"{kind}\"\n\
                 Option \"TouchCount\" \"3\"\nOption \"PointerHasPressure\" \"true\"\nOption \"SocketPath\" \"{}/{name}.sock\"\nEndSection\n",
                folder.display()
            )
        };
        let config = [
            "Section \"ServerFlags\"\nOption \"AutoAddDevices\" \"false\"\nOption \"AutoAddGPU\" \"false\"\nEndSection\n",
            "Section \"Device\"\nIdentifier \"card\"\nDriver \"dummy\"\nEndSection\n",
            "Section \"Screen\"\nIdentifier \"screen\"\nDevice \"card\"\nEndSection\n",
            &device("touchscreen", "Touch"),
            &device("pointer", "PointerAbsolute"),
            &device("tablet", "PointerAbsoluteProximity"),
            &device("keys", "Keyboard"),
            "Section \"ServerLayout\"\nIdentifier \"all\"\nScreen \"screen\"\nInputDevice \"touchscreen\"\n\
             InputDevice \"tablet\"\nInputDevice \"pointer\" \"CorePointer\"\nInputDevice \"keys\" \"CoreKeyboard\"\nEndSection\n",
        ];
        let path = folder.join("xorg.conf");
        fs::write(&path, config.concat()).unwrap();
        let log = folder.join("xorg.log");
        let args = [
            "-config",
            path.to_str().unwrap(),
            "-logfile",
            log.to_str().unwrap(),
            "-noreset",
            "-nolisten",
            "tcp",
            "-novtswitch",
            "-sharevts",
        ];
        // The program itself: what Debian has in its place asks who is at the console.
        Desktop::start(folder, "/usr/lib/xorg/Xorg", &args)
    }

    fn start(folder: &Path, program: &str, args: &[&str]) -> Desktop {
        let (read, write) = std::io::pipe().unwrap();
        let handed = rustix::io::dup(&write).unwrap();
        let mut command = Command::new(program);
        command
            .args(["-displayfd", &handed.as_raw_fd().to_string()])
            .args(args);
        let server = Kept::start(command, folder);
        drop((write, handed));
        let mut number = String::new();
        let read = File::from(OwnedFd::from(read));
        BufReader::new(read).read_line(&mut number).unwrap();
        assert!(!number.trim().is_empty(), "{}", server.told());
        Desktop {
            _server: server,
            display: format!(":{}", number.trim()),
        }
    }

    /// Runs `xdotool` there.
    pub fn xdotool(&self, args: &[&str]) {
        xdotool(&self.display, args);
    }

    /// Runs it again and again, with these arguments by turns.
    pub fn keep_using(&self, turns: [&'static [&'static str]; 2]) -> Again {
        let display = self.display.clone();
        Again::start(move |turn| xdotool(&display, turns[turn % 2]))
    }
}

/// A cookie for every display, as `xauth` writes them: family, address, display, kind and secret, each but the first
/// behind its length.
fn cookie_for_all() -> Vec<u8> {
    const FAMILY_WILD: u16 = 0xffff;
    let parts: [&[u8]; 4] = [b"", b"", b"MIT-MAGIC-COOKIE-1", b"a cookie of 16 b"];
    let mut bytes = FAMILY_WILD.to_be_bytes().to_vec();
    for part in parts {
        bytes.extend((part.len() as u16).to_be_bytes());
        bytes.extend(part);
    }
    bytes
}

fn xdotool(display: &str, args: &[&str]) {
    let status = Command::new("xdotool")
        .args(args)
        .env("DISPLAY", display)
        .stdin(Stdio::null())
        .status();
    assert!(status.unwrap().success(), "xdotool {args:?}");
}

/// Kinds of messages of the X server's `inputtest` driver.
const VERSION: u32 = 0;
const MOTION: u32 = 2;
const PROXIMITY: u32 = 3;
const TOUCH: u32 = 6;
/// Of a touch.
const BEGIN: u32 = 18;
const END: u32 = 20;
/// Axes for which the protocol has room.
const AXES: usize = 64;

/// Touches the touchscreen of [`Desktop::with_devices`] again and again.
pub fn keep_touching(folder: &Path) -> Again {
    let mut device = device(folder, "touchscreen");
    Again::start(move |turn| {
        for kind in [BEGIN, END] {
            let message = message(TOUCH, &[7, kind], &position(turn));
            device.write_all(&message).unwrap();
        }
    })
}

/// Moves its pointer to and fro.
pub fn keep_pointing(folder: &Path) -> Again {
    let mut device = device(folder, "pointer");
    Again::start(move |turn| {
        let message = message(MOTION, &[1, 0], &position(turn));
        device.write_all(&message).unwrap();
    })
}

/// Brings the stylus near its tablet, moves it there and takes it away, again and again.
pub fn keep_drawing(folder: &Path) -> Again {
    let mut device = device(folder, "tablet");
    Again::start(move |turn| {
        for (kind, near) in [(PROXIMITY, 1), (MOTION, 1), (PROXIMITY, 0)] {
            let message = message(kind, &[near, 0], &position(turn));
            device.write_all(&message).unwrap();
        }
    })
}

fn device(folder: &Path, name: &str) -> UnixStream {
    let path = folder.join(format!("{name}.sock"));
    let mut stream = until("the device", || UnixStream::connect(&path).ok());
    let [major, minor] = [1u16, 1].map(u16::to_ne_bytes);
    stream
        .write_all(&message(VERSION, &[], &[major, minor].concat()))
        .unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    stream
}

fn message(kind: u32, words: &[u32], rest: &[u8]) -> Vec<u8> {
    let length = (8 + 4 * words.len() + rest.len()) as u32;
    let all = [length, kind].into_iter().chain(words.iter().copied());
    let mut bytes: Vec<u8> = all.flat_map(u32::to_ne_bytes).collect();
    bytes.extend_from_slice(rest);
    bytes
}

/// Values of the first two axes, another place at every other turn, as the driver wants them: a mask of what follows,
/// then all that could.
fn position(turn: usize) -> Vec<u8> {
    let beside = if turn.is_multiple_of(2) { 0.0 } else { 20.0 };
    let mut bytes = vec![0, 0, 0, 0, 0b11];
    bytes.resize(16, 0);
    let values = [120.0f64 + beside, 90.0 + beside]
        .into_iter()
        .chain([0.0; AXES - 2])
        .chain([0.0; AXES]);
    bytes.extend(values.flat_map(f64::to_ne_bytes));
    bytes
}

/// A sound server with a microphone in a room that nobody hears.
pub struct Sound {
    _server: Kept,
    env: [String; 2],
}

impl Sound {
    /// Starts it with its files in `folder`.
    pub fn start(folder: &Path) -> Sound {
        let env = [
            format!("XDG_RUNTIME_DIR={}", folder.display()),
            format!("PULSE_RUNTIME_PATH={}/pulse", folder.display()),
        ];
        let args = [
            "-n",
            "--daemonize=no",
            "--exit-idle-time=-1",
            "--disable-shm=yes",
            "--load=module-native-protocol-unix",
            "--load=module-null-sink sink_name=room",
            "--load=module-remap-source source_name=microphone master=room.monitor",
        ];
        let mut command = Command::new("env");
        command
            .args(&env)
            .arg("pulseaudio")
            .args(args)
            .env("HOME", folder);
        let server = Kept::start(command, folder);
        let sound = Sound {
            _server: server,
            env,
        };
        until("the sound server", || {
            let info = sound.program("pactl", &["info"]).output().unwrap();
            info.status.success().then_some(())
        });
        let default = ["set-default-source", "microphone"];
        let chosen = sound.program("pactl", &default).status();
        assert!(chosen.unwrap().success());
        sound
    }

    /// The command in front of programs that are to use it.
    pub fn before(&self) -> Vec<&str> {
        std::iter::once("env")
            .chain(self.env.iter().map(String::as_str))
            .collect()
    }

    /// Records from the microphone until the test drops it.
    pub fn record(&self, folder: &Path) -> Kept {
        Kept::start(self.program("parec", &["--device=microphone"]), folder)
    }

    /// Lets the room hear a recording once, which `sh` makes there as `FILE`, and waits for its end.
    pub fn play(&self, folder: &Path, make: &str) {
        let file = recording(folder, make);
        let status = self
            .program("paplay", &["--device=room", file.to_str().unwrap()])
            .status();
        assert!(status.unwrap().success());
    }

    /// Lets it hear it again and again until the test drops it.
    pub fn keep_playing(&self, folder: &Path, make: &str) -> Kept {
        let file = recording(folder, make);
        let again = format!(
            "while :; do timeout 60 paplay --device=room '{}'; done",
            file.display()
        );
        Kept::start(self.program("sh", &["-c", &again]), folder)
    }

    fn program(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("env");
        command
            .args(&self.env)
            .arg(program)
            .args(args)
            .stdin(Stdio::null());
        command
    }
}

fn recording(folder: &Path, make: &str) -> PathBuf {
    let file = folder.join("recording.wav");
    let status = Command::new("sh")
        .args(["-c", make])
        .env("FILE", &file)
        .status();
    assert!(status.unwrap().success(), "{make}");
    file
}
