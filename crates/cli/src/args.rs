//! The command line: every command, its arguments and its help.

pub mod grid;

mod gateway;
mod jobs;
mod peers;
mod relay;
mod source;
mod ticket;
mod views;

pub use gateway::{Gateway, Ui};
pub use jobs::{Extend, Job, JobName, One, Open, OpenJob, Release, Several};
pub use peers::{Supervisor, Worker};
pub use relay::Relay;
pub use source::{Needs, Source};
pub use ticket::{MakeTicket, RevokeTicket, Ticket};
pub use views::{Export, Top, Watch};

use crate::commands;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use hedge_model::resources::OWN;
use hedge_model::units::{parse_bytes, parse_duration};
use std::path::PathBuf;
use std::time::Duration;

pub use grid::{Config, ConfigDo, Journal, Members, MembersDo, Revoke};

/// `hedge` and what follows.
#[derive(Debug, Parser)]
#[command(
    name = "hedge",
    version,
    about = "Runs jobs on unreliable machines and finishes them on time.",
    after_help = AFTER_HELP,
    max_term_width = 100,
    disable_help_subcommand = true,
    propagate_version = false
)]
pub struct Cli {
    /// Print JSON instead of text; its fields are stable
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,
    /// Folder for this peer's identity and data [default: hedgerow in the XDG state folder]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Everywhere")]
    pub dir: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  hedge run examples/deepzoom/job.toml     run a job on this machine, nothing to set up
  hedge run --array 0..8 -- sh -c 'echo $HEDGE_INDEX'
  hedge supervisor                         start a grid; `hedge ticket worker` lets machines join
  hedge submit --wait job.toml             run a job on the grid

Exit codes: 0 done, 1 the job failed, 2 bad arguments or job file, 3 the grid cannot be reached,
4 not allowed, 5 cancelled, 70 a bug in hedge.";

/// What `hedge` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a job on this machine alone: supervisor and workers start, run it, and stop
    #[command(after_help = "\
Examples:
  hedge run job.toml
  hedge run --workers 8 --out pictures job.toml
  hedge run -- ./simulate --seed 7
  hedge run --array 0..100 -- ./simulate --seed '${index}'
  ls *.csv | hedge run --each - --input '${line}' --output '${line}.sum' -- ./total '${line}'
  hedge run --set rate=0.01 job.toml
  hedge run --input table.csv --output fit.txt --memory '2 GiB' -- ./fit table.csv
  sort -u names | hedge run --stdin - -- wc -l
  generate-job | hedge run -

Results go to --out, where they replace files of the same name, else to a new folder NAME-results
here (NAME-results-2 and so on: results of an earlier run are never touched). A program behind `--` that lies outside the system's folders is sent
along; what it prints is printed here. Ctrl-C cancels the job; what its finished tasks left is written.
The grid ends with the command: a file that cannot be written to its place goes to a folder that is printed.")]
    Run(Run),
    /// Start a supervisor: it accepts jobs and assigns their tasks
    #[command(after_help = "\
Examples:
  hedge supervisor
  hedge supervisor --listen 0.0.0.0:7433     reachable at a fixed port
  hedge ticket worker                        then let workers join
  hedge ticket supervisor --out FILE         then let further supervisors join, on other machines:
  hedge supervisor --join FILE               three or five of them outlive one or two that end

What it was told is on disk before it is acknowledged; started again in the same folder it goes on, at
the same address and with the same options of --listen, --mdns, --fast and --standby.")]
    Supervisor(Supervisor),
    /// Make, list or revoke tickets, which let peers join the grid
    #[command(subcommand)]
    #[command(after_help = "\
Examples:
  hedge ticket worker --out worker.ticket    a file to carry to the worker's machine
  hedge ticket client --expires 1d --uses 3
  hedge ticket admin                         for a client that may see and change everything
  hedge ticket list
  hedge ticket revoke 5c1f                   by the beginning of its id

A ticket is a secret: everybody who has it can join in its role. Keep it off command lines, which every user of
a machine can read: pass its file, or - for standard input.")]
    Ticket(Ticket),
    /// Start a worker: it runs tasks for the grid
    #[command(after_help = "\
Examples:
  hedge worker --join FILE                   a file with a ticket of `hedge ticket worker`
  hedge worker --join FILE --cpus 2 --memory '4 GiB' --label room=12
  hedge worker --join FILE --dedicated       a machine that is the grid's alone
  hedge worker                               for a supervisor on this machine

Tasks see their own folder and read-only system folders, have no network and run only when nothing
else wants the CPU, unless the options say otherwise. Ctrl-C or SIGTERM: no new tasks, the running
ones get a minute to finish, then it leaves; a second time: at once.")]
    Worker(Worker),
    /// Submit a job to the grid
    #[command(after_help = "\
Examples:
  hedge submit job.toml                      prints the job's number and leaves
  hedge submit --wait --out pictures job.toml
  hedge submit --wait -- hostname
  hedge submit --input scene.pov --cpus 4 -- povray scene.pov

Results go to --out, where they replace files of the same name, else to a new folder NAME-results.
Ctrl-C while waiting leaves the job running and says how to come back to it.")]
    Submit(Submit),
    /// Say what each level of redundancy would buy a job and cost; nothing runs
    #[command(after_help = crate::commands::plan::HELP)]
    Plan(Box<commands::plan::Args>),
    /// List jobs
    #[command(after_help = "\
Examples:
  hedge jobs --running
  hedge jobs --failed --limit 10")]
    Jobs(commands::jobs::Args),
    /// Show jobs
    #[command(after_help = "\
Examples:
  hedge job 7
  hedge job last --watch                     the newest job that this client may see
  hedge job open --name sweep                a job that tasks can be added to
  hedge job extend last more.toml            tasks that may wait for those that it has
  hedge job release last frame               what the array `frame` left is not needed any more
  hedge job close last && hedge wait last

An open job keeps what its tasks leave until it is released or the job is closed. It closes itself
once its client has been gone for an hour, or for as long as `open_timeout` in its job file says.")]
    Job(Job),
    /// List the tasks of a job: where they are, and how they ended
    #[command(after_help = "\
Examples:
  hedge tasks last --failed
  hedge tasks 7 --running
  hedge tasks 7 --json                       one JSON object a line for each task")]
    Tasks(commands::tasks::Args),
    /// Wait until jobs have ended
    #[command(after_help = "\
Examples:
  hedge wait 7
  hedge wait 7 8 last
  hedge wait 7 --out pictures                and bring its results")]
    Wait(commands::wait::Args),
    /// End jobs; one that has ended already stays as it is
    #[command(after_help = "\
Examples:
  hedge cancel last
  hedge cancel 7 8 9")]
    Cancel(Several),
    /// Let jobs that failed go on: what is not done is tried again, what is done stays
    #[command(after_help = "\
Examples:
  hedge retry last
  hedge retry 7 && hedge wait 7 --out pictures")]
    Retry(Several),
    /// Bring the results of jobs
    #[command(after_help = "\
Examples:
  hedge fetch last --out pictures
  hedge fetch 7 --task frame.12 --task sheet  what two tasks left, also while the job runs")]
    Fetch(commands::fetch::Args),
    /// List a job's results: their hashes, who made them, and what is missing
    Manifest(One),
    /// Show what tasks printed
    #[command(after_help = "\
Examples:
  hedge logs 7 sheet
  hedge logs 7 frame.12                      index 12 of the array `frame`
  hedge logs last                            all tasks; each line begins with the name of its task
  hedge logs last -f                         until the job has ended

Of a task that runs, what it has printed so far is shown, and with -f what follows, as it comes. If the task runs
again, for example because its worker was lost, a line says where the output of the next attempt begins.

Standard output goes to standard output, standard error to standard error. A pipe or a file gets what
the task printed unchanged. On a terminal, lines, tabs and colours stay; other control characters are
shown as escapes like \\u{1b}.")]
    Logs(commands::logs::Args),
    /// Say why a job or a task is where it is, where it ran and why there
    #[command(after_help = "\
Examples:
  hedge explain 7                            what holds the job up, and which tasks are critical
  hedge explain 7 frame.12")]
    Explain(commands::explain::Args),
    /// What a job costs, and for what
    Cost(commands::cost::Args),
    /// List all workers
    Workers(Grid),
    /// Pack a folder as a tree for a submission over HTTP
    #[command(after_help = commands::pack::HELP)]
    Pack(commands::pack::Args),
    /// Serve the grid over HTTP to programs on this machine
    #[command(after_help = "\
Examples:
  hedge gateway                              at a socket that this user alone may open
  curl --unix-socket ~/.local/state/hedgerow/gateway/gateway.sock http://localhost/v1/jobs
  hedge gateway --listen 127.0.0.1:7780      over TCP; prints the file with the token that requests show

It has the rights of its ticket: with a client's it shows that client's jobs. docs/gateway.md describes the
interface, and GET /v1/openapi.json every path of it.")]
    Gateway(Gateway),
    /// Show the grid in a browser: jobs, machines, what tasks print
    #[command(after_help = "\
Examples:
  hedge ui                                   opens a browser, or prints the address where there is none
  hedge ui --listen 127.0.0.1:7780           at a fixed port, for `ssh -L 7780:127.0.0.1:7780`

The address holds a token that is valid until the command ends. Who has it can do what this grid's ticket
allows.")]
    Ui(Ui),
    /// Show the grid on a terminal, as it changes: jobs, machines, faults
    #[command(after_help = views::TOP)]
    Top(Top),
    /// Print what changes in the grid, one JSON object a line
    #[command(after_help = views::WATCH)]
    Watch(Watch),
    /// Write a job's attempts as a trace for Perfetto
    #[command(after_help = views::TRACE)]
    Trace(Export),
    /// Write a job as one HTML page: graph, attempts over time, cost, failures
    #[command(after_help = views::REPORT)]
    Report(Export),
    /// Start a relay: it carries packets for members that cannot reach each other directly
    #[command(after_help = "\
Examples:
  hedge ticket relay --out FILE              on a supervisor's machine; then, on one that all can reach:
  hedge relay --join FILE --listen 203.0.113.7:7434
  hedge config set relay ID@203.0.113.7:7434 as the relay prints it, on a supervisor's machine

It needs one port, for TCP and for UDP. What it carries is encrypted between the peers. It serves members
of the grid and holders of its tickets, nobody else; peers that find a direct way leave it.")]
    Relay(Relay),
    /// Let a worker finish what it runs and leave
    #[command(after_help = "\
Examples:
  hedge drain desk-12                        by host name
  hedge drain 3f9a                           by the beginning of its id, see `hedge workers`")]
    Drain(Drain),
    /// List the grid's members, take one out, or let the supervisors use a newer format
    #[command(after_help = "\
Examples:
  hedge members
  hedge members remove 3f9a                  by the beginning of its id
  hedge members --upgrade                    after every supervisor runs the new release")]
    Members(Members),
    /// Shut a member out for good, at once and at every supervisor
    #[command(after_help = "\
Examples:
  hedge revoke desk-12                       a worker, by its host name
  hedge revoke 3f9a                          by the beginning of its id, see `hedge members`

The ticket by which it joined is revoked too, so that it does not come back under another key.")]
    Revoke(Revoke),
    /// Show or change the grid's settings
    #[command(after_help = "\
Examples:
  hedge config get
  hedge config get keep
  hedge config set keep_jobs_for 7d")]
    Config(Config),
    /// Drop jobs that have ended, with their results
    Forget(commands::forget::Args),
    /// Look at, check, copy or repair the journal of this machine's supervisor
    #[command(subcommand)]
    #[command(after_help = "\
Examples:
  hedge journal dump --json
  hedge journal backup /mnt/backup/today
  hedge journal repair                       after a supervisor that is alone refused to start")]
    Journal(Journal),
    /// Say what works on this machine, and what to do about what does not
    #[command(after_help = "\
Examples:
  hedge doctor
  hedge doctor --watch        press a key, and see that it is noticed")]
    Doctor(Doctor),
    /// Show what this machine's worker does for its grid, as a screensaver
    #[command(after_help = "\
Examples:
  hedge screensaver                          in a window
  hedge screensaver --root                   as xscreensaver runs it, see share/hedge.xml")]
    Screensaver(Screensaver),
    /// Print completions for a shell
    #[command(after_help = "\
Example:
  hedge completions bash > ~/.local/share/bash-completion/completions/hedge")]
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Start tasks for a worker; started by workers alone
    #[command(hide = true)]
    Spawner,
}

