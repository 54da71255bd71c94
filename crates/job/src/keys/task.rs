//! The keys of `[[task]]` and of the tables in it.

use super::{Default, Key, Kind, PIECES_MAX, Table};
use crate::words::{COPIED, NETWORK, RUNTIME, meanings};

/// `[[task]]`.
pub static TASK: Table = Table {
    name: "a [[task]]",
    others: None,
    keys: &[
        Key {
            name: "id",
            kind: Kind::Text,
            default: Default::Required,
            example: "\"frame\"",
            what: "Name of the task, unique in the job: letters, digits, `-` and `_`, at most 128.",
        },
        Key {
            name: "array",
            kind: Kind::Indexes,
            default: Default::Means("one task"),
            example: "\"0..60\"",
            what: "Makes the table an array: one task for each index, which `${index}` stands for. Not beside \
                   parameters.",
        },
        Key {
            name: "each",
            kind: Kind::AxisTable,
            default: Default::Means("no parameters"),
            example: "{ lr = [0.1, 0.01], seed = \"0..5\" }",
            what: "Parameters of the task: one task for each combination of their values, which `${lr}` and `${seed}` \
                   stand for. The last parameter varies fastest.",
        },
        Key {
            name: "each_line",
            kind: Kind::Text,
            default: Default::Means("no lines"),
            example: "\"samples.txt\"",
            what: "One task for each line of a file beside the job file, which `${line}` stands for. Blank lines are \
                   left out.",
        },
        Key {
            name: "each_file",
            kind: Kind::Text,
            default: Default::Means("no files"),
            example: "\"reads/*.fastq\"",
            what: "One task for each file that a pattern beside the job file matches. The task gets that file as an \
                   input: `${file}` is its path, `${stem}` its name without folders and ending.",
        },
        Key {
            name: "command",
            kind: Kind::Texts,
            default: Default::Required,
            example: "[\"sh\", \"-c\", \"…\"]",
            what: "The program and its arguments. No shell is involved unless it is named here.",
        },
        Key {
            name: "runtime",
            kind: Kind::Word(|| meanings(&RUNTIME)),
            default: Default::Value("\"process\""),
            example: "\"noop\"",
            what: "How the task is executed.",
        },
        Key {
            name: "preload",
            kind: Kind::Texts,
            default: Default::Value("[]"),
            example: "[\"numpy\"]",
            what: "Modules that the interpreter of runtime `python` imports once, before the processes of tasks are \
                   forked from it.",
        },
        Key {
            name: "env",
            kind: Kind::TextTable,
            default: Default::Value("{}"),
            example: "{ MODE = \"fast\" }",
            what: "Environment variables beside those that every task has.",
        },
        Key {
            name: "stdin",
            kind: Kind::TextOrTable(&STDIN),
            default: Default::Means("nothing to read"),
            example: "{ text = \"hello\" }",
            what: "What the program reads on its standard input: a file's name, or text.",
        },
        Key {
            name: "deps",
            kind: Kind::TextsOrTables(&DEPENDENCY),
            default: Default::Value("[]"),
            example: "[\"frame\", { task = \"fold\", need = \"95%\" }]",
            what: "Tasks that must be done before this one starts, beside those of `inputs`.",
        },
        Key {
            name: "inputs",
            kind: Kind::TextsOrTables(&INPUT),
            default: Default::Value("[]"),
            example: "[\"scene.pov\", { task = \"frame\" }]",
            what: "What lies in the task's scratch directory when it starts: files, folders and globs beside the \
                   job file, and the outputs of other tasks.",
        },
        Key {
            name: "mounts",
            kind: Kind::Tables(&MOUNT),
            default: Default::Value("[]"),
            example: "[{ tree = \".venv\" }]",
            what: "Folders that the task sees as they are here, read-only and not in its scratch directory. Each travels \
                   once to a worker, however many tasks and files.",
        },
        Key {
            name: "outputs",
            kind: Kind::Texts,
            default: Default::Value("[]"),
            example: "[\"frame-${index}.png\"]",
            what: "Files, folders (ending in `/`) and globs that leave the scratch directory. They are results of \
                   the job, or inputs of other tasks.",
        },
        Key {
            name: "resources",
            kind: Kind::Table(&RESOURCES),
            default: Default::Means("one CPU"),
            example: "{ cpus = 2, memory = \"1 GiB\" }",
            what: "What the task takes of a worker while it runs.",
        },
        Key {
            name: "labels",
            kind: Kind::TextTable,
            default: Default::Value("{}"),
            example: "{ arch = \"x86_64\" }",
            what: "Labels that a worker must carry.",
        },
        Key {
            name: "shares",
            kind: Kind::Texts,
            default: Default::Value("[]"),
            example: "[\"data\"]",
            what: "Folders of the worker's machine that the task uses, by the names that `hedge worker --share` gives \
                   them. The task goes only to workers that share all of them.",
        },
        Key {
            name: "cwd",
            kind: Kind::Text,
            default: Default::Means("the scratch directory"),
            example: "\"data/genomes\"",
            what: "The folder that the task starts in: one of `shares`, and a path below it. Inputs and outputs stay in \
                   the scratch directory, which `HOME` names.",
        },
        Key {
            name: "network",
            kind: Kind::Word(|| meanings(&NETWORK)),
            default: Default::Means("what the worker's owner allows"),
            example: "\"any\"",
            what: "The network that the task needs, and the most that it gets.",
        },
        Key {
            name: "priority",
            kind: Kind::Whole(i32::MIN as i64, i32::MAX as i64),
            default: Default::Value("0"),
            example: "10",
            what: "Ready tasks of a higher priority start first.",
        },
        Key {
            name: "retries",
            kind: Kind::Whole(0, u32::MAX as i64),
            default: Default::Means("2; 0 with `shares`"),
            example: "5",
            what: "Attempts after the first that fails by the task's own fault: its exit status, a signal, a limit, a \
                   missing output. After them the task has failed. Faults of a worker or its machine do not count.",
        },
        Key {
            name: "retry_memory",
            kind: Kind::Multiples,
            default: Default::Means("always the memory in `resources`"),
            example: "[1, 2, 4]",
            what: "Memory of the attempts, as multiples of the memory in `resources`: the second for an attempt after \
                   one that reached its memory limit, the third after two, and so on. The last one repeats.",
        },
        Key {
            name: "retry_delay",
            kind: Kind::Duration,
            default: Default::Means("at once"),
            example: "\"30s\"",
            what: "Time from a failure to the next attempt.",
        },
        Key {
            name: "rerun",
            kind: Kind::Flag,
            default: Default::Means("`true`; `false` with `shares` and without `retries`"),
            example: "false",
            what: "Whether the task runs again when it was lost with its worker. If not, it ends as `lost`, and gets no \
                   redundant attempts.",
        },
        Key {
            name: "redundancy",
            kind: Kind::Word(|| meanings(&COPIED)),
            default: Default::Means("`\"job\"`; `\"none\"` with `shares`"),
            example: "\"none\"",
            what: "Which redundant attempts the task may get.",
        },
        Key {
            name: "time_limit",
            kind: Kind::Duration,
            default: Default::Means("no limit"),
            example: "\"10min\"",
            what: "Longest running time of an attempt; beyond, it is ended and counts as failed.",
        },
        Key {
            name: "critical",
            kind: Kind::Flag,
            default: Default::Value("false"),
            example: "true",
            what: "Marks the task critical, whatever `[critical]` finds.",
        },
        Key {
            name: "keep",
            kind: Kind::Flag,
            default: Default::Value("false"),
            example: "true",
            what: "Makes its outputs results of the job, although other tasks wait for it. Otherwise they are dropped when \
                   the job has ended.",
        },
        Key {
            name: "checkpoint",
            kind: Kind::Table(&CHECKPOINT),
            default: Default::Means("an attempt begins anew"),
            example: "{ files = [\"state.ckpt\"], every = \"60s\" }",
            what: "Files in which the task saves how far it is. Its next attempt begins with them.",
        },
        Key {
            name: "estimate",
            kind: Kind::Table(&ESTIMATE),
            default: Default::Means("what earlier tasks of its kind took"),
            example: "{ cpu_time = \"30s\", memory = \"32 MiB\" }",
            what: "What the task is likely to need. Used for ordering and planning, never as a limit.",
        },
        Key {
            name: "kind",
            kind: Kind::Text,
            default: Default::Means("the `id`"),
            example: "\"render\"",
            what: "Tasks of one kind are expected to behave alike, in this job and in others.",
        },
    ],
};

