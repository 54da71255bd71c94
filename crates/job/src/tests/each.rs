//! Parameters of a task.

use super::*;
use hedge_model::spec::Group;

/// A job of one task with `lines`, whose first line is the fourth of the file.
fn text(lines: &str) -> String {
    format!("[[task]]\nid = \"a\"\ncommand = [\"true\"]\n{lines}\n")
}

fn group(folder: &Path, lines: &str) -> Group {
    let spec = job(folder, &text(lines));
    spec.unwrap_or_else(|bad| panic!("{lines}: {bad}")).groups()[0].clone()
}

/// What a text is in each task.
fn expanded(group: &Group, text: &str) -> Vec<String> {
    let offsets = 0..group.count();
    offsets
        .map(|offset| group.with_values(offset, |values| values.expand(text).into_owned()))
        .collect()
}

fn refused(folder: &Path, text: &str) -> (usize, String) {
    let bad = job(folder, text).unwrap_err();
    let first = bad.located().into_iter().next().unwrap();
    (first.line, format!("{}; {}", first.what, first.help))
}

#[test]
fn values_and_ranges_are_combined() {
    let folder = folder();
    let group = group(
        folder.path(),
        "each = { lr = [0.10, 1e-5, 0x10, \"big\", true], seed = \"2..4\" }\noutputs = [\"${lr}-${seed}\"]",
    );
    assert_eq!(group.array, Some((0, 10)));
    assert_eq!(
        expanded(&group, "${lr} ${seed} ${index}"),
        [
            "0.10 2 0", "0.10 3 1", "1e-5 2 2", "1e-5 3 3", "16 2 4", "16 3 5", "big 2 6",
            "big 3 7", "true 2 8", "true 3 9",
        ]
    );
}

#[test]
fn each_line_of_a_file_is_a_task() {
    let folder = folder();
    fs::write(
        folder.path().join("samples.txt"),
        "one\r\n\n  two words \n \t\nthree",
    )
    .unwrap();
    let group = group(folder.path(), "each_line = \"samples.txt\"");
    assert_eq!(
        expanded(&group, "<${line}>"),
        ["<one>", "<  two words >", "<three>"]
    );
}

#[test]
fn each_file_goes_to_its_own_task() {
    let folder = folder();
    let text = text(
        "each = { x = [1, 2] }\neach_file = \"maps/**/*.png\"\ninputs = [\"scene.pov\"]\n\
         outputs = [\"${stem}-${x}.txt\"]",
    );
    let spec = job(folder.path(), &text).unwrap();
    let group = &spec.groups()[0];
    assert_eq!(
        expanded(group, "${x} ${file} ${stem}"),
        [
            "1 maps/a.png a",
            "1 maps/b.png b",
            "1 maps/sub/e.png e",
            "2 maps/a.png a",
            "2 maps/b.png b",
            "2 maps/sub/e.png e",
        ]
    );
    let [Input::File(shared), Input::FileEach(first)] = group.inputs[..] else {
        panic!("{:?}", group.inputs);
    };
    let path = |at: u32| &*spec.files()[at as usize].path;
    assert_eq!(path(shared), "scene.pov");
    let own: Vec<&str> = (first..first + 6).map(path).collect();
    assert_eq!(own, expanded(group, "${file}"));
}

#[test]
fn inputs_have_the_names_that_parameters_give_them() {
    let folder = folder();
    let lines =
        "each = { part = [\"2.txt\", \"4.txt\"] }\ninputs = [\"part-${part}\", \"scene.pov\"]";
    let spec = job(folder.path(), &text(lines)).unwrap();
    let [Input::FileEach(first), Input::File(_)] = spec.groups()[0].inputs[..] else {
        panic!("{:?}", spec.groups()[0].inputs);
    };
    let path = |at: u32| &*spec.files()[at as usize].path;
    assert_eq!((path(first), path(first + 1)), ("part-2.txt", "part-4.txt"));
}

