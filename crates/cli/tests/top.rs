//! `hedge top` on a real terminal: what it shows, its keys, and the terminal afterwards.

mod common;

use common::tasks::Marks;
use common::{Grid, PATIENCE, signal, told, until};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

const ROWS: u16 = 24;
const COLUMNS: u16 = 80;

/// `hedge top` on a terminal of 80 columns and 24 rows.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<vt100::Parser>>,
    pid: PathBuf,
}

impl Terminal {
    fn start(grid: &Grid, folder: &Path) -> Terminal {
        let pid = folder.join("top.pid");
        _ = fs::remove_file(&pid);
        let hedge = env!("CARGO_BIN_EXE_hedge");
        // What the shell prints afterwards shows how the terminal was left.
        let inner = format!(
            "stty cols {COLUMNS} rows {ROWS}; sh -c 'echo $$ > {}; exec {hedge} top'; echo \"ended with $?\"; \
             stty -a | grep -ow -e '-*icanon' -e '-*echo' -e '-*isig' | tr '\\n' ' '",
            pid.display()
        );
        let mut child = grid
            .place
            .program("script")
            .args(["-q", "-e", "-c", &inner, "/dev/null"])
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let keys = child.stdin.take().unwrap();
        let mut out = child.stdout.take().unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(ROWS, COLUMNS, 0)));
        let fed = screen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = out.read(&mut bytes)
                && count > 0
            {
                fed.lock().unwrap().process(&bytes[..count]);
            }
        });
        Terminal {
            child,
            keys,
            screen,
            pid,
        }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    fn await_text(&self, text: &str) {
        let since = Instant::now();
        while !self.text().contains(text) {
            assert!(
                since.elapsed() < PATIENCE,
                "no {text:?} in:\n{}",
                self.text()
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    fn pid(&self) -> u32 {
        until("the command's number", || {
            fs::read_to_string(&self.pid).ok()?.trim().parse().ok()
        })
    }

    /// Waits for the end; the terminal is as it was before.
    fn end(mut self, code: i32) {
        self.await_text(&format!("ended with {code}"));
        until("the shell to end", || self.child.try_wait().unwrap());
        let text = self.text();
        let flags: Vec<&str> = text.split_whitespace().rev().take(3).collect();
        assert!(flags.iter().all(|flag| !flag.starts_with('-')), "{text}");
        let screen = self.screen.lock().unwrap();
        assert!(!screen.screen().alternate_screen(), "{text}");
        assert!(!screen.screen().hide_cursor(), "{text}");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[test]
fn top_shows_the_grid_and_gives_the_terminal_back() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
    fs::write(
        folder.path().join("job.toml"),
        format!("name = \"two steps\"\n{}", marks.task("a", "true", "")),
    )
    .unwrap();
    let mut top = Terminal::start(&grid, folder.path());
    top.await_text("no jobs yet");
    grid.place.submit("job.toml");
    top.await_text("two steps");
    top.press("\r");
    top.await_text("job 1 two steps");
    top.await_text("running");
    marks.let_go("a");
    top.await_text("1 done");
    top.await_text("won");
    top.press("2");
    top.await_text("MACHINE");
    top.press("3");
    top.await_text("begins to look");
    top.press("q");
    top.end(0);
    for end in ["\u{3}", "-TERM", "-HUP"] {
        let mut top = Terminal::start(&grid, folder.path());
        top.await_text("two steps");
        match end {
            "\u{3}" => top.press(end),
            name => signal(top.pid(), name),
        }
        top.end(0);
    }
}

#[test]
fn top_without_a_terminal_says_what_to_use() {
    let folder = tempfile::tempdir().unwrap();
    let place = common::Place::here(folder.path());
    let output = place.call(&["top"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("hedge watch"), "{}", told(&output));
    // It is not in the way of other programs' help.
    let help = Command::new(env!("CARGO_BIN_EXE_hedge"))
        .args(["top", "--help"])
        .output()
        .unwrap();
    assert!(help.status.success());
}
