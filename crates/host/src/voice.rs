//! Voices near the microphone, where the owner asked for it: two detectors must agree.
//!
//! One alone takes noise or clicks for speech sooner or later. What is heard is judged in pieces of a few
//! hundredths of a second, which are then forgotten: nothing is kept or sent. Music with song counts as voice.

use crate::source::{Covers, Ended, Options, Outlet, Source, Trouble};
use earshot::Detector;
use hedge_model::owner::Activity;
use nnnoiseless::DenoiseState;
use rustix::fs::OFlags;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// What the sound server calls us; other sources leave this recording out.
pub(crate) const NAME: &str = "hedge-voice";
/// Samples a second, as the second detector wants them.
const RATE: u32 = 48_000;
/// The first detector wants a third of that.
const DOWN: usize = 3;
const EARSHOT_FRAME: usize = 256;
const RNN_FRAME: usize = DenoiseState::FRAME_SIZE;
/// Frames of either in a second, over which both are judged.
const EARSHOT_FRAMES: usize = RATE as usize / DOWN / EARSHOT_FRAME;
const RNN_FRAMES: usize = RATE as usize / RNN_FRAME;
/// A frame is voiced from this probability on: what both are made for.
const VOICED: f32 = 0.5;
/// Shares of a second that must be voiced: the least that every recording of speech reached which was tried, and
/// none of silence, hum, clicks and white, pink and brown noise.
const EARSHOT_SHARE: f64 = 0.4;
const RNN_SHARE: f64 = 0.3;
/// Quieter frames are nobody's voice at this machine: -55 dB of full scale, squared.
const QUIET: f32 = 3.2e-6;
/// Voices are over when none was heard for so long: people draw breath.
const OVER_AFTER: Duration = Duration::from_secs(2);
/// Longest wait for sound that should come all the time.
const SILENT_MAX: Duration = Duration::from_secs(10);

struct Voice {
    recorder: Recorder,
    source: String,
}

/// A `parec`, which ends with this.
struct Recorder(Child);

impl Drop for Recorder {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Opens the microphone, where the owner asked for that.
pub(crate) fn open(options: &Options) -> Result<Box<dyn Source>, Trouble> {
    if !options.listen {
        return Err(Trouble::Lacking {
            why: "nobody asked for it".to_owned(),
            mend: "set `listen = true` in owner.toml, if voices near the microphone are to count"
                .to_owned(),
        });
    }
    let absent = |why: String| Trouble::Absent(format!("no microphone to listen at: {why}"));
    let source = microphone().map_err(absent)?;
    let recorder = Command::new("parec")
        .args(["--client-name", NAME, "--format=s16le", "--channels=1"])
        .args([&format!("--rate={RATE}"), "--latency-msec=20"])
        .args(["--device", &source])
        .env("PULSE_NO_SPAWN", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let recorder = recorder.map_err(|error| absent(format!("parec: {error}")))?;
    let recorder = Recorder(recorder);
    if let Some(stdout) = &recorder.0.stdout {
        let flags = rustix::fs::fcntl_getfl(stdout);
        flags
            .and_then(|flags| rustix::fs::fcntl_setfl(stdout, flags | OFlags::NONBLOCK))
            .map_err(|error| absent(error.to_string()))?;
    }
    Ok(Box::new(Voice { recorder, source }))
}

/// The sound server's default source, unless it records what the machine itself plays.
fn microphone() -> Result<String, String> {
    let output = Command::new("pactl")
        .arg("get-default-source")
        .env("PULSE_NO_SPAWN", "1")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("pactl: {error}"))?;
    let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || name.is_empty() {
        return Err("no sound server lets us in".to_owned());
    }
    if name.ends_with(".monitor") {
        return Err("the sound server has none".to_owned());
    }
    Ok(name)
}

impl Source for Voice {
    fn covers(&self) -> Covers {
        Covers {
            what: format!("voices at {}", self.source),
            kinds: vec![Activity::Voice],
        }
    }