/// The grid a command talks to.
#[derive(Args, Clone, Debug, Default)]
pub struct Grid {
    /// File with a ticket of the grid, with the role client or admin, or - for standard input [default:
    /// HEDGE_TICKET, else this machine's supervisor]
    #[arg(long, value_name = "FILE")]
    pub join: Option<String>,
}

/// How a worker treats tasks.
#[derive(Args, Clone, Debug)]
pub struct TaskRules {
    /// When tasks get the CPU
    #[arg(long, value_enum, default_value_t = Priority::Idle, value_name = "HOW")]
    pub task_priority: Priority,
    /// Let tasks use the network
    #[arg(long)]
    pub allow_network: bool,
    /// Share a folder of this machine with tasks that ask for NAME; they see it at the same path, with :ro behind the
    /// path only to read. Repeatable
    #[arg(long, value_name = "NAME=/PATH[:ro]", value_parser = share)]
    pub share: Vec<Share>,
    /// Run tasks without a sandbox: they can read and change whatever this user can
    #[arg(long)]
    pub no_sandbox: bool,
    /// Accept a sandbox that does not keep everything from tasks; `hedge doctor` says what it does not
    #[arg(long, conflicts_with = "no_sandbox")]
    pub accept_weak_sandbox: bool,
}

/// A folder that a worker's owner shares with tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The name by which tasks ask for it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Whether tasks may change what is in it.
    pub writable: bool,
}

