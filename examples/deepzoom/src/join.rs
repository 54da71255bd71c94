//! Reads, joins and writes PNG files.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;

use super::layout;

/// The pixels of a joined picture, at most: a bound for memory against mistaken tiles.
const PIXELS_MAX: u64 = 100_000_000;

struct Tile {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

/// Writes pixels of three bytes each.
///
/// # Errors
/// The file could not be written; it may be there, incomplete.
pub fn write_png(path: &Path, width: u32, height: u32, pixels: &[u8]) -> Result<(), String> {
    let failed = |reason: String| format!("cannot write {}: {reason}", path.display());
    let file = File::create(path).map_err(|error| failed(error.to_string()))?;
    let mut sink = BufWriter::new(file);
    let mut encoder = png::Encoder::new(&mut sink, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder
        .write_header()
        .map_err(|error| failed(error.to_string()))?;
    writer
        .write_image_data(pixels)
        .map_err(|error| failed(error.to_string()))?;
    writer.finish().map_err(|error| failed(error.to_string()))?;
    sink.flush().map_err(|error| failed(error.to_string()))
}

/// Joins `tile-0.png`, `tile-1.png` and so on of a folder: width, height and pixels of the whole.
///
/// # Errors
/// No tiles, one missing among them or unreadable, or tiles that do not fit together.
pub fn join(folder: &Path) -> Result<(u32, u32, Vec<u8>), String> {
    let count = count_tiles(folder)?;
    let (columns, rows) = layout::grid(count)?;
    let mut pixels = Vec::new();
    let (mut width, mut height) = (0, 0);
    for row in 0..rows {
        let strip: Vec<Tile> = (row * columns..(row + 1) * columns)
            .map(|index| read_tile(folder, index))
            .collect::<Result<_, _>>()?;
        let strip_width: u32 = strip.iter().map(|tile| tile.width).sum();
        let strip_height = strip[0].height;
        if strip.iter().any(|tile| tile.height != strip_height) || (row > 0 && strip_width != width)
        {
            return Err(format!(
                "the tiles of row {row} do not fit together: draw all with the same --of and --scale"
            ));
        }
        width = strip_width;
        height += strip_height;
        for line in 0..strip_height as usize {
            for tile in &strip {
                let bytes = tile.width as usize * 3;
                pixels.extend_from_slice(&tile.pixels[line * bytes..(line + 1) * bytes]);
            }
        }
    }
    Ok((width, height, pixels))
}

/// How many tiles the folder's names speak of; whether all are there shows when they are read.
fn count_tiles(folder: &Path) -> Result<u32, String> {
    let failed = |error| format!("cannot list {}: {error}", folder.display());
    let mut count = 0;
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let index = name
            .to_str()
            .and_then(|name| name.strip_prefix("tile-")?.strip_suffix(".png"));
        if let Some(index) = index.and_then(|index| index.parse::<u32>().ok()) {
            count = count.max(index.saturating_add(1));
        }
    }
    if count == 0 {
        return Err(format!(
            "no tile-0.png in {}: draw the tiles first",
            folder.display()
        ));
    }
    Ok(count)
}

fn read_tile(folder: &Path, index: u32) -> Result<Tile, String> {
    let path = folder.join(format!("tile-{index}.png"));
    let failed = |reason: String| format!("cannot read {}: {reason}", path.display());
    let file = File::open(&path).map_err(|error| failed(error.to_string()))?;
    let mut reader = png::Decoder::new(BufReader::new(file))
        .read_info()
        .map_err(|error| failed(error.to_string()))?;
    let (width, height) = (reader.info().width, reader.info().height);
    if reader.output_color_type() != (png::ColorType::Rgb, png::BitDepth::Eight) {
        return Err(failed("it is not a picture of 3 bytes a pixel".to_owned()));
    }
    if u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(failed(format!(
            "{width}x{height} pixels are more than a tile can have"
        )));
    }
    let mut pixels = vec![0; width as usize * height as usize * 3];
    reader
        .next_frame(&mut pixels)
        .map_err(|error| failed(error.to_string()))?;
    Ok(Tile {
        width,
        height,
        pixels,
    })
}

#[cfg(test)]
mod tests {
    use super::super::fractal::{Orbit, View};
    use super::super::layout::Layout;
    use super::super::{dd::Dd, picture};
    use super::*;

    /// Draws a small picture in `tiles` tiles into a folder of its own and joins them.
    fn drawn_in(tiles: u32, skip: Option<u32>) -> Result<(u32, u32, Vec<u8>), String> {
        let folder =
            std::env::temp_dir().join(format!("tiles-{}-{tiles}-{skip:?}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for the test");
        let centre = (Dd::from(-0.6), Dd::from(0.1));
        let orbit = Orbit::of(&View {
            centre,
            width: 3.0,
            steps_max: 100,
        });
        let layout = Layout::new(tiles, 0.03).expect("a good layout");
        for index in (0..tiles).filter(|index| Some(*index) != skip) {
            let area = layout.tile(index).expect("within range");
            let (pixels, _) = picture::draw(&orbit, 3.0, &layout, &area);
            let path = folder.join(format!("tile-{index}.png"));
            write_png(&path, area.width, area.height, &pixels).expect("a written tile");
        }
        let joined = join(&folder);
        std::fs::remove_dir_all(&folder).expect("a removed folder");
        joined
    }

    #[test]
    fn the_picture_does_not_depend_on_its_tiles() {
        let whole = drawn_in(1, None).expect("a picture");
        assert_eq!((whole.0, whole.1), (38, 29));
        assert!(whole.2.iter().any(|byte| *byte > 100) && whole.2.iter().any(|byte| *byte < 20));
        assert!(drawn_in(12, None).expect("a picture") == whole);
        assert!(drawn_in(35, None).expect("a picture") == whole);
    }

    #[test]
    fn a_missing_tile_is_named() {
        let error = drawn_in(12, Some(5)).expect_err("a gap");
        assert!(error.contains("tile-5.png"), "{error}");
    }
}
