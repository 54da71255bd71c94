//! Every key of a job file, in one table: the reader takes no other key, suggests these in its messages, and the
//! documentation lists them.

mod task;

use crate::words::{CRITICAL_PLACEMENT, REDUNDANCY, UNPLACEABLE, meanings};
use hedge_model::spec::{COPIES_MAX, Measure};
use std::fmt::Write;

pub use task::{CHECKPOINT, DEPENDENCY, ESTIMATE, INPUT, MOUNT, RESOURCES, STDIN, TASK};

/// Most CPUs or pieces of a resource that one task can ask for; beyond it is a typing mistake.
pub(crate) const PIECES_MAX: i64 = 1_000_000;

/// A table of a job file.
#[derive(Debug)]
pub struct Table {
    /// What it is called in messages and in the documentation: `a [[task]]`.
    pub name: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
    /// What any other key means. `None`: any other key is a mistake.
    pub others: Option<Key>,
}

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What its absence means.
    pub default: Default,
    /// A value in TOML.
    pub example: &'static str,
    /// What it is for.
    pub what: &'static str,
}

/// What the absence of a key means.
#[derive(Debug)]
pub enum Default {
    /// A mistake.
    Required,
    /// The same as this value, in TOML.
    Value(&'static str),
    /// Something that cannot be written as a value.
    Means(&'static str),
}

/// What a key takes.
#[derive(Debug)]
pub enum Kind {
    /// Text.
    Text,
    /// A list of texts.
    Texts,
    /// A table of texts whose keys are free.
    TextTable,
    /// True or false.
    Flag,
    /// A whole number within these bounds, both included.
    Whole(i64, i64),
    /// A number of CPUs, from 0 to `PIECES_MAX`, with fractions.
    Cpus,
    /// An amount of the grid's currency with up to six decimals.
    Money,
    /// A duration as text with its unit.
    Duration,
    /// An amount of bytes as text with its unit.
    Bytes,
    /// A share as text in percent.
    Share,
    /// A share as text in percent, or a whole number.
    ShareOrCount,
    /// A list of numbers above 0, in ascending order.
    Multiples,
    /// One of these words, each with what it means.
    Word(fn() -> Vec<(&'static str, &'static str)>),
    /// Array indexes as text: the first, and the one behind the last.
    Indexes,
    /// A table of texts, numbers and flags whose keys are free.
    ScalarTable,
    /// A table of lists and ranges whose keys are free.
    AxisTable,
    /// A list of measures, or a table of measures and their weights.
    Measures,
    /// A list of texts or tables.
    TextsOrTables(&'static Table),
    /// Text, or a table.
    TextOrTable(&'static Table),
    /// A table.
    Table(&'static Table),
    /// A list of tables.
    Tables(&'static Table),
}

/// The job file itself.
pub static JOB: Table = Table {
    name: "a job file",
    others: None,
    keys: &[
        Key {
            name: "name",
            kind: Kind::Text,
            default: Default::Means("the file's name without its ending"),
            example: "\"zoom\"",
            what: "Name of the job, for people. It need not be unique.",
        },
        Key {
            name: "parameters",
            kind: Kind::ScalarTable,
            default: Default::Value("{}"),
            example: "{ rate = 0.1, name = \"fine\" }",
            what: "Parameters of the job with their defaults, which `--set NAME=VALUE` replaces. `${NAME}` stands for \
                   the value in every text of the job file.",
        },
        Key {
            name: "qos",
            kind: Kind::Table(&QOS),
            default: Default::Means("all defaults of that table"),
            example: "{ redundancy = \"critical\", copies = 3 }",
            what: "Quality of service: how sure the job wants to be of its end, and what that may cost.",
        },
        Key {
            name: "critical",
            kind: Kind::Table(&CRITICAL),
            default: Default::Means("all defaults of that table"),
            example: "{ by = [\"precedence\"], top = \"25%\" }",
            what: "How critical tasks are found beside those that are marked `critical = true`.",
        },
        Key {
            name: "task",
            kind: Kind::Tables(&TASK),
            default: Default::Required,
            example: "[{ id = \"frame\", command = [\"true\"] }]",
            what: "The tasks, usually written as `[[task]]` tables.",
        },
    ],
};

/// `[qos]`.
pub static QOS: Table = Table {
    name: "[qos]",
    others: None,
    keys: &[
        Key {
            name: "redundancy",
            kind: Kind::Word(|| meanings(&REDUNDANCY)),
            default: Default::Value("\"auto\""),
            example: "\"critical\"",
            what: "Which tasks get redundant attempts.",
        },
        Key {
            name: "copies",
            kind: Kind::Whole(1, COPIES_MAX as i64),
            default: Default::Value("2"),
            example: "3",
            what: "Attempts of a critical task in all, each on another worker.",
        },
        Key {
            name: "need",
            kind: Kind::ShareOrCount,
            default: Default::Value("\"100%\""),
            example: "\"95%\"",
            what: "How much of the job must be done: a share of its tasks or a number of them. Then the rest is \
                   cancelled and the results are put together.",
        },
        Key {
            name: "max_failures",
            kind: Kind::ShareOrCount,
            default: Default::Means("no limit"),
            example: "\"5%\"",
            what: "How many tasks may fail, as a share of the job's tasks or a number of them. One more, and the job \
                   stops. `0` stops it at the first.",
        },
        Key {
            name: "tolerate_failures",
            kind: Kind::Flag,
            default: Default::Value("false"),
            example: "true",
            what: "The job is done once all tasks are that can be: those that failed, and what waits for them, do not \
                   count. `need` has no effect then.",
        },
        Key {
            name: "unplaceable",
            kind: Kind::Word(|| meanings(&UNPLACEABLE)),
            default: Default::Value("\"wait\""),
            example: "\"fail\"",
            what: "What happens to a task that asks for more than any worker has.",
        },
        Key {
            name: "critical_placement",
            kind: Kind::Word(|| meanings(&CRITICAL_PLACEMENT)),
            default: Default::Value("\"prefer\""),
            example: "\"require\"",
            what: "Whether critical tasks wait for a worker of the higher speed class.",
        },
        Key {
            name: "finish_by",
            kind: Kind::Duration,
            default: Default::Means("no deadline"),
            example: "\"2h\"",
            what: "Deadline of the job, counted from its acceptance.",
        },
        Key {
            name: "confidence",
            kind: Kind::Share,
            default: Default::Value("\"95%\""),
            example: "\"99%\"",
            what: "Chance with which the job is to end by `finish_by`.",
        },
        Key {
            name: "budget",
            kind: Kind::Money,
            default: Default::Means("no limit"),
            example: "2.5",
            what: "What the job is to cost at most. Where more would be spent no further redundant attempts \
                   start; first attempts always run.",
        },
        Key {
            name: "open_timeout",
            kind: Kind::Duration,
            default: Default::Means("`1h` with `hedge job open`; any other job is not open"),
            example: "\"30min\"",
            what: "The job is open: `hedge job extend` adds tasks to it until `hedge job close`. It closes itself once its \
                   client has been gone for so long. 1 second to 30 days.",
        },
    ],
};

/// `[critical]`.
pub static CRITICAL: Table = Table {
    name: "[critical]",
    others: None,
    keys: &[
        Key {
            name: "by",
            kind: Kind::Measures,
            default: Default::Value("[\"precedence\"]"),
            example: "{ precedence = 2, cpu = 1 }",
            what: "What makes a task critical, and how much each measure counts beside the others. `[]`: only \
                   tasks marked `critical = true`.",
        },
        Key {
            name: "top",
            kind: Kind::ShareOrCount,
            default: Default::Value("\"10%\""),
            example: "20",
            what: "How many tasks are critical at most: a share of the job's tasks or a number of them.",
        },
    ],
};

/// All tables, in the order of the documentation, each with the name of its section there.
pub static TABLES: [(&str, &Table); 11] = [
    ("job", &JOB),
    ("qos", &QOS),
    ("critical", &CRITICAL),
    ("task", &TASK),
    ("inputs", &INPUT),
    ("mounts", &MOUNT),
    ("deps", &DEPENDENCY),
    ("stdin", &STDIN),
    ("resources", &RESOURCES),
    ("checkpoint", &CHECKPOINT),
    ("estimate", &ESTIMATE),
];

impl Table {
    /// The key of this name.
    pub fn find(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// The keys' names, for messages: "id, array, command".
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.keys.iter().map(|key| key.name).collect();
        names.join(", ")
    }

    /// The table as documentation in Markdown.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| key | type | unit | default | example | meaning |\n|---|---|---|---|---|---|\n",
        );
        for key in self.keys.iter().chain(&self.others) {
            let default = match key.default {
                Default::Required => "required".to_owned(),
                Default::Value(value) => format!("`{value}`"),
                Default::Means(words) => words.to_owned(),
            };
            let name = match self.keys.iter().any(|own| std::ptr::eq(own, key)) {
                true => format!("`{}`", key.name),
                false => "any other name".to_owned(),
            };
            // Writing into a String does not fail.
            let _ = writeln!(
                text,
                "| {name} | {} | {} | {default} | `{}` | {} |",
                key.kind.describe(),
                key.kind.unit(),
                key.written(),
                key.meaning(),
            );
        }
        text
    }
}

impl Key {
    /// The key with its example as a job file has it: `copies = 3`.
    pub fn written(&self) -> String {
        format!("{} = {}", self.name, self.example)
    }

    /// What it is for, and what each of its words means.
    fn meaning(&self) -> String {
        let mut text = self.what.to_owned();
        if let Kind::Word(words) = self.kind {
            let words = words().into_iter();
            text.extend(words.map(|(word, what)| format!(" `{word}`: {what}.")));
        }
        text
    }
}

impl Kind {
    /// What it is, for the documentation.
    pub fn describe(&self) -> String {
        match self {
            Kind::Text => "text".to_owned(),
            Kind::Texts => "list of texts".to_owned(),
            Kind::TextTable => "table of texts".to_owned(),
            Kind::Flag => "`true` or `false`".to_owned(),
            Kind::Whole(min, max) => format!("whole number, {min} to {max}"),
            Kind::Cpus => format!("number, 0 to {PIECES_MAX}"),
            Kind::Money => "number, at most six decimals".to_owned(),
            Kind::Duration => "duration as text".to_owned(),
            Kind::Bytes => "amount as text".to_owned(),
            Kind::Share => "share as text".to_owned(),
            Kind::ShareOrCount => "share as text, or whole number".to_owned(),
            Kind::Multiples => "list of numbers, ascending".to_owned(),
            Kind::Word(words) => words()
                .iter()
                .map(|(word, _)| format!("`\"{word}\"`"))
                .collect::<Vec<_>>()
                .join(", "),
            Kind::Indexes => "`\"FIRST..END\"`, END excluded".to_owned(),
            Kind::ScalarTable => "table of texts, numbers, `true` and `false`".to_owned(),
            Kind::AxisTable => {
                "table of lists, and of ranges `\"FIRST..END\"`, END excluded".to_owned()
            }
            Kind::Measures => {
                let known = Measure::ALL.map(|measure| format!("`{}`", measure.name()));
                format!(
                    "list of measures, or table of measures and weights: {}",
                    known.join(", ")
                )
            }
            Kind::TextsOrTables(_) => "list of texts and tables".to_owned(),
            Kind::TextOrTable(_) => "text, or table".to_owned(),
            Kind::Table(_) => "table".to_owned(),
            Kind::Tables(_) => "list of tables".to_owned(),
        }
    }

    /// Its unit, for the documentation.
    pub fn unit(&self) -> &'static str {
        match self {
            Kind::Duration => "`ms`, `s`, `min`, `h`, `d`",
            Kind::Bytes => "`B`, `KiB`, `MiB`, `GiB`, `TiB`, `kB`, `MB`, `GB`, `TB`",
            Kind::Share => "`%`",
            Kind::ShareOrCount => "`%`, or tasks",
            Kind::Cpus => "CPUs",
            Kind::Money => "the grid's currency",
            _ => "",
        }
    }
}
