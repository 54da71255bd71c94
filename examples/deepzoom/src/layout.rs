//! How a picture is cut into tiles.

/// The whole picture's size at scale 1, in pixels.
const WIDTH: f64 = 1280.0;
const HEIGHT: f64 = 960.0;

/// A picture and its tiles, in rows from the top left.
#[derive(Debug)]
pub struct Layout {
    /// The picture's width in pixels.
    pub width: u32,
    /// The picture's height in pixels.
    pub height: u32,
    columns: u32,
    rows: u32,
}

/// The place of one tile in the picture, in pixels from the top left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Area {
    /// From the left edge of the picture.
    pub left: u32,
    /// From its upper edge.
    pub top: u32,
    /// Columns of pixels.
    pub width: u32,
    /// Rows of pixels.
    pub height: u32,
}

impl Layout {
    /// A picture of `scale` times the usual size in `tiles` tiles.
    ///
    /// # Errors
    /// A number of tiles or a scale that makes no sense, or tiles of less than a pixel.
    pub fn new(tiles: u32, scale: f64) -> Result<Layout, String> {
        if !(0.01..=4.0).contains(&scale) {
            return Err(format!("--scale is {scale}; choose one from 0.01 to 4"));
        }
        let (columns, rows) = grid(tiles)?;
        let width = (WIDTH * scale).round() as u32;
        let height = (HEIGHT * scale).round() as u32;
        if columns > width || rows > height {
            return Err(format!(
                "{tiles} tiles are more than a picture of {width}x{height} pixels holds; choose fewer tiles or a larger --scale"
            ));
        }
        Ok(Layout {
            width,
            height,
            columns,
            rows,
        })
    }

    /// The place of tile `index`.
    ///
    /// # Errors
    /// There is no such tile.
    pub fn tile(&self, index: u32) -> Result<Area, String> {
        let tiles = self.columns * self.rows;
        if index >= tiles {
            return Err(format!(
                "there is no tile {index}: the last of {tiles} is {}",
                tiles - 1
            ));
        }
        let (column, row) = (index % self.columns, index / self.columns);
        let left = edge(column, self.columns, self.width);
        let top = edge(row, self.rows, self.height);
        Ok(Area {
            left,
            top,
            width: edge(column + 1, self.columns, self.width) - left,
            height: edge(row + 1, self.rows, self.height) - top,
        })
    }
}

/// Columns and rows for a number of tiles: of all pairs with that product the one whose tiles are
/// nearest to squares.
///
/// # Errors
/// Zero tiles, or more than 10,000.
pub fn grid(tiles: u32) -> Result<(u32, u32), String> {
    if !(1..=10_000).contains(&tiles) {
        return Err(format!("{tiles} tiles; choose from 1 to 10000"));
    }
    let unsquare = |columns: u32| {
        let aspect = (WIDTH / f64::from(columns)) / (HEIGHT / f64::from(tiles / columns));
        if aspect < 1.0 { 1.0 / aspect } else { aspect }
    };
    let columns = (1..=tiles)
        .filter(|columns| tiles.is_multiple_of(*columns))
        .min_by(|a, b| unsquare(*a).total_cmp(&unsquare(*b)))
        .unwrap_or(tiles);
    Ok((columns, tiles / columns))
}

/// Where the line number `line` of `lines` equal parts falls, in whole pixels.
fn edge(line: u32, lines: u32, length: u32) -> u32 {
    (u64::from(line) * u64::from(length) / u64::from(lines)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_pixel_once() {
        for (tiles, scale) in [(1, 1.0), (7, 0.031), (96, 1.0), (108, 0.05), (9, 0.02)] {
            let layout = Layout::new(tiles, scale).expect("a good layout");
            let mut seen = vec![0; (layout.width * layout.height) as usize];
            for index in 0..tiles {
                let area = layout.tile(index).expect("within range");
                for y in area.top..area.top + area.height {
                    for x in area.left..area.left + area.width {
                        seen[(y * layout.width + x) as usize] += 1;
                    }
                }
            }
            assert!(seen.iter().all(|times| *times == 1), "{tiles} at {scale}");
            assert!(layout.tile(tiles).is_err());
        }
    }

    #[test]
    fn senseless_layouts_are_refused() {
        for (tiles, scale) in [
            (0, 1.0),
            (10_001, 1.0),
            (4, 0.0),
            (4, f64::NAN),
            (4, 5.0),
            (9973, 0.1),
        ] {
            assert!(Layout::new(tiles, scale).is_err(), "{tiles} at {scale}");
        }
        assert_eq!(grid(108), Ok((12, 9)));
    }
}
