//! Journals that were written in each format there has been are read as what they were. They were made by
//! `hedge-earlier N supervisor` (in `crates/cli`), one worker and one job of five tasks; what is in `data` never changes.

use hedge_model::record::{FORMAT_MAX, FORMAT_MIN, JobEnd, Record};
use hedge_store::What;
use std::fs;
use std::path::Path;

#[test]
fn journals_of_each_format_are_read() {
    for format in FORMAT_MIN..=FORMAT_MAX {
        let stored =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/format-{format}"));
        let folder = tempfile::tempdir().unwrap();
        for file in fs::read_dir(stored).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        let report = hedge_store::check(folder.path()).unwrap();
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        assert_eq!((report.first, report.last), (Some(0), Some(16)));
        let mut said = Vec::new();
        let mut newest = 0;
        for line in hedge_store::dump(folder.path()).unwrap() {
            if let What::Records { level, records } = line.unwrap().what {
                newest = newest.max(level);
                said.extend(records.iter().cloned());
            }
        }
        assert_eq!(newest, format);
        let count = |which: fn(&Record) -> bool| said.iter().filter(|one| which(one)).count();
        assert_eq!(count(|one| matches!(one, Record::JobAccepted { .. })), 1);
        assert_eq!(count(|one| matches!(one, Record::TaskDone { .. })), 5);
        let done = |one: &Record| {
            matches!(
                one,
                Record::JobEnded {
                    end: JobEnd::Done,
                    ..
                }
            )
        };
        assert_eq!(count(done), 1);
        assert!(
            matches!(said.last(), Some(Record::Set { name, value, .. }) if &**name == "keep" && &**value == "3")
        );
    }
}