/// A table in `inputs`.
pub static INPUT: Table = Table {
    name: "an input that is no file's name",
    others: None,
    keys: &[
        Key {
            name: "task",
            kind: Kind::Text,
            default: Default::Required,
            example: "\"frame\"",
            what: "The task whose outputs become inputs.",
        },
        EACH,
        NEED,
    ],
};

/// A table in `mounts`.
pub static MOUNT: Table = Table {
    name: "a mount",
    others: None,
    keys: &[
        Key {
            name: "tree",
            kind: Kind::Text,
            default: Default::Required,
            example: "\".venv\"",
            what: "A folder beside the job file, or anywhere by an absolute path.",
        },
        Key {
            name: "at",
            kind: Kind::Text,
            default: Default::Means("the folder's own absolute path"),
            example: "\"/ref\"",
            what: "The absolute path at which tasks see it.",
        },
    ],
};

/// A table in `deps`.
pub static DEPENDENCY: Table = Table {
    name: "a dependency",
    others: None,
    keys: &[
        Key {
            name: "task",
            kind: Kind::Text,
            default: Default::Required,
            example: "\"frame\"",
            what: "The task to wait for.",
        },
        EACH,
        NEED,
    ],
};

const EACH: Key = Key {
    name: "each",
    kind: Kind::Flag,
    default: Default::Value("false"),
    example: "true",
    what: "Whether each task waits only for the task at its own place in that array, which must have as many, and gets \
           only the outputs of that one.",
};

