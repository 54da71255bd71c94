//! What is to be run: a job file, or a program with what it needs.

use super::{bytes, cpus, label};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use hedge_model::spec::{Network, Redundancy};
use std::path::PathBuf;

/// What to run: a job file or a program.
#[derive(Args, Clone, Debug, Default)]
pub struct Source {
    /// Job file: TOML, or JSON with the ending .json; - for standard input
    #[arg(
        value_name = "JOB",
        required_unless_present = "program",
        conflicts_with = "program"
    )]
    pub job: Option<PathBuf>,
    /// Set a parameter of the job file, in the place of its default there. Repeatable
    #[arg(long, value_name = "NAME=VALUE", conflicts_with = "program", value_parser = label)]
    pub set: Vec<(String, String)>,
    /// What the program needs.
    #[command(flatten)]
    pub needs: Needs,
    /// Program and arguments instead of a job file
    #[arg(last = true, value_name = "PROGRAM")]
    pub program: Vec<String>,
}

/// What a program on the command line needs. A job file says all of it itself.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Options of a program")]
pub struct Needs {
    /// Name of the job [default: the program's]
    #[arg(long, value_name = "NAME", requires = "program", conflicts_with = "job",
        value_parser = NonEmptyStringValueParser::new())]
    pub name: Option<String>,
    /// Run the program once for each index; `${index}` in its arguments and HEDGE_INDEX tell which
    #[arg(
        long,
        value_name = "FROM..TO",
        requires = "program",
        conflicts_with = "job"
    )]
    pub array: Option<String>,
    /// Run the program once for each line of this file, which '${line}' in its arguments stands for; - for standard
    /// input
    #[arg(
        long,
        value_name = "FILE",
        requires = "program",
        conflicts_with_all = ["job", "array"]
    )]
    pub each: Option<String>,
    /// Send this file, folder or glob; it lies under the same name beside the program. Repeatable
    #[arg(long, value_name = "PATH", requires = "program", conflicts_with = "job",
        value_parser = NonEmptyStringValueParser::new())]
    pub input: Vec<String>,
    /// Show the program this folder as it is here, at its own path or at another one, read-only. Repeatable
    #[arg(long, value_name = "FOLDER[:PATH]", requires = "program", conflicts_with = "job",
        value_parser = NonEmptyStringValueParser::new())]
    pub mount: Vec<String>,
    /// Bring this file, folder (ending in /) or glob that the program leaves. Repeatable
    #[arg(long, value_name = "PATH", requires = "program", conflicts_with = "job",
        value_parser = NonEmptyStringValueParser::new())]
    pub output: Vec<String>,
    /// Set an environment variable; NAME alone takes its value from here. Repeatable
    #[arg(long, value_name = "NAME=VALUE", requires = "program", conflicts_with = "job", value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// Give the program this file to read on its standard input; - sends the standard input of this command
    #[arg(
        long,
        value_name = "FILE",
        requires = "program",
        conflicts_with = "job"
    )]
    pub stdin: Option<String>,
    /// CPUs that the program takes [default: 1]
    #[arg(long, value_name = "N", requires = "program", conflicts_with = "job", value_parser = cpus)]
    pub cpus: Option<u64>,
    /// Memory that the program takes, like '4 GiB'; it is ended if it uses more
    #[arg(long, value_name = "BYTES", requires = "program", conflicts_with = "job", value_parser = bytes)]
    pub memory: Option<u64>,
    /// GPUs that the program takes
    #[arg(long, value_name = "N", requires = "program", conflicts_with = "job")]
    pub gpus: Option<u32>,
    /// Attempts after the first that fails by the program's own fault [default: 2, with --uses-share 0]
    #[arg(long, value_name = "N", requires = "program", conflicts_with = "job")]
    pub retries: Option<u32>,
    /// Whether the program runs again when it was lost with its worker [default: true, with --uses-share and without
    /// --retries false]
    #[arg(
        long,
        value_name = "BOOL",
        requires = "program",
        conflicts_with = "job"
    )]
    pub rerun: Option<bool>,
    /// Which redundant attempts the program may get [default: auto; none if its output is shown while it runs, or with
    /// --uses-share]
    #[arg(long, value_name = "WHICH", requires = "program", conflicts_with = "job", value_parser = redundancy)]
    pub redundancy: Option<Redundancy>,
    /// Use the folder that workers share under this name; only they run the program. Repeatable
    #[arg(
        long,
        value_name = "NAME",
        requires = "program",
        conflicts_with = "job"
    )]
    pub uses_share: Vec<String>,
    /// Start the program in a folder that it uses, by its NAME and a path below it; a relative path of the program means a
    /// file there [default: its scratch directory]
    #[arg(
        long,
        value_name = "NAME[/PATH]",
        requires = "uses_share",
        conflicts_with = "job"
    )]
    pub cwd: Option<String>,
    /// The network that the program needs, and the most that it gets: none, loopback or any [default: what the worker's
    /// owner allows]
    #[arg(long, value_name = "KIND", requires = "program", conflicts_with = "job", value_parser = network)]
    pub network: Option<Network>,
    /// Run the program more than once at the same time; the first to finish wins
    #[arg(long, requires = "program", conflicts_with = "job")]
    pub critical: bool,
}

fn redundancy(text: &str) -> Result<Redundancy, String> {
    word(text, &Redundancy::WORDS)
}

fn network(text: &str) -> Result<Network, String> {
    word(text, &Network::WORDS)
}

/// One of some words.
fn word<T: Copy>(text: &str, words: &[(&str, T, &str)]) -> Result<T, String> {
    let found = words.iter().find(|(word, ..)| *word == text);
    found.map(|(_, value, _)| *value).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, ..)| *word).collect();
        format!("write {}", known.join(", "))
    })
}

/// A variable with its value, or with the one that it has here.
fn variable(text: &str) -> Result<(String, String), String> {
    if text.contains('=') {
        return label(text);
    }
    match std::env::var(text) {
        Ok(value) => Ok((text.to_owned(), value)),
        Err(_) => Err(format!(
            "the variable {text:?} is not set here: write NAME=VALUE"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_without_a_value_takes_the_one_that_it_has_here() {
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert_eq!(variable("A="), Ok(("A".to_owned(), String::new())));
        let path = std::env::var("PATH").unwrap();
        assert_eq!(variable("PATH"), Ok(("PATH".to_owned(), path)));
        assert!(variable("=x").is_err() && variable("HEDGE_NO_SUCH_VARIABLE").is_err());
    }
}
