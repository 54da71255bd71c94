//! Kinds of tasks by their names: workflow programs name tasks `blast_00017` or `map_3fa92c1e`, and tasks that differ
//! by such a suffix alone behave alike.

/// The fewest kinds that say anything about how tasks are named.
pub const KINDS_TOLD: usize = 10;

/// Returns a name without the suffixes that number its instances: numbers, numbers behind `ID`, hexadecimal hashes, and
/// a last part in parentheses. The first word always stays.
pub fn stem(name: &str) -> &str {
    let mut rest = name.trim_end();
    if let Some((before, _)) = rest
        .strip_suffix(')')
        .and_then(|open| open.rsplit_once('('))
        && !before.trim_end().is_empty()
    {
        rest = before.trim_end();
    }
    while let Some(at) = rest.rfind(|c: char| "_-.:#/".contains(c) || c.is_whitespace()) {
        let (before, last) = (&rest[..at], &rest[at..]);
        let last = last.trim_start_matches(|c: char| !c.is_alphanumeric());
        if before.is_empty() || !numbers_an_instance(last) {
            break;
        }
        rest = before;
    }
    rest
}

/// Returns a name without any digit, for names that number their instances within a word, like `frame12`.
pub fn without_digits(name: &str) -> String {
    name.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Returns whether nine tenths of at least [`KINDS_TOLD`] kinds, each given by its number of tasks, have one task: then
/// hardly any task has siblings to learn from.
pub fn mostly_single(kinds: impl IntoIterator<Item = u32>) -> bool {
    let (mut all, mut single) = (0usize, 0usize);
    for tasks in kinds {
        all += 1;
        single += usize::from(tasks == 1);
    }
    all >= KINDS_TOLD && single * 10 >= all * 9
}

/// Whether a word is a number, `ID` and a number, or a hash. Four hexadecimal digits are the groups of a UUID.
fn numbers_an_instance(word: &str) -> bool {
    const HASH_MIN: usize = 4;
    let number = word.strip_prefix("ID").unwrap_or(word);
    let digit = |c: char| c.is_ascii_digit();
    number.chars().all(digit)
        || (word.len() >= HASH_MIN
            && word.chars().all(|c| c.is_ascii_hexdigit())
            && word.chars().any(digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_that_number_instances_are_dropped_and_names_of_programs_stay() {
        for (name, kind) in [
            ("blastall_ID000002", "blastall"),
            ("split_fasta_ID000001", "split_fasta"),
            ("bowtie2-build_ID0000001", "bowtie2-build"),
            ("bowtie2_17", "bowtie2"),
            ("map.0003-12", "map"),
            ("QC:FASTQC (sample_2)", "QC:FASTQC"),
            ("merge_3fa92c1e", "merge"),
            ("t-6f1b2c3d-0a1b-4c2d-8e3f-0123456789ab", "t"),
            ("cat_blast", "cat_blast"),
            ("add_face", "add_face"),
            ("0017", "0017"),
            ("_12", "_12"),
            ("(12)", "(12)"),
            ("frame12", "frame12"),
        ] {
            assert_eq!(stem(name), kind, "{name}");
        }
        assert_eq!(without_digits("frame12"), "frame");
    }

    #[test]
    fn nine_tenths_of_kinds_with_one_task_are_mostly_single() {
        assert!(mostly_single([1; 10]));
        assert!(mostly_single([1, 1, 1, 1, 1, 1, 1, 1, 1, 50]));
        assert!(!mostly_single([1, 1, 1, 1, 1, 1, 1, 1, 2, 50]));
        assert!(!mostly_single([1; 9]), "a small job of different tasks");
    }
}
