//! The program of the deep zoom example: draws one tile of a picture of the Mandelbrot set, or
//! joins finished tiles. Hedgerow knows nothing of it and runs it as it would any program.
//!
//! The same arguments give the same bytes on every machine.

mod dd;
mod fractal;
mod join;
mod layout;
mod palette;
mod picture;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dd::Dd;
use fractal::{Orbit, View};
use layout::Layout;

/// How to call the program; printed when a call is not understood.
const USAGE: &str = "\
usage: deepzoom render --index I --of N [--scale S] [--re X --im Y --width W --steps N]
       deepzoom assemble --out FILE
render    draws tile I (from 0) of N into tile-I.png in this folder;
          S from 0.01 to 4 makes the picture smaller or larger
assemble  joins the folder's tile-0.png, tile-1.png, … into one picture";

/// Runs the program with the arguments of this process. An error is one sentence on standard error: bad arguments, or
/// a file that could not be read or written. A file that was being written then may be left behind incomplete.
pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("deepzoom: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<(), String> {
    match args.split_first() {
        Some((command, rest)) if command == "render" => render(rest),
        Some((command, rest)) if command == "assemble" => assemble(rest),
        _ => Err(USAGE.to_owned()),
    }
}

fn render(args: &[String]) -> Result<(), String> {
    let mut index = None;
    let mut tiles = None;
    let mut scale = 1.0;
    let (mut re, mut im) = (VIEW_RE.to_owned(), VIEW_IM.to_owned());
    let mut width = VIEW_WIDTH;
    let mut steps_max = VIEW_STEPS_MAX;
    for (name, value) in pairs(args)? {
        match name {
            "--index" => index = Some(number::<u32>(name, value)?),
            "--of" => tiles = Some(number::<u32>(name, value)?),
            "--scale" => scale = number::<f64>(name, value)?,
            "--re" => re = value.to_owned(),
            "--im" => im = value.to_owned(),
            "--width" => width = number::<f64>(name, value)?,
            "--steps" => steps_max = number::<u32>(name, value)?.clamp(1, STEPS_LIMIT),
            _ => return Err(format!("`{name}` is not an option of render\n{USAGE}")),
        }
    }
    let index = index.ok_or_else(|| format!("--index is missing\n{USAGE}"))?;
    let tiles = tiles.ok_or_else(|| format!("--of is missing\n{USAGE}"))?;
    let layout = Layout::new(tiles, scale)?;
    let area = layout.tile(index)?;
    let centre = (Dd::parse(&re)?, Dd::parse(&im)?);
    let orbit = Orbit::of(&View {
        centre,
        width,
        steps_max,
    });
    let (pixels, steps) = picture::draw(&orbit, width, &layout, &area);
    let path = PathBuf::from(format!("tile-{index}.png"));
    join::write_png(&path, area.width, area.height, &pixels)?;
    println!(
        "tile {index} of {tiles}: {}x{} pixels, {steps} steps",
        area.width, area.height
    );
    Ok(())
}

fn assemble(args: &[String]) -> Result<(), String> {
    let mut out = None;
    for (name, value) in pairs(args)? {
        match name {
            "--out" => out = Some(value),
            _ => return Err(format!("`{name}` is not an option of assemble\n{USAGE}")),
        }
    }
    let out = Path::new(out.ok_or_else(|| format!("--out is missing\n{USAGE}"))?);
    let (width, height, pixels) = join::join(Path::new("."))?;
    join::write_png(out, width, height, &pixels)?;
    println!("{}: {width}x{height} pixels", out.display());
    Ok(())
}

/// The arguments as pairs of a name and its value.
fn pairs(args: &[String]) -> Result<Vec<(&str, &str)>, String> {
    args.chunks(2)
        .map(|pair| match pair {
            [name, value] => Ok((name.as_str(), value.as_str())),
            _ => Err(format!("`{}` needs a value\n{USAGE}", pair[0])),
        })
        .collect()
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("{name}: `{value}` is not a number that fits\n{USAGE}"))
}

/// A small copy of the whole set, of period 998, deep in the valley between its two largest discs.
const VIEW_RE: &str = "-0.7436438870371588707780645434936426";
const VIEW_IM: &str = "0.1318259042053122928210973548747673";
const VIEW_WIDTH: f64 = 2.8e-14;
const VIEW_STEPS_MAX: u32 = 500_000;

/// A bound on the work and the memory that one call can ask for.
const STEPS_LIMIT: u32 = 10_000_000;