/// Reads `NAME=/path` or `NAME=/path:ro`.
fn share(text: &str) -> Result<Share, String> {
    let (name, path) = label(text)
        .map_err(|_| format!("{text:?} is no shared folder: write NAME=/path, or NAME=/path:ro"))?;
    if !hedge_model::spec::is_share_name(&name) {
        return Err(format!(
            "{name:?} cannot be the name of a shared folder: use letters, digits, '-' and '_', at most 64 of them"
        ));
    }
    let (path, writable) = match path.strip_suffix(":ro") {
        Some(path) => (path, false),
        None => (&*path, true),
    };
    if !path.starts_with('/') {
        return Err(format!("{path:?} is no absolute path: write NAME=/path"));
    }
    Ok(Share {
        name,
        path: path.into(),
        writable,
    })
}

/// When tasks get the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Priority {
    /// When nothing else wants it
    Idle,
    /// Like any program, for dedicated machines
    Normal,
}

/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct Run {
    /// What to run.
    #[command(flatten)]
    pub source: Source,
    /// How many workers share this machine's CPUs [default: one for each CPU, at least 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// Folder for the results [default: a new folder NAME-results]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// End with the exit status of the program, for a job of one task; 128 and the signal's number for a signal
    #[arg(long)]
    pub exit_code: bool,
    /// How tasks are treated.
    #[command(flatten)]
    pub rules: TaskRules,
}

