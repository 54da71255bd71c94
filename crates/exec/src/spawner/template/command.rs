//! What a command of the runtime `python` asks of the interpreter, as that would understand it.

/// A command in parts: the options of the interpreter, what it is to run, and how many words follow that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub options: Vec<String>,
    pub form: Form,
    pub target: String,
    pub rest: usize,
}

/// What an interpreter runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `-c CODE`.
    Code,
    /// `-m MODULE`.
    Module,
    /// A file, a folder or an archive.
    File,
}

impl Form {
    pub(crate) fn letter(self) -> &'static str {
        match self {
            Form::Code => "c",
            Form::Module => "m",
            Form::File => "f",
        }
    }
}

/// Options without a value that an interpreter takes when it starts.
const FLAGS: &str = "BbdEIOPqRsStuv";

/// Takes the arguments of an interpreter apart. None where it would read its program from standard input, ask, only tell
/// about itself, or where an option is not known here: such a command runs without a template.
pub(crate) fn parts(args: &[String]) -> Option<Parts> {
    let mut options = Vec::new();
    let mut at = 0;
    loop {
        let word = args.get(at)?;
        at += 1;
        let found = |form, target: &str, options, at: usize| {
            let (target, rest) = (target.to_owned(), args.len() - at);
            Some(Parts {
                options,
                form,
                target,
                rest,
            })
        };
        let letters = match word.strip_prefix('-') {
            None => return found(Form::File, word, options, at),
            Some("-") => return found(Form::File, args.get(at)?, options, at + 1),
            Some("-check-hash-based-pycs") => {
                options.extend([word.clone(), args.get(at)?.clone()]);
                at += 1;
                continue;
            }
            Some("") => return None,
            Some(letters) => letters,
        };
        let valued = letters.find(|letter| !FLAGS.contains(letter));
        let Some(valued) = valued else {
            options.push(word.clone());
            continue;
        };
        let (flags, value) = letters.split_at(valued);
        let letter = value.chars().next()?;
        let value = &value[letter.len_utf8()..];
        let form = match letter {
            'c' => Form::Code,
            'm' => Form::Module,
            'W' | 'X' => {
                options.push(word.clone());
                if value.is_empty() {
                    options.push(args.get(at)?.clone());
                    at += 1;
                }
                continue;
            }
            _ => return None,
        };
        if !flags.is_empty() {
            options.push(format!("-{flags}"));
        }
        return match value.is_empty() {
            false => found(form, value, options, at),
            true => found(form, args.get(at)?, options, at + 1),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Option<(Vec<String>, Form, String, usize)> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        parts(&words).map(|parts| (parts.options, parts.form, parts.target, parts.rest))
    }

    fn is(words: &[&str], options: &[&str], form: Form, target: &str, rest: usize) {
        let options = options.iter().map(|word| (*word).to_owned()).collect();
        let wanted = Some((options, form, target.to_owned(), rest));
        assert_eq!(of(words), wanted, "{words:?}");
    }

    #[test]
    fn commands_are_taken_apart_as_an_interpreter_does() {
        is(&["a.py"], &[], Form::File, "a.py", 0);
        is(&["a.py", "-m", "x"], &[], Form::File, "a.py", 2);
        is(&["--", "-a.py", "1"], &[], Form::File, "-a.py", 1);
        is(&["-m", "a.b", "-c"], &[], Form::Module, "a.b", 1);
        is(&["-ma.b"], &[], Form::Module, "a.b", 0);
        is(&["-c", "pass", "1", "2"], &[], Form::Code, "pass", 2);
        is(&["-uBc", "pass"], &["-uB"], Form::Code, "pass", 0);
        is(&["-u", "-Im", "a"], &["-u", "-I"], Form::Module, "a", 0);
        let options = ["-X", "utf8", "-Wd", "-bWd"];
        let all = [&options[..], &["-c", "1"]].concat();
        is(&all, &options, Form::Code, "1", 0);
        let options = ["--check-hash-based-pycs", "never"];
        is(
            &[&options[..], &["x"]].concat(),
            &options,
            Form::File,
            "x",
            0,
        );
    }

    #[test]
    fn commands_that_need_an_interpreter_of_their_own_are_told() {
        for words in [
            &[][..],
            &["-"],
            &["-u"],
            &["-i", "a.py"],
            &["-ui", "a.py"],
            &["-x", "a.py"],
            &["-V"],
            &["--version"],
            &["--help-all"],
            &["-c"],
            &["-m"],
            &["-W"],
            &["-X", "utf8"],
            &["-é"],
            &["--"],
        ] {
            assert_eq!(of(words), None, "{words:?}");
        }
    }
}