    fn run(&mut self, out: &mut Outlet) -> Ended {
        let gone = || Ended::Broken("the sound server is gone".to_owned());
        let Some(mut stdout) = self.recorder.0.stdout.take() else {
            return gone();
        };
        let mut judge = Judge::new();
        let (mut heard, mut voice): (_, Option<Instant>) = (Instant::now(), None);
        loop {
            if !out.wait(&[stdout.as_fd()], Some(SILENT_MAX)) {
                return Ended::Stopped;
            }
            let now = Instant::now();
            match take(&mut stdout, &mut judge) {
                Ok(true) => heard = now,
                Ok(false) if now - heard < SILENT_MAX => {}
                _ => return gone(),
            }
            if judge.is_voice() {
                voice = Some(now);
                out.lasting(Activity::Voice, true);
            } else if voice.is_some_and(|last| now - last >= OVER_AFTER) {
                voice = None;
                out.lasting(Activity::Voice, false);
            }
        }
    }
}

/// Hands all that was recorded to the judge; whether there was anything.
fn take(from: &mut ChildStdout, judge: &mut Judge) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    let mut any = false;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                any = true;
                judge.hear(&buffer[..read]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Both detectors and what they found in the last second.
struct Judge {
    odd: Option<u8>,
    /// Samples between -1 and 1 that wait for a whole frame.
    wide: Vec<f32>,
    narrow: Vec<f32>,
    filter: Down,
    earshot: Detector,
    rnn: Box<DenoiseState<'static>>,
    by_earshot: Window,
    by_rnn: Window,
}

impl Judge {
    fn new() -> Judge {
        Judge {
            odd: None,
            wide: Vec::with_capacity(RNN_FRAME),
            narrow: Vec::with_capacity(EARSHOT_FRAME),
            filter: Down::new(),
            earshot: Detector::default(),
            rnn: DenoiseState::new(),
            by_earshot: Window::new(EARSHOT_FRAMES),
            by_rnn: Window::new(RNN_FRAMES),
        }
    }

    /// Takes samples of 16 bits, lowest byte first, at [`RATE`].
    fn hear(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match self.odd.take() {
                None => self.odd = Some(*byte),
                Some(low) => {
                    let sample = i16::from_le_bytes([low, *byte]);
                    self.sample(f32::from(sample) / 32_768.0);
                }
            }
        }
    }

    fn sample(&mut self, sample: f32) {
        if let Some(sample) = self.filter.take(sample) {
            self.narrow.push(sample);
            if self.narrow.len() == EARSHOT_FRAME {
                let voiced = self.earshot.predict_f32(&self.narrow) >= VOICED;
                self.by_earshot.push(voiced && is_loud(&self.narrow));
                self.narrow.clear();
            }
        }
        self.wide.push(sample);
        if self.wide.len() == RNN_FRAME {
            let loud = is_loud(&self.wide);
            // It wants them as numbers of 16 bits.
            self.wide.iter_mut().for_each(|sample| *sample *= 32_768.0);
            let mut clean = [0.0; RNN_FRAME];
            let voiced = self.rnn.process_frame(&mut clean, &self.wide) >= VOICED;
            self.by_rnn.push(voiced && loud);
            self.wide.clear();
        }
    }

    fn is_voice(&self) -> bool {
        self.by_earshot.share() >= EARSHOT_SHARE && self.by_rnn.share() >= RNN_SHARE
    }
}

fn is_loud(frame: &[f32]) -> bool {
    let square: f32 = frame.iter().map(|sample| sample * sample).sum();
    square / frame.len() as f32 >= QUIET
}

/// How many of the last frames were voiced.
struct Window {
    last: VecDeque<bool>,
    voiced: usize,
    size: usize,
}

impl Window {
    fn new(size: usize) -> Window {
        let last = VecDeque::with_capacity(size + 1);
        Window {
            last,
            voiced: 0,
            size,
        }
    }

    fn push(&mut self, voiced: bool) {
        self.last.push_back(voiced);
        self.voiced += usize::from(voiced);
        if self.last.len() > self.size {
            self.voiced -= usize::from(self.last.pop_front() == Some(true));
        }
    }