const NEED: Key = Key {
    name: "need",
    kind: Kind::ShareOrCount,
    default: Default::Value("\"100%\""),
    example: "\"95%\"",
    what: "How many tasks of that array must be done: a share or a number. The outputs of the others are not there.",
};

/// The table form of `stdin`.
pub static STDIN: Table = Table {
    name: "`stdin`",
    others: None,
    keys: &[Key {
        name: "text",
        kind: Kind::Text,
        default: Default::Required,
        example: "\"hello\"",
        what: "The text itself, at most 16 KiB.",
    }],
};

/// `resources`.
pub static RESOURCES: Table = Table {
    name: "`resources`",
    keys: &[
        Key {
            name: "cpus",
            kind: Kind::Cpus,
            default: Default::Value("1"),
            example: "0.5",
            what: "CPUs, in thousandths at the finest.",
        },
        Key {
            name: "memory",
            kind: Kind::Bytes,
            default: Default::Means("no limit of its own"),
            example: "\"1 GiB\"",
            what: "Memory; also the limit of what the task may use.",
        },
        Key {
            name: "disk",
            kind: Kind::Bytes,
            default: Default::Means("no limit of its own"),
            example: "\"2 GB\"",
            what: "Disk; also the limit of what the task may add to its scratch directory.",
        },
    ],
    others: Some(Key {
        name: "gpus",
        kind: Kind::Whole(0, PIECES_MAX),
        default: Default::Value("0"),
        example: "1",
        what: "Pieces of a resource that workers offer under this name, see `hedge worker --help`.",
    }),
};

/// `checkpoint`.
pub static CHECKPOINT: Table = Table {
    name: "`checkpoint`",
    others: None,
    keys: &[
        Key {
            name: "files",
            kind: Kind::Texts,
            default: Default::Required,
            example: "[\"state.ckpt\"]",
            what: "Files in the scratch directory, at most 16, which the task renames into place. Globs and placeholders \
                   have no meaning here.",
        },
        Key {
            name: "every",
            kind: Kind::Duration,
            default: Default::Value("\"60s\""),
            example: "\"5min\"",
            what: "Time between two checkpoints of an attempt, at least 100 ms. The task may rename its files more often.",
        },
        Key {
            name: "grace",
            kind: Kind::Duration,
            default: Default::Value("\"10s\""),
            example: "\"30s\"",
            what: "How long an attempt that has to leave its worker gets after SIGTERM, at most 5 min. `\"0s\"` ends it at \
                   once.",
        },
        Key {
            name: "size_limit",
            kind: Kind::Bytes,
            default: Default::Value("\"1 GiB\""),
            example: "\"64 MiB\"",
            what: "What the files take together at most. A larger checkpoint is not saved.",
        },
    ],
};

/// `estimate`.
pub static ESTIMATE: Table = Table {
    name: "`estimate`",
    others: None,
    keys: &[
        Key {
            name: "cpu_time",
            kind: Kind::Duration,
            default: Default::Means("not known"),
            example: "\"30s\"",
            what: "CPU time on a machine of speed 1.",
        },
        Key {
            name: "memory",
            kind: Kind::Bytes,
            default: Default::Means("not known"),
            example: "\"32 MiB\"",
            what: "Memory.",
        },
        Key {
            name: "disk",
            kind: Kind::Bytes,
            default: Default::Means("not known"),
            example: "\"1 MiB\"",
            what: "Disk.",
        },
        Key {
            name: "network",
            kind: Kind::Bytes,
            default: Default::Means("not known"),
            example: "\"100 MB\"",
            what: "Data that it moves over the network, beside its inputs.",
        },
        Key {
            name: "output",
            kind: Kind::Bytes,
            default: Default::Means("not known"),
            example: "\"5 MiB\"",
            what: "Data that it leaves for others.",
        },
    ],
};