/// Arguments of `screensaver`.
#[derive(Args, Debug)]
pub struct Screensaver {
    /// Draw on the root window, or on the one that XSCREENSAVER_WINDOW names
    #[arg(long)]
    pub root: bool,
    /// Draw on this window
    #[arg(long, value_name = "NUMBER")]
    pub window_id: Option<String>,
}

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Show what a worker here would notice of its owner, as it is noticed, until interrupted
    #[arg(long)]
    pub watch: bool,
    /// A worker's rules about its owner, for the sources that they leave out
    #[arg(long, value_name = "FILE")]
    pub owner: Option<PathBuf>,
}

/// Arguments of `submit`.
#[derive(Args, Debug)]
pub struct Submit {
    /// What to run.
    #[command(flatten)]
    pub source: Source,
    /// Wait for the job's end and bring its results
    #[arg(long)]
    pub wait: bool,
    /// Folder for the results [default: a new folder NAME-results]
    #[arg(long, value_name = "DIR", requires = "wait")]
    pub out: Option<PathBuf>,
    /// End with the exit status of the program, for a job of one task; 128 and the signal's number for a signal
    #[arg(long, requires = "wait")]
    pub exit_code: bool,
    /// Name of this submission, 32 hexadecimal digits: repeating it with the same name is harmless
    #[arg(long, value_name = "KEY")]
    pub key: Option<hedge_model::SubmitKey>,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Arguments of `drain`.
#[derive(Args, Debug)]
pub struct Drain {
    /// Beginning of the worker's id, or its host name
    #[arg(value_name = "WORKER", value_parser = NonEmptyStringValueParser::new())]
    pub worker: String,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

fn bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(|error| error.to_string())
}

/// CPUs in thousandths.
fn cpus(text: &str) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|cpus| (0.001..=1e6).contains(cpus))
        .map(|cpus: f64| (cpus * 1000.0).round() as u64)
        .ok_or_else(|| format!("{text:?} is no number of CPUs: write 2 or 0.5"))
}