#[test]
fn wrong_parameters_are_told_with_their_line() {
    let folder = folder();
    fs::write(folder.path().join("blank.txt"), "\n \n").unwrap();
    fs::write(folder.path().join("bytes.txt"), b"a\n\xff\n").unwrap();
    for (lines, said) in [
        ("each = {}", "`each` names no parameter"),
        ("each = 3", "must be a table"),
        ("each = { a = [] }", "`a` has no value"),
        (
            "each = { a = 3 }",
            "`a` is a number, but must be a list or a range",
        ),
        ("each = { a = \"x\" }", "\"x\" is no range"),
        ("each = { a = \"3..3\" }", "\"3..3\" holds no number"),
        ("each = { a = [[1]] }", "a value of `a` is a list"),
        (
            "each = { index = [1] }",
            "\"index\" cannot be the name of a parameter",
        ),
        (
            "each = { a = \"0..1001\", b = \"0..1000\" }",
            "more than 1000000 tasks",
        ),
        (
            "each = { line = [1] }\neach_line = \"list.txt\"",
            "there is another parameter `line`",
        ),
        (
            "array = \"0..3\"\neach = { a = [1] }",
            "either `array` or parameters",
        ),
        (
            "each_line = \"lits.txt\"",
            "the file \"lits.txt\" does not exist; files are looked for beside the job file; \
          did you mean \"list.txt\"?",
        ),
        ("each_line = \"maps\"", "neither a file"),
        ("each_line = \"blank.txt\"", "has no line that is not blank"),
        (
            "each_line = \"bytes.txt\"",
            "line 2 of \"bytes.txt\" is no UTF-8 text",
        ),
        (
            "each_file = \"maps/*.jpg\"",
            "no file matches \"maps/*.jpg\"",
        ),
    ] {
        let (line, told) = refused(folder.path(), &text(lines));
        assert!(told.contains(said), "{lines}: {told}");
        assert_eq!(line, 4, "{lines}: {told}");
    }
}

#[test]
fn names_that_collide_are_told_with_their_line_before_anything_runs() {
    let folder = folder();
    fs::write(folder.path().join("twice.txt"), "a\nb\na\n").unwrap();
    for (lines, said) in [
        (
            "each = { a = [1, 2] }\noutputs = [\"x\"]",
            "would leave the output \"x\"; write `${index}`, or all that differs (`${a}`)",
        ),
        (
            "each = { a = [1, 2], b = [1, 2] }\noutputs = [\"x-${b}\"]",
            "two tasks of \"a\" would both leave the result \"x-1\"",
        ),
        (
            "each_line = \"twice.txt\"\noutputs = [\"${line}\"]",
            "would both leave the result \"a\"",
        ),
        (
            "each_file = \"maps/**/*.png\"\noutputs = [\"${file}*\"]",
            "neither",
        ),
        (
            "each_file = \"maps/*.png\"\ninputs = [\"maps/a.png\"]",
            "two inputs of this task would lie at \"maps/a.png\"",
        ),
    ] {
        if said == "neither" {
            job(folder.path(), &text(lines)).unwrap();
            continue;
        }
        let (line, told) = refused(folder.path(), &text(lines));
        assert!(told.contains(said), "{lines}: {told}");
        let expected = 5 - usize::from(said.starts_with("two inputs"));
        assert_eq!(line, expected, "{lines}: {told}");
    }
}

#[test]
fn each_task_may_wait_for_the_one_at_its_own_place() {
    let folder = folder();
    fs::write(folder.path().join("three.txt"), "a\nb\nc\n").unwrap();
    let job = |waits: &str| {
        let text = format!(
            "[[task]]\nid = \"cut\"\neach_line = \"three.txt\"\ncommand = [\"true\"]\noutputs = [\"out\"]\n\
             [[task]]\nid = \"one\"\ncommand = [\"true\"]\n\
             [[task]]\nid = \"fold\"\narray = \"5..8\"\ncommand = [\"true\"]\n{waits}\n"
        );
        job(folder.path(), &text)
    };
    let spec =
        job("inputs = [\"scene.pov\", { task = \"cut\", each = true }]\ndeps = [\"one\"]").unwrap();
    assert_eq!(
        spec.groups()[2].inputs,
        [Input::File(0), Input::TaskEach("cut".into())]
    );
    assert_eq!((spec.each(2), spec.waits_for(2)), (&[0][..], &[0, 1][..]));
    let spec = job(
        "deps = [{ task = \"cut\", each = true }, \"one\"]\ninputs = [{ task = \"one\", each = false }]",
    );
    let spec = spec.unwrap();
    assert_eq!((spec.each(2), spec.waits_for(2)), (&[0][..], &[0, 1][..]));
    for (waits, said) in [
        (
            "inputs = [{ task = \"one\", each = true }]",
            "has 3 tasks and \"one\" has 1",
        ),
        (
            "deps = [\"one\",\n{ task = \"one\", each = true }]",
            "has 3 tasks and \"one\" has 1",
        ),
        (
            "deps = [\"cut\",\n{ task = \"cut\", each = true }]",
            "waits for all of \"cut\" and for each of it",
        ),
        (
            "inputs = [{ task = \"cut\", each = true, need = 2 }]",
            "leave `need` or `each` out",
        ),
        (
            "inputs = [{ task = \"cut\", each = 3 }]",
            "`each` is a number here",
        ),
        ("deps = [{ each = true }]", "this dependency names nothing"),
        (
            "inputs = [{ task = \"cut\", each = true }, \"out\"]",
            "\"out\" does not exist",
        ),
    ] {
        let bad = job(waits).unwrap_err();
        let (line, told) = (bad.located()[0].line, bad.to_string());
        assert!(told.contains(said), "{waits}: {told}");
        assert_eq!(line, 13 + waits.matches('\n').count(), "{waits}: {told}");
    }
}

