use super::super::{Axis, Column, CriticalRule, Draft, Qos, SpecError};
use super::*;
use crate::JobSpec;
use crate::{Data, FileEntry};

fn task(id: &str, array: Option<(u32, u32)>, outputs: &[&str], inputs: &[&str]) -> Group {
    Group {
        array,
        outputs: outputs.iter().map(|name| (*name).into()).collect(),
        inputs: inputs.iter().map(|id| Input::Task((*id).into())).collect(),
        ..Group::program(id, &["true"])
    }
}

fn job(groups: Vec<Group>) -> Draft {
    Draft {
        name: "t".into(),
        qos: Qos::default(),
        critical: CriticalRule::default(),
        files: vec![],
        groups,
        outline: false,
    }
}

fn mistake(groups: Vec<Group>) -> SpecError {
    JobSpec::new(job(groups)).unwrap_err()
}

fn place(error: &SpecError) -> (Option<usize>, &'static str, Option<usize>) {
    (error.place.group, error.place.key, error.place.item)
}

#[test]
fn patterns_that_cannot_be_read_are_refused() {
    for pattern in ["a[", "{a", "[z-a]", "x/[!"] {
        let error = mistake(vec![task("a", None, &["fine", pattern], &[])]);
        assert_eq!(place(&error), (Some(0), "outputs", Some(1)), "{error}");
    }
    JobSpec::new(job(vec![task("a", None, &["[ab]*.{c,d}", "a]"], &[])])).unwrap();
}

#[test]
fn results_with_the_same_name_are_refused() {
    let plain = mistake(vec![
        task("a", None, &["x"], &[]),
        task("b", None, &["y", "x"], &[]),
    ]);
    assert_eq!(place(&plain), (Some(1), "outputs", Some(1)));
    assert!(plain.what.contains("\"a\" and \"b\""), "{plain}");
    let array = mistake(vec![task("a", Some((0, 3)), &["x"], &[])]);
    assert!(array.help.contains("${index}"), "{array}");
    for (first, second) in [
        ("x-${index}", "x-${index}"),
        ("x-12", "x-${index}"),
        ("x-${index}", "x-12"),
    ] {
        let one = |name: &str| (!name.contains("12")).then_some((5, 20));
        let groups = vec![
            task("a", one(first), &[first], &[]),
            task("b", one(second), &[second], &[]),
        ];
        let error = mistake(groups);
        assert_eq!(place(&error), (Some(1), "outputs", Some(0)), "{error}");
    }
}

#[test]
fn names_that_differ_or_go_different_ways_are_fine() {
    let fine = |groups| JobSpec::new(job(groups)).map(drop).unwrap();
    let (low, high) = (Some((0, 10)), Some((10, 20)));
    fine(vec![
        task("a", low, &["x-${index}"], &[]),
        task("b", high, &["x-${index}"], &[]),
    ]);
    fine(vec![
        task("a", low, &["x-${index}"], &[]),
        task("b", None, &["x-10", "x-01"], &[]),
    ]);
    fine(vec![
        task("a", low, &["out/", "*.png"], &[]),
        task("b", None, &["out/", "*.png"], &[]),
    ]);
    fine(vec![task("a", None, &["x", "x"], &[])]);
    // Each is read by another task, and neither is a result.
    fine(vec![
        task("a", None, &["x"], &[]),
        task("b", None, &["x"], &[]),
        task("c", None, &["c"], &["a"]),
        task("d", None, &["d"], &["b", "b"]),
    ]);
}

#[test]
fn inputs_with_the_same_name_are_refused() {
    let both = mistake(vec![
        task("a", None, &["x-3"], &[]),
        task("b", Some((0, 9)), &["x-${index}"], &[]),
        task("c", None, &["c"], &["a", "b"]),
    ]);
    assert_eq!(place(&both), (Some(2), "inputs", Some(1)), "{both}");
    assert!(both.what.contains("\"x-3\""), "{both}");
    for input in [Input::File(0), Input::FileEach(0)] {
        let file = FileEntry {
            path: "x".into(),
            executable: false,
            data: Data::Inline([0].as_slice().into()),
        };
        let mut reader = task("b", None, &[], &["a"]);
        reader.inputs.push(input);
        let draft = Draft {
            files: vec![file],
            ..job(vec![task("a", None, &["x"], &[]), reader])
        };
        let error = JobSpec::new(draft).unwrap_err();
        assert_eq!(place(&error), (Some(1), "inputs", Some(1)), "{error}");
    }
}

#[test]
fn a_job_that_was_taken_by_an_earlier_version_is_read() {
    let draft = job(vec![task("a", Some((0, 3)), &["x", "a["], &[])]);
    let bytes = rmp_serde::to_vec_named(&draft).unwrap();
    let spec = JobSpec::decode(&bytes).unwrap();
    assert!(spec.check_names().is_err());
}

fn sweep(id: &str, outputs: &[&str]) -> Group {
    let file = Axis::Table(vec![Column {
        name: "file".into(),
        values: ["a.txt", "sub/b.txt", "1"].iter().collect(),
    }]);
    let seed = Axis::Range {
        name: "seed".into(),
        from: 0,
        to: 20,
    };
    Group {
        axes: vec![file, seed].into(),
        ..task(id, Some((0, 60)), outputs, &[])
    }
}