fn amount(text: &str) -> Result<(String, u64), String> {
    let (name, number) = label(text)?;
    if let Some(own) =
        hedge_model::resources::mistaken_for(&name).or(OWN.into_iter().find(|own| *own == name))
    {
        return Err(format!("what {name:?} means is offered with --{own}"));
    }
    if name == "gpus" {
        return Err(
            "a worker finds its GPUs by itself; --gpus limits how many it offers".to_owned(),
        );
    }
    let number = number
        .parse()
        .map_err(|_| format!("{number:?} is no whole number: write NAME=N, like licence=1"))?;
    Ok((name, number))
}

fn gpus(text: &str) -> Result<u64, String> {
    match text {
        "none" => Ok(0),
        _ => text
            .parse()
            .map_err(|_| format!("{text:?} is no number of GPUs: write 2, or none")),
    }
}

/// A name and a value.
pub fn label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is no pair: write NAME=VALUE"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_folder_has_a_name_and_an_absolute_path() {
        let shared = |writable| Share {
            name: "data".to_owned(),
            path: "/srv/data".into(),
            writable,
        };
        assert_eq!(share("data=/srv/data"), Ok(shared(true)));
        assert_eq!(share("data=/srv/data:ro"), Ok(shared(false)));
        for bad in [
            "data",
            "=/srv",
            "data=srv",
            "da ta=/srv",
            "data=:ro",
            "data=",
        ] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn amounts_of_workers_need_their_units() {
        assert_eq!(cpus("0.5"), Ok(500));
        assert!(cpus("-1").is_err() && cpus("many").is_err());
        assert_eq!(amount("licence=2"), Ok(("licence".to_owned(), 2)));
        assert!(amount("licence").is_err() && amount("licence=x").is_err() && label("=x").is_err());
        assert!(amount("gpus=1").unwrap_err().contains("--gpus"));
        assert_eq!((gpus("2"), gpus("none")), (Ok(2), Ok(0)));
        assert!(gpus("all").is_err());
        assert!(bytes("4").is_err() && bytes("4 GiB").is_ok());
    }
}