#[test]
fn placeholders_are_checked_by_name() {
    let folder = folder();
    for (command, line, said) in [
        (
            "[\"run\",\n\"${sed}\"]",
            4,
            "`${sed}` is not known here; known are `${index}`, `${lr}`, `${hedge}`",
        ),
        (
            "[\"run\", \"${sed}\",\n\"sh\", \"-c\", \"${sed}\"]",
            3,
            "`${sed}` is not known here",
        ),
    ] {
        let text = format!("[[task]]\nid = \"a\"\ncommand = {command}\neach = {{ lr = [1] }}\n");
        let (found, told) = refused(folder.path(), &text);
        assert!(told.contains(said), "{command}: {told}");
        assert_eq!(found, line, "{told}");
    }
    let shell = "[[task]]\nid = \"a\"\ncommand = [\"sh\", \"-c\", \"${sed}\",\n \"${index}\"]\n";
    let (line, told) = refused(folder.path(), shell);
    assert_eq!(line, 4, "{told}");
    assert!(
        told.contains("`${index}` has no meaning here: the task is not an array"),
        "{told}"
    );
    let fine = "[[task]]\nid = \"a\"\ncommand = [\"bash\", \"-c\", \"${sed} $${index} ${x:-1}\"]\n";
    job(folder.path(), fine).unwrap();
}

#[test]
fn a_program_runs_once_for_each_line() {
    let folder = folder();
    let run = |each: ProgramLines, outputs: &[&str], inputs: &[&str]| {
        let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let program = Program {
            words: texts(&["echo", "${line}"]),
            each: Some(each),
            outputs: texts(outputs),
            inputs: texts(inputs),
            ..Program::default()
        };
        let found = program.find(folder.path());
        found.map(|found| found.job(&[]).unwrap())
    };
    let file = || ProgramLines::File("list.txt".to_owned());
    let spec = run(file(), &["${line}.out"], &["part-${line}.txt"]);
    assert!(spec.unwrap_err().contains("\"part-1.txt\" does not exist"));
    let spec = run(file(), &["${line}.out"], &[]).unwrap();
    assert_eq!(
        expanded(&spec.groups()[0], "${line}.out"),
        ["1.out", "2.out"]
    );
    let bytes = || ProgramLines::Bytes(b"2\n3\n".to_vec());
    let spec = run(bytes(), &[], &["part-${line}.txt"]).unwrap();
    assert_eq!(&*spec.files()[1].path, "part-3.txt");
    for (found, said) in [
        (run(bytes(), &["x"], &[]), "would leave the output \"x\""),
        (
            run(bytes(), &["${lin}"], &[]),
            "`${lin}` has no meaning in \"${lin}\": known are",
        ),
        (
            run(ProgramLines::Bytes(Vec::new()), &[], &[]),
            "no line that is not blank",
        ),
        (
            run(ProgramLines::File("lsit.txt".to_owned()), &[], &[]),
            "in the current folder; did you mean \"list.txt\"?",
        ),
    ] {
        let told = found.unwrap_err();
        assert!(told.contains(said), "{told}");
    }
}
