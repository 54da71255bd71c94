//! The jobs that clients submit, each with what an undisturbed run gives, byte for byte.

use super::dice::Dice;
use anyhow::Result;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// How a job has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Done, with these files.
    Files(BTreeMap<String, Vec<u8>>),
    /// Done, with one file whose lines name the attempts that made it: the winner of task 0, then its own.
    Winners(String),
    /// Failed.
    Failed,
    /// Cancelled by its client soon after it was accepted; done, where that was too late.
    Cancelled,
}

/// A job to submit.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its kind, for the figures.
    pub shape: &'static str,
    /// The job file.
    pub text: String,
    /// Files beside it.
    pub inputs: BTreeMap<&'static str, Vec<u8>>,
    /// How it has to end.
    pub expected: Expected,
}

impl Job {
    /// Some job; `token` is in all that it makes, so that no two jobs have the same results.
    pub fn draw(dice: &mut Dice, token: &str) -> Job {
        match dice.among(0..8) {
            0 => array(dice, token),
            1 => chain(dice, token),
            2 => input(dice, token, "inline-input", 100),
            3 => input(dice, token, "blob-input", 3_000),
            4 => winners(),
            5 => failing(),
            6 => cancelled(),
            _ => noop(dice),
        }
    }

    /// Writes the job file and its inputs into a folder.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("job.toml"), &self.text)?;
        for (name, bytes) in &self.inputs {
            fs::write(folder.join(name), bytes)?;
        }
        Ok(())
    }
}

fn job(shape: &'static str, text: String, expected: Expected) -> Job {
    Job {
        shape,
        text,
        inputs: BTreeMap::new(),
        expected,
    }
}

fn task(id: &str, script: &str, more: &str) -> String {
    format!("[[task]]\nid = {id:?}\ncommand = [\"sh\", \"-c\", {script:?}]\nretries = 4\n{more}\n")
}

fn qos(dice: &mut Dice) -> String {
    let redundancy = ["none", "critical"][dice.among(0..2)];
    format!("[qos]\nredundancy = {redundancy:?}\ncopies = 2\n")
}

fn pause(dice: &mut Dice) -> String {
    let tenths = dice.among(0..12);
    format!("sleep {}.{}", tenths / 10, tenths % 10)
}

fn files<const N: usize>(all: [(&str, Vec<u8>); N]) -> Expected {
    let all = all.map(|(name, bytes)| (name.to_owned(), bytes));
    Expected::Files(all.into())
}

fn array(dice: &mut Dice, token: &str) -> Job {
    let count = dice.among(2..9);
    let script = format!(
        "{}; echo $HEDGE_INDEX {token} > out-$HEDGE_INDEX",
        pause(dice)
    );
    let more = format!("array = \"0..{count}\"\noutputs = [\"out-${{index}}\"]");
    let made = |index| {
        (
            format!("out-{index}"),
            format!("{index} {token}\n").into_bytes(),
        )
    };
    let expected = Expected::Files((0..count).map(made).collect());
    job("array", qos(dice) + &task("a", &script, &more), expected)
}

/// Data goes from task to task, and is longer than what travels within reports.
fn chain(dice: &mut Dice, token: &str) -> Job {
    let lines = dice.among(10..6_000);
    let text = qos(dice)
        + &task(
            "first",
            &format!("{}; seq 1 {lines} | sed 's/$/ {token}/' > a", pause(dice)),
            "critical = true\noutputs = [\"a\"]",
        )
        + &task(
            "turn",
            &format!("{}; tac a > b", pause(dice)),
            "inputs = [{ task = \"first\" }]\noutputs = [\"b\"]",
        )
        + &task(
            "last",
            "cat a b > sum",
            "inputs = [{ task = \"first\" }, { task = \"turn\" }]\noutputs = [\"sum\"]",
        );
    let up = (1..=lines).map(|number| format!("{number} {token}\n"));
    let sum: String = up.clone().chain(up.rev()).collect();
    job("chain", text, files([("sum", sum.into_bytes())]))
}

fn input(dice: &mut Dice, token: &str, shape: &'static str, lines: usize) -> Job {
    let text: String = (0..lines)
        .map(|_| format!("{:016x} {token}\n", dice.next()))
        .collect();
    let script = format!(
        "{}; tr a-f A-F < data > big; wc -c < data > size",
        pause(dice)
    );
    let more = "inputs = [\"data\"]\noutputs = [\"big\", \"size\"]";
    let big: String = text.chars().map(raise).collect();
    let size = format!("{}\n", text.len());
    let expected = files([("big", big.into_bytes()), ("size", size.into_bytes())]);
    let mut job = job(shape, qos(dice) + &task("t", &script, more), expected);
    job.inputs.insert("data", text.into_bytes());
    job
}

fn raise(letter: char) -> char {
    match letter {
        'a'..='f' => letter.to_ascii_uppercase(),
        other => other,
    }
}

/// Its results say which attempts made them, so that two that were both taken would show.
fn winners() -> Job {
    let text = "[qos]\nredundancy = \"critical\"\ncopies = 3\n".to_owned()
        + &task(
            "first",
            "echo $HEDGE_ATTEMPT > a",
            "critical = true\noutputs = [\"a\"]",
        )
        + &task(
            "second",
            "cp a b; echo $HEDGE_ATTEMPT >> b",
            "critical = true\ninputs = [{ task = \"first\" }]\noutputs = [\"b\"]",
        );
    job("winners", text, Expected::Winners("b".into()))
}

fn failing() -> Job {
    let text = task("good", "true", "")
        + "[[task]]\nid = \"bad\"\ncommand = [\"sh\", \"-c\", \"exit 3\"]\ndeps = [\"good\"]\nretries = 1\n";
    job("failing", text, Expected::Failed)
}

fn cancelled() -> Job {
    let text = task("long", "sleep 20", "array = \"0..3\"");
    job("cancelled", text, Expected::Cancelled)
}

fn noop(dice: &mut Dice) -> Job {
    let more = format!("array = \"0..{}\"", dice.among(20..60));
    job("many", task("n", "true", &more), files([]))
}
