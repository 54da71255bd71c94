//! The picture.

use hedge_node::worker::SaverView;
use std::f64::consts::TAU;
use x11rb::connection::Connection;
use x11rb::protocol::Event;
use x11rb::protocol::xproto::{
    Arc, ChangeGCAux, ConnectionExt, CreateGCAux, CreateWindowAux, EventMask, Font, Gcontext,
    Pixmap, Rectangle, Window, WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

/// Fonts of the server, best first; the last is in every one.
const FONTS: [&str; 3] = ["10x20", "9x15", "fixed"];
/// Leaves before any task is done, and most that are drawn.
const LEAVES_MIN: u64 = 160;
const LEAVES_MAX: u64 = 2_400;
/// Bands of the sky.
const BANDS: u16 = 24;
const GREENS: [u32; 6] = [
    0x001b_4d2b,
    0x0023_6b38,
    0x002f_8146,
    0x0041_9a52,
    0x0016_3f24,
    0x0058_ad5f,
];

/// A window and what is drawn on it with.
pub struct Screen {
    connection: RustConnection,
    window: Window,
    gc: Gcontext,
    size: (u16, u16),
    pixmap: Pixmap,
}

type Failed = Box<dyn std::error::Error>;

impl Screen {
    /// Takes the window with this number, or the root window, or opens one of its own.
    pub fn open(window: Option<&str>, root: bool) -> Result<Screen, String> {
        let failed = |error: &dyn std::fmt::Display| {
            format!(
                "there is nothing to draw on: {error}; run it in an X session, as xscreensaver does"
            )
        };
        let (connection, at) = RustConnection::connect(None).map_err(|error| failed(&error))?;
        let number =
            window.map(|text| number(text).ok_or(format!("{text:?} is no window's number")));
        let number = number.transpose()?;
        open(connection, at, number, root).map_err(|error| failed(&error))
    }

    /// Draws what the worker said last; false once the window is gone.
    pub fn show(&mut self, view: Option<&SaverView>, seconds: f64) -> bool {
        self.draw(view, seconds).is_ok()
    }

    fn draw(&mut self, view: Option<&SaverView>, seconds: f64) -> Result<(), Failed> {
        while let Some(event) = self.connection.poll_for_event()? {
            match event {
                Event::DestroyNotify(_) => return Err("the window is gone".into()),
                Event::Error(error) => return Err(format!("{error:?}").into()),
                Event::ConfigureNotify(event) => self.resize(event.width, event.height)?,
                _ => {}
            }
        }
        self.sky()?;
        let done = view.map_or(0, |view| view.done);
        self.hedge(done, seconds)?;
        let running = view.map_or(&[][..], |view| &view.running);
        for (number, label) in running.iter().enumerate() {
            self.firefly(number, running.len(), label, seconds)?;
        }
        self.words(view, seconds)?;
        let (width, height) = self.size;
        self.connection
            .copy_area(self.pixmap, self.window, self.gc, 0, 0, 0, 0, width, height)?;
        // Waits for the server: no more pictures are made than are shown.
        self.connection.sync()?;
        Ok(())
    }

    fn resize(&mut self, width: u16, height: u16) -> Result<(), Failed> {
        if (width, height) != self.size && width > 0 && height > 0 {
            self.connection.free_pixmap(self.pixmap)?;
            self.size = (width, height);
            self.pixmap = pixmap(&self.connection, self.window, self.size)?;
        }
        Ok(())
    }

    fn ink(&self, colour: u32) -> Result<(), Failed> {
        self.connection
            .change_gc(self.gc, &ChangeGCAux::new().foreground(colour))?;
        Ok(())
    }

    fn sky(&self) -> Result<(), Failed> {
        let (width, height) = self.size;
        for band in 0..BANDS {
            let part = u32::from(band) * 40 / u32::from(BANDS);
            self.ink((part / 3) << 16 | (part / 2) << 8 | (24 + part))?;
            let (top, end) = (height / BANDS * band, height / BANDS * (band + 1));
            let end = if band + 1 == BANDS { height } else { end };
            let band = Rectangle {
                x: 0,
                y: top as i16,
                width,
                height: end - top,
            };
            self.connection
                .poly_fill_rectangle(self.pixmap, self.gc, &[band])?;
        }
        Ok(())
    }

    /// Leaves in six greens, each moving a little in the wind. More of them with every task done, ever slower.
    fn hedge(&self, done: u64, seconds: f64) -> Result<(), Failed> {
        let (width, height) = (f64::from(self.size.0), f64::from(self.size.1));
        let grown = (1.0 + done as f64).ln() * 160.0;
        let count = (LEAVES_MIN + grown as u64).min(LEAVES_MAX);
        let tall = height * (0.12 + 0.25 * count as f64 / LEAVES_MAX as f64);
        for (shade, green) in GREENS.iter().enumerate() {
            let mine = (0..count).filter(|leaf| *leaf as usize % GREENS.len() == shade);
            let leaves: Vec<Arc> = mine
                .map(|leaf| {
                    let (a, b, c) = (random(leaf, 1), random(leaf, 2), random(leaf, 3));
                    let sway = (seconds * (0.4 + c) + a * TAU).sin() * 3.0;
                    let up = tall * b * (0.7 + 0.3 * (a * 9.0).sin());
                    let size = 14.0 + 26.0 * c;
                    circle(a * width + sway, height - up, size, size * 0.6)
                })
                .collect();
            self.ink(*green)?;
            self.connection
                .poly_fill_arc(self.pixmap, self.gc, &leaves)?;
        }
        Ok(())
    }

    /// A light that wanders above the hedge, with the name of its task.
    fn firefly(&self, number: usize, of: usize, label: &str, seconds: f64) -> Result<(), Failed> {
        let (width, height) = (f64::from(self.size.0), f64::from(self.size.1));
        let (a, b) = (random(number as u64, 7), random(number as u64, 8));
        let lane = (number as f64 + 0.5) / of.max(1) as f64;
        let x = width * (0.08 + 0.78 * lane)
            + (seconds * (0.2 + 0.2 * a) + a * TAU).sin() * width * 0.05;
        let y =
            height * (0.25 + 0.3 * b) + (seconds * (0.3 + 0.2 * b) + b * TAU).sin() * height * 0.08;
        let glow = 0.6 + 0.4 * (seconds * 2.0 + a * TAU).sin();
        for (size, light) in [(22.0, 40.0), (12.0, 110.0), (6.0, 255.0)] {
            let light = (light * glow) as u32;
            self.ink((light << 16) | ((light * 9 / 10) << 8) | (light / 4))?;
            self.connection
                .poly_fill_arc(self.pixmap, self.gc, &[circle(x, y, size, size)])?;
        }
        self.ink(0x00b8_b48a)?;
        self.text(x + 14.0, y + 5.0, label)
    }

    fn words(&self, view: Option<&SaverView>, seconds: f64) -> Result<(), Failed> {
        let (width, height) = (f64::from(self.size.0), f64::from(self.size.1));
        // They wander, so that no screen keeps their trace.
        let x = width * (0.06 + 0.04 * (seconds / 41.0).sin());
        let y = height * (0.10 + 0.04 * (seconds / 29.0).cos());
        let lines = match view {
            None => vec![
                "Hedgerow".to_owned(),
                "no worker runs on this machine".to_owned(),
            ],
            Some(view) => vec![
                "Hedgerow".to_owned(),
                match (view.connected, view.running.len()) {
                    (false, _) => "looking for the grid".to_owned(),
                    (true, 0) => "ready for the grid".to_owned(),
                    (true, 1) => "1 task runs here".to_owned(),
                    (true, count) => format!("{count} tasks run here"),
                },
                format!(
                    "{} done, {} of computing given",
                    view.done,
                    spent(view.cpu_ms)
                ),
            ],
        };
        for (number, line) in lines.iter().enumerate() {
            self.ink(if number == 0 {
                0x00e8_e4c8
            } else {
                0x0090_a090
            })?;
            self.text(x, y + 24.0 * number as f64, line)?;
        }
        Ok(())
    }

    fn text(&self, x: f64, y: f64, text: &str) -> Result<(), Failed> {
        // The server's own fonts know Latin letters; a request takes 255 of them.
        let letter = |c: char| {
            if c.is_ascii_graphic() || c == ' ' {
                c as u8
            } else {
                b'?'
            }
        };
        let bytes: Vec<u8> = text.chars().take(120).map(letter).collect();
        // Text items of the protocol: length, shift, letters.
        let mut item = vec![bytes.len() as u8, 0];
        item.extend(bytes);
        self.connection
            .poly_text8(self.pixmap, self.gc, x as i16, y as i16, &item)?;
        Ok(())
    }
}

fn open(
    connection: RustConnection,
    at: usize,
    number: Option<u32>,
    on_root: bool,
) -> Result<Screen, Failed> {
    let screen = connection.setup().roots[at].clone();
    let window = match number {
        Some(window) => window,
        None if on_root => screen.root,
        None => {
            let window = connection.generate_id()?;
            let aux = CreateWindowAux::new().background_pixel(screen.black_pixel);
            let (depth, class) = (x11rb::COPY_DEPTH_FROM_PARENT, WindowClass::INPUT_OUTPUT);
            connection.create_window(
                depth,
                window,
                screen.root,
                0,
                0,
                800,
                500,
                0,
                class,
                x11rb::COPY_FROM_PARENT,
                &aux,
            )?;
            connection.map_window(window)?;
            window
        }
    };
    let events = x11rb::protocol::xproto::ChangeWindowAttributesAux::new()
        .event_mask(EventMask::STRUCTURE_NOTIFY);
    connection
        .change_window_attributes(window, &events)?
        .check()?;
    let about = connection.get_geometry(window)?.reply()?;
    let size = (about.width.max(1), about.height.max(1));
    let gc = connection.generate_id()?;
    connection.create_gc(gc, window, &CreateGCAux::new().graphics_exposures(0))?;
    for name in FONTS {
        let font: Font = connection.generate_id()?;
        if connection.open_font(font, name.as_bytes())?.check().is_ok() {
            connection.change_gc(gc, &ChangeGCAux::new().font(font))?;
            break;
        }
    }
    let pixmap = pixmap(&connection, window, size)?;
    Ok(Screen {
        connection,
        window,
        gc,
        size,
        pixmap,
    })
}

fn pixmap(connection: &RustConnection, window: Window, size: (u16, u16)) -> Result<Pixmap, Failed> {
    let depth = connection.get_geometry(window)?.reply()?.depth;
    let pixmap = connection.generate_id()?;
    connection
        .create_pixmap(depth, pixmap, window, size.0, size.1)?
        .check()?;
    Ok(pixmap)
}

/// A window's number as people and programs write it: `0x2a` or `42`.
fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn circle(x: f64, y: f64, width: f64, height: f64) -> Arc {
    Arc {
        x: (x - width / 2.0) as i16,
        y: (y - height / 2.0) as i16,
        width: width as u16,
        height: height as u16,
        angle1: 0,
        angle2: 360 * 64,
    }
}

/// The same number between 0 and 1 for the same arguments, always.
fn random(number: u64, salt: u64) -> f64 {
    let mut state = (number * 64 + salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state ^= state >> 29;
    state = state.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (state >> 11) as f64 / (1u64 << 53) as f64
}

/// CPU time for people: `3 h 20 min`, `45 s`.
fn spent(ms: u64) -> String {
    let seconds = ms / 1000;
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}
