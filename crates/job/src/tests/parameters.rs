//! The job's own parameters.

use super::super::*;
use hedge_model::spec::Runtime;

const JOB: &str = r#"
name = "sweep ${name}"
[parameters]
name = "fine"
rate = 1e-3
count = 3
twice = false
[qos]
copies = "${count}"
finish_by = "${count}h"
[[task]]
id = "a"
array = "0..${count}"
command = ["sh", "-c", "run ${rate} ${index} ${HOME} $${rate}", "${name}"]
env = { RATE = "x${rate}" }
stdin = { text = "${name} $${name} ${other} $${other}" }
outputs = ["${name}-${index}"]
resources = { cpus = "${count}" }
labels = { room = "${count}" }
critical = "${twice}"
"#;

fn read(text: &str, set: &[(&str, &str)]) -> Result<JobFile, BadJobFile> {
    let set: Vec<Setting> = set
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    JobFile::parse_with("job.toml", Syntax::Toml, text, &set)
}

fn told(text: &str, set: &[(&str, &str)]) -> Vec<(usize, String)> {
    let bad = read(text, set).unwrap_err();
    let located = bad.located().into_iter();
    located
        .map(|it| (it.line, format!("{}; {}", it.what, it.help)))
        .collect()
}

#[test]
fn parameters_stand_in_every_text() {
    let file = read(JOB, &[]).unwrap();
    let spec = file.tasks();
    assert_eq!((spec.name(), spec.task_count()), ("sweep fine", 3));
    assert_eq!(spec.qos().copies, 3);
    assert_eq!(
        spec.qos().finish_by,
        Some(std::time::Duration::from_secs(3 * 3600))
    );
    let group = &spec.groups()[0];
    assert_eq!(group.runtime, Runtime::Process);
    assert_eq!(&*group.command[2], "run 1e-3 ${index} ${HOME} $${rate}");
    assert_eq!(&*group.command[3], "fine");
    assert_eq!(&*group.env[0].1, "x1e-3");
    let text = b"fine ${name} ${other} $${other}"[..].into();
    assert_eq!(group.stdin, Some(hedge_model::Data::Inline(text)));
    assert_eq!(&*group.outputs[0], "fine-${index}");
    assert_eq!((group.resources.cpus_milli, group.critical), (3000, false));
    assert_eq!(group.labels, [("room".into(), "3".into())]);
}

#[test]
fn parameters_are_set_to_values_like_their_defaults() {
    let set = [
        ("name", "rough"),
        ("rate", "0.5"),
        ("count", "2"),
        ("twice", "true"),
    ];
    let file = read(JOB, &set).unwrap();
    let (spec, group) = (file.tasks(), &file.tasks().groups()[0]);
    assert_eq!((spec.name(), spec.task_count()), ("sweep rough", 2));
    assert_eq!(&*group.command[2], "run 0.5 ${index} ${HOME} $${rate}");
    assert_eq!((group.resources.cpus_milli, group.critical), (2000, true));
    for (name, value) in [
        ("rate", "fast"),
        ("rate", "inf"),
        ("count", "2.5"),
        ("twice", "1"),
    ] {
        let told = told(JOB, &[(name, value)]);
        let (line, what) = &told[0];
        assert_eq!(*line, 3, "{what}");
        assert!(
            what.contains(&format!("`{name}` is set to {value:?}")),
            "{what}"
        );
    }
    let unknown = told(JOB, &[("nmae", "x")]);
    assert!(
        unknown[0]
            .1
            .contains("`nmae` is set, but is no parameter of this job; known are `name`, `rate`"),
        "{unknown:?}"
    );
    let without = "[[task]]\nid = \"a\"\ncommand = [\"true\"]\n";
    let none = told(without, &[("a", "x")]);
    assert_eq!(none[0].0, 1);
    assert!(none[0].1.contains("[parameters] a = \"x\""), "{none:?}");
}

#[test]
fn a_value_is_put_in_once_and_may_hold_placeholders_of_the_task() {
    let text = "[parameters]\na = \"${b}-${index}\"\nb = \"2\"\n[[task]]\nid = \"t\"\narray = \"0..2\"\n\
                command = [\"sh\", \"${a}\"]\n";
    let file = read(text, &[]).unwrap();
    assert_eq!(&*file.tasks().groups()[0].command[1], "${b}-${index}");
}

#[test]
fn what_is_no_parameter_is_told_with_its_line() {
    let job = |line: &str| {
        format!("[parameters]\nrate = 1\n[[task]]\nid = \"a\"\ncommand = [\"true\"]\n{line}\n")
    };
    for (line, said) in [
        (
            "kind = \"${rat}\"",
            "`${rat}` is not known here; known are `rate`",
        ),
        ("stdin = \"${rat}\"", "`${rat}` is not known here"),
        ("deps = [\"${index}\"]", "`${index}` is not known here"),
        ("each_line = \"${index}\"", "`${index}` is not known here"),
        (
            "env = { A = \"1\", B = \"${rat}\" }",
            "`${rat}` is not known here; known are `${hedge}`, `${rate}`",
        ),
        ("outputs = [\"${rat}\"]", "known are `${rate}`"),
        ("inputs = [\"${rat}\"]", "known are `${rate}`"),
        (
            "each = { rate = [1, 2] }",
            "there is another parameter `rate`",
        ),
    ] {
        let told = told(&job(line), &[]);
        assert_eq!(told[0].0, 6, "{told:?}");
        assert!(told[0].1.contains(said), "{line}: {told:?}");
    }
    for (parameters, said) in [
        ("index = 1", "\"index\" cannot be the name of a parameter"),
        ("a-b = 1", "\"a-b\" cannot be"),
        ("a = [1]", "the parameter `a` is a list"),
    ] {
        let text =
            format!("[parameters]\n{parameters}\n[[task]]\nid = \"a\"\ncommand = [\"true\"]\n");
        let told = told(&text, &[]);
        assert_eq!(told[0].0, 2, "{told:?}");
        assert!(told[0].1.contains(said), "{told:?}");
    }
    let no_table = told(
        "parameters = 3\n[[task]]\nid = \"a\"\ncommand = [\"true\"]\n",
        &[],
    );
    assert!(no_table[0].1.contains("must be a table"), "{no_table:?}");
}