    fn share(&self) -> f64 {
        self.voiced as f64 / self.size as f64
    }
}

/// Takes every third sample, after what is too high for that was taken out (a windowed sinc, cut off at 7.2 kHz).
struct Down {
    taps: [f32; TAPS],
    last: [f32; TAPS],
    at: usize,
    count: usize,
}

const TAPS: usize = 48;

impl Down {
    fn new() -> Down {
        use std::f32::consts::PI;
        let mut taps = [0.0; TAPS];
        let cutoff = 0.9 / DOWN as f32;
        for (at, tap) in taps.iter_mut().enumerate() {
            let from = at as f32 - (TAPS - 1) as f32 / 2.0;
            let sinc = (PI * cutoff * from).sin() / (PI * from);
            let window = 0.5 - 0.5 * (2.0 * PI * (at as f32 + 0.5) / TAPS as f32).cos();
            *tap = sinc * window;
        }
        let sum: f32 = taps.iter().sum();
        taps.iter_mut().for_each(|tap| *tap /= sum);
        Down {
            taps,
            last: [0.0; TAPS],
            at: 0,
            count: 0,
        }
    }

    fn take(&mut self, sample: f32) -> Option<f32> {
        self.last[self.at] = sample;
        self.at = (self.at + 1) % TAPS;
        self.count = (self.count + 1) % DOWN;
        if self.count != 0 {
            return None;
        }
        let old_first = self.last[self.at..].iter().chain(&self.last[..self.at]);
        Some(old_first.zip(&self.taps).map(|(a, b)| a * b).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a voice was heard in a recording that a program makes, seconds from its beginning.
    fn heard(program: &str) -> Option<f64> {
        let output = Command::new("sh").args(["-c", program]).output().unwrap();
        assert!(
            output.status.success() && output.stdout.len() > RATE as usize,
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let mut judge = Judge::new();
        let step = RATE as usize / 100 * 2;
        for (number, piece) in output.stdout.chunks(step).enumerate() {
            judge.hear(piece);
            if judge.is_voice() {
                return Some(number as f64 / 100.0);
            }
        }
        None
    }

    const RAW: &str = "-t raw -r 48000 -c 1 -b 16 -e signed-integer -";

    /// What somebody says, from the first sound on.
    fn speech(voice: &str, words: &str, speed: u32, pitch: u32) -> String {
        format!(
            "espeak-ng --stdout -v {voice} -s {speed} -p {pitch} '{words}' | sox -t wav - {RAW} \
             gain -n -12 silence 1 0.01 1%"
        )
    }

    #[test]
    fn every_recording_of_speech_is_a_voice_within_a_second() {
        let texts = [
            (
                "en",
                "Good morning, could you please open the window and come over here?",
            ),
            (
                "en",
                "The minutes of the last meeting were read and approved by all members.",
            ),
            (
                "de",
                "Guten Morgen, könnten Sie bitte das Fenster öffnen und herkommen?",
            ),
            (
                "fr",
                "Bonjour, pourriez-vous ouvrir la fenêtre et venir ici, je vous prie?",
            ),
            (
                "es",
                "Buenos días, ¿podría usted abrir la ventana y venir aquí, por favor?",
            ),
        ];
        let mut late = Vec::new();
        for (language, words) in texts {
            for variant in ["", "+m3", "+f2", "+f4"] {
                for (speed, pitch) in [(140, 40), (175, 60)] {
                    let voice = format!("{language}{variant}");
                    let after = heard(&speech(&voice, words, speed, pitch));
                    println!("{voice} {speed} {pitch}: {after:?}");
                    if after.is_none_or(|after| after > 1.0) {
                        late.push((voice, speed, pitch, after));
                    }
                }
            }
        }
        assert!(late.is_empty(), "{late:?}");
    }

    #[test]
    fn neither_silence_nor_hum_nor_clicks_nor_noise_is_a_voice() {
        let mut wrong = Vec::new();
        for sound in [
            "synth 10 sine 0 gain -90",
            "synth 10 sine 50 gain -12",
            "synth 10 sine 50 synth 10 sine mix 100 synth 10 sine mix 150 gain -9",
            "synth 10 whitenoise gain -12",
            "synth 10 whitenoise gain -40",
            "synth 10 pinknoise gain -12",
            "synth 10 pinknoise gain -30",
            "synth 10 brownnoise gain -12",
            "synth 10 brownnoise gain -30",
            "synth 0.005 square 1000 pad 0 0.245 repeat 39 gain -6",
            "synth 0.002 whitenoise pad 0 0.098 repeat 99 gain -6",
            "synth 0.02 whitenoise pad 0.1 0.08 repeat 49 gain -6",
        ] {
            let after = heard(&format!("sox -n {RAW} {sound}"));
            println!("{sound}: {after:?}");
            if after.is_some() {
                wrong.push((sound, after));
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}