#[test]
fn results_with_parameters_in_their_names_are_compared() {
    let fine = |groups| JobSpec::new(job(groups)).map(drop).unwrap();
    fine(vec![sweep(
        "a",
        &["${file}-${seed}", "x-${index}", "out/", "*.png"],
    )]);
    fine(vec![
        sweep("a", &["${file}-${seed}"]),
        task("b", Some((20, 30)), &["1-${index}"], &[]),
        task("c", None, &["1-30", "a.txt"], &[]),
    ]);
    for (outputs, name) in [
        (&["x"][..], "x"),
        (&["x-${seed}"], "x-0"),
        (&["${file}"], "a.txt"),
        (&["${seed}${seed}"], "00"),
        (&["f-${file}-${seed}", "f-a.txt-${index}"], "f-a.txt-0"),
    ] {
        let error = mistake(vec![sweep("a", outputs)]);
        let item = outputs.len() - 1;
        assert_eq!(error.place.key, "outputs", "{error}");
        assert!(error.what.contains(&format!("{name:?}")), "{error}");
        assert!(error.help.contains("${seed}"), "{error}");
        assert!(error.place.item <= Some(item), "{error}");
    }
    for other in [
        task("b", None, &["1-12"], &[]),
        task("b", Some((19, 30)), &["1-${index}"], &[]),
        sweep("b", &["${file}-${seed}"]),
    ] {
        for groups in [
            vec![sweep("a", &["${file}-${seed}"]), other.clone()],
            vec![other.clone(), sweep("a", &["${file}-${seed}"])],
        ] {
            let error = mistake(groups);
            assert_eq!(error.place.key, "outputs", "{error}");
            let said = ["\"1-12\"", "\"1-19\"", "\"a.txt-0\""];
            assert!(said.iter().any(|name| error.what.contains(name)), "{error}");
        }
    }
}

#[test]
fn values_that_make_no_name_are_refused() {
    for (outputs, said) in [
        (["${file}/../x-${seed}"], "leaves the task's folder"),
        (["/${file}-${seed}"], "is absolute"),
    ] {
        let error = mistake(vec![sweep("a", &outputs)]);
        assert!(error.what.contains(said), "{error}");
    }
    for value in ["", "a*", "[1]", "{a,b}", "../x", "/x"] {
        let axis = Axis::Table(vec![Column {
            name: "name".into(),
            values: ["fine", value].iter().collect(),
        }]);
        let group = |output: &str| Group {
            axes: vec![axis.clone()].into(),
            ..task("a", Some((0, 2)), &[output], &[])
        };
        let error = mistake(vec![group("${name}")]);
        assert_eq!(place(&error), (Some(0), "outputs", Some(0)), "{error}");
        assert!(error.what.contains("in one task"), "{error}");
        JobSpec::new(job(vec![group("x-${index}")])).unwrap();
    }
}

#[test]
fn what_would_take_long_to_compare_is_refused() {
    let spec = JobSpec::new(job(vec![sweep("a", &["${file}-${seed}"])])).unwrap();
    // Each name is made once to look at it and once to compare it.
    assert_eq!(
        check_within(&Addition::all_of(&spec), Budget::new(120)),
        Ok(())
    );
    let error = check_within(&Addition::all_of(&spec), Budget::new(119)).unwrap_err();
    assert_eq!(place(&error), (Some(0), "outputs", Some(0)));
    assert!(error.what.contains("would have to be compared"), "{error}");
    let indexed = JobSpec::new(job(vec![sweep("a", &["x-${index}"])])).unwrap();
    assert_eq!(
        check_within(&Addition::all_of(&indexed), Budget::new(0)),
        Ok(())
    );
}

#[test]
fn placeholders_that_mean_nothing_are_refused() {
    for (group, key, item) in [
        (Group::program("a", &["x", "${home}"]), "command", 1),
        (task("a", None, &["x", "${index}"], &[]), "outputs", 1),
        (sweep("a", &["${file}-${seed}", "${sed}"]), "outputs", 1),
    ] {
        let error = mistake(vec![group]);
        assert_eq!(place(&error), (Some(0), key, Some(item)), "{error}");
    }
}

#[test]
fn inputs_by_place_are_compared_within_each_task() {
    let reads = |others: &[&str], file: bool| {
        let each = others.iter().map(|id| Input::TaskEach((*id).into()));
        let file = file.then_some(Input::File(0));
        Group {
            inputs: file.into_iter().chain(each).collect(),
            ..task("last", Some((5, 65)), &["y-${index}"], &[])
        }
    };
    let draft = |groups| Draft {
        files: vec![FileEntry {
            path: "x".into(),
            executable: false,
            data: Data::Inline([0].as_slice().into()),
        }],
        ..job(groups)
    };
    let fine = |groups| JobSpec::new(draft(groups)).map(drop).unwrap();
    let plain = |id, array| task(id, Some(array), &["x"], &[]);
    // No other task reads these, so that all of them may have one name.
    fine(vec![plain("a", (0, 60)), reads(&["a", "a"], false)]);
    fine(vec![sweep("a", &["${file}"]), reads(&["a"], true)]);
    fine(vec![
        task("a", Some((0, 60)), &["x-${index}"], &[]),
        task("b", Some((1, 61)), &["x-${index}"], &[]),
        reads(&["a", "b"], false),
    ]);
    for (groups, name) in [
        (vec![plain("a", (0, 60)), reads(&["a"], true)], "x"),
        (
            vec![
                plain("a", (0, 60)),
                plain("b", (1, 61)),
                reads(&["a", "b"], false),
            ],
            "x",
        ),
        (
            vec![
                sweep("a", &["n-${seed}"]),
                task("b", Some((0, 60)), &["n-${index}"], &[]),
                reads(&["a", "b"], false),
            ],
            "n-0",
        ),
    ] {
        let error = JobSpec::new(draft(groups)).unwrap_err();
        assert_eq!(error.place.key, "inputs", "{error}");
        assert!(error.what.contains(&format!("{name:?}")), "{error}");
    }
}
