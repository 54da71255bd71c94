//! Checks the names of a job's files at submission: patterns that are not valid, and files that would have the same
//! path. What a pattern matches is known only after the tasks have run, so patterns are not compared.

use super::addition::Addition;
use super::placeholders::is_glob;
use super::template::Template;
use super::validate::{Checked, Place, check_path, wrong};
use super::{Group, Input};
use globset::GlobBuilder;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};

/// The most digits of an index.
const INDEX_DIGITS_MAX: usize = 10;
/// The most names with parameters that are expanded to check one job: work for a few seconds.
const EXPANDED_MAX: u64 = 20_000_000;
/// The same for an extension of an open job, which is checked on the thread that handles all requests: a tenth of a
/// second.
const ADDED_EXPANDED_MAX: u64 = 400_000;

/// Names of files that will be in one directory.
#[derive(Default)]
struct Names<'a> {
    plain: BTreeMap<String, &'a Group>,
    /// Names with an index, by the text before and after it.
    indexed: BTreeMap<(String, String), Vec<Indices<'a>>>,
    /// Names with parameters by their hash: the position of the template, and the task's offset.
    expanded: BTreeMap<u64, (usize, u32)>,
    templates: Vec<Template<'a>>,
}

/// The index range of an array.
struct Indices<'a> {
    from: u32,
    /// The index after the last.
    to: u32,
    group: &'a Group,
}

/// A declared output that names one file for each task.
enum Name<'a> {
    Plain(String),
    /// The text before the index and after it.
    Indexed(String, String),
    /// A name with parameters.
    Expanded(Template<'a>),
}

/// How many more names with parameters may be expanded.
struct Budget {
    left: u64,
    all: u64,
}

impl Budget {
    fn new(all: u64) -> Self {
        Self { left: all, all }
    }

    fn take(&mut self, place: Place, group: &Group) -> Checked<()> {
        let Some(left) = self.left.checked_sub(u64::from(group.count())) else {
            return wrong(
                place,
                format!(
                    "more than {} names of files would have to be compared",
                    self.all
                ),
                "write `${index}` into names instead of parameters: such names are compared at once",
            );
        };
        self.left = left;
        Ok(())
    }
}

pub(super) fn check(addition: &Addition<'_>) -> Checked<()> {
    let most = match addition.extends() {
        true => ADDED_EXPANDED_MAX,
        false => EXPANDED_MAX,
    };
    check_within(addition, Budget::new(most))
}

fn check_within(addition: &Addition<'_>, mut budget: Budget) -> Checked<()> {
    let groups = addition.groups;
    for (at, group) in groups.iter().enumerate() {
        check_placeholders(at, group)?;
        check_globs(at, group)?;
        check_values(at, group, &mut budget)?;
    }
    let waited_for: BTreeSet<&str> = groups.iter().flat_map(waits_for).collect();
    let read: BTreeSet<&str> = groups
        .iter()
        .flat_map(|group| &group.inputs)
        .filter_map(|input| match input {
            Input::Task(id) => Some(&**id),
            _ => None,
        })
        .collect();
    let mut results = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        // In an open job, later groups may depend on any task. Its outputs are distinguished by their task.
        let result = group.keep || addition.open || !waited_for.contains(&*group.id);
        if result || read.contains(&*group.id) {
            check_array(at, group)?;
        }
        if result && !addition.open {
            let names = names(group);
            results.extend(names.map(|(item, name)| (output(at, item), name, group)));
        }
    }
    let mut there = Names::default();
    for (place, name, group) in ordered(results) {
        there
            .add(place, name, group, &mut budget)?
            .or_else(|taken| {
                let Taken { name, by } = taken;
                wrong(
                    place,
                    format!("{} would both leave the result {name:?}", both(by, group)),
                    tell_apart(group),
                )
            })?;
    }
    for (at, group) in groups.iter().enumerate() {
        check_inputs(addition, at, group, &mut budget)?;
    }
    Ok(())
}

/// The groups that a group depends on.
fn waits_for(group: &Group) -> impl Iterator<Item = &str> {
    let inputs = group.inputs.iter().filter_map(Input::task);
    let deps = group.deps.iter().chain(group.deps_each.iter());
    deps.chain(inputs).map(|id| &**id)
}

fn output(at: usize, item: usize) -> Place {
    Place {
        group: Some(at),
        key: "outputs",
        item: Some(item),
    }
}

fn both(one: &Group, other: &Group) -> String {
    match one.id == other.id {
        true => format!("two tasks of {:?}", one.id),
        false => format!("the tasks {:?} and {:?}", one.id, other.id),
    }
}

fn tell_apart(group: &Group) -> String {
    let names = group.parameters();
    let Some(all) = listed(&names) else {
        return "give each output a name of its own".to_owned();
    };
    format!(
        "give each output a name of its own: write `${{index}}` into it, or all that differs: {all}"
    )
}

/// Returns names of parameters as they are written in texts.
fn listed(names: &[std::sync::Arc<str>]) -> Option<String> {
    let written: Vec<String> = names.iter().map(|name| format!("`${{{name}}}`")).collect();
    (!written.is_empty()).then(|| written.join(", "))
}

fn check_placeholders(at: usize, group: &Group) -> Checked<()> {
    let Some(unknown) = group.unknown_placeholders().into_iter().next() else {
        return Ok(());
    };
    let place = Place {
        group: Some(at),
        key: unknown.key,
        item: Some(unknown.item),
    };
    wrong(place, unknown.what(), unknown.help(&[]))
}

fn check_globs(at: usize, group: &Group) -> Checked<()> {
    for (item, pattern) in group.outputs.iter().enumerate() {
        // The braces of `${index}` are not part of a pattern.
        let first = Template::new(group, pattern).expand(0);
        if !is_glob(&first) {
            continue;
        }
        let read = GlobBuilder::new(&first).literal_separator(true).build();
        if let Err(error) = read {
            return wrong(
                output(at, item),
                format!("the output {pattern:?} is no pattern: {}", error.kind()),
                "write `*` for any part of a name, `**` for any folders, `[ab]` for one of these",
            );
        }
    }
    Ok(())
}

/// Checks that no value of a parameter makes an output's name invalid or a pattern.
fn check_values(at: usize, group: &Group, budget: &mut Budget) -> Checked<()> {
    let mut name = String::new();
    for (item, pattern) in group.outputs.iter().enumerate() {
        let template = Template::new(group, pattern);
        if !template.has_parameter() {
            continue;
        }
        budget.take(output(at, item), group)?;
        let special = |text: &str| {
            text.chars()
                .filter(|c| is_glob(c.encode_utf8(&mut [0; 4])))
                .count()
        };
        let written = special(&template.without_values());
        for offset in 0..group.count() {
            template.write(offset, &mut name);
            if let Err(why) = check_path(name.trim_end_matches('/')) {
                return wrong(
                    output(at, item),
                    format!("the output {pattern:?} would be {name:?} in one task, which {why}"),
                    "leave the parameter out of the name, or write `${index}` instead",
                );
            }
            if special(&name) > written {
                return wrong(
                    output(at, item),
                    format!(
                        "the output {pattern:?} would be {name:?} in one task, and a parameter is no part of a pattern"
                    ),
                    "leave the parameter out of the name, or write `${index}` instead",
                );
            }
        }
    }
    Ok(())
}

/// Checks that the tasks of an array do not all leave the same file.
fn check_array(at: usize, group: &Group) -> Checked<()> {
    if group.count() < 2 {
        return Ok(());
    }
    for (item, name) in names(group) {
        if let Name::Plain(name) = name {
            let or = listed(&group.parameters());
            let or = or.map_or_else(String::new, |all| format!(", or all that differs ({all}),"));
            return wrong(
                output(at, item),
                format!(
                    "all tasks of the array {:?} would leave the output {name:?}",
                    group.id
                ),
                format!(
                    "write `${{index}}`{or} into its name; or end it with `/` where it is a folder whose files have \
                     names of their own"
                ),
            );
        }
    }
    Ok(())
}

fn check_inputs(
    addition: &Addition<'_>,
    at: usize,
    group: &Group,
    budget: &mut Budget,
) -> Checked<()> {
    let place = |item| Place {
        group: Some(at),
        key: "inputs",
        item: Some(item),
    };
    let clash = |place, name: &str| {
        wrong(
            place,
            format!("two inputs of task {:?} would lie at {name:?}", group.id),
            "give the outputs of the tasks before it, and its files, different names",
        )
    };
    let mut all = Vec::new();
    let mut seen = BTreeSet::new();
    for (item, input) in group.inputs.iter().enumerate() {
        match input {
            Input::Task(id) if seen.insert(&**id) => {
                let Some(from) = named(addition, id) else {
                    continue;
                };
                all.extend(names(from).map(|(_, name)| (place(item), name, from)));
            }
            Input::Task(_) | Input::TaskEach(_) => {}
            Input::File(file) => {
                let name = Name::Plain(addition.files[*file as usize].path.to_string());
                all.push((place(item), name, group));
            }
            Input::FileEach(_) => {}
        }
    }
    let mut there = Names::default();
    for (place, name, from) in ordered(all) {
        let added = there.add(place, name, from, budget)?;
        added.or_else(|taken| clash(place, &taken.name))?;
    }
    for (item, input) in group.inputs.iter().enumerate() {
        if let Input::FileEach(first) = input {
            let files = &addition.files[*first as usize..][..group.count() as usize];
            if let Some(file) = files.iter().find(|file| there.holder(&file.path).is_some()) {
                return clash(place(item), &file.path);
            }
        }
    }
    if let Some((item, name)) = clash_of_each(addition, at, &there, budget)? {
        return clash(place(item), &name);
    }
    Ok(())
}

fn named<'a>(addition: &Addition<'a>, id: &str) -> Option<&'a Group> {
    addition.position(id).map(|at| addition.group(at))
}

/// Finds a task in which two files have the same path because it has element-wise inputs. Returns the position of the
/// input, and the path. `there` holds the files that all tasks read.
fn clash_of_each(
    addition: &Addition<'_>,
    at: usize,
    there: &Names<'_>,
    budget: &mut Budget,
) -> Checked<Option<(usize, String)>> {
    let group = &addition.groups[at];
    let mut templates = Vec::new();
    let mut files = Vec::new();
    for (item, input) in group.inputs.iter().enumerate() {
        match input {
            Input::TaskEach(id) if !group.inputs[..item].contains(input) => {
                let from = named(addition, id).into_iter();
                let outputs = from.flat_map(|from| {
                    let named = names(from).map(|(output, _)| &*from.outputs[output]);
                    named.map(|output| Template::new(from, output))
                });
                templates.extend(outputs.map(|template| (item, template)));
            }
            Input::FileEach(first) => files.push(*first),
            _ => {}
        }
    }
    if templates.is_empty() || (templates.len() == 1 && files.is_empty() && there.is_empty()) {
        return Ok(None);
    }
    let mut own: Vec<String> = Vec::new();
    for (item, template) in &templates {
        budget.take(output(at, *item), template.group())?;
    }
    for offset in 0..group.count() {
        own.clear();
        let paths = files
            .iter()
            .map(|first| &addition.files[(first + offset) as usize].path);
        own.extend(paths.map(|path| path.to_string()));
        for (item, template) in &templates {
            let name = template.expand(offset);
            if own.contains(&name) || there.holder(&name).is_some() {
                return Ok(Some((*item, name)));
            }
            own.push(name);
        }
    }
    Ok(None)
}

/// Moves names with parameters to the end, because each of them is looked up among the others.
fn ordered<'a>(
    mut names: Vec<(Place, Name<'a>, &'a Group)>,
) -> impl Iterator<Item = (Place, Name<'a>, &'a Group)> {
    names.sort_by_key(|(_, name, _)| matches!(name, Name::Expanded(_)));
    names.into_iter()
}

/// The names of the files that each task of a group leaves, with their positions in its outputs, without patterns and
/// directories.
fn names(group: &Group) -> impl Iterator<Item = (usize, Name<'_>)> {
    let outputs = group.outputs.iter().enumerate();
    outputs.filter_map(|(item, output)| {
        let first = Template::new(group, output).expand(0);
        let named = !is_glob(&first) && !output.ends_with('/');
        let fresh = !group.outputs[..item].contains(output);
        (named && fresh)
            .then(|| name(group, output))
            .flatten()
            .map(|name| (item, name))
    })
}

/// Returns none for a name with more than one index.
fn name<'a>(group: &'a Group, output: &'a str) -> Option<Name<'a>> {
    let template = Template::new(group, output);
    if template.has_parameter() {
        return Some(Name::Expanded(template));
    }
    let mut parts = template.between_indices();
    let last = parts.pop()?;
    match (parts.pop(), parts.pop()) {
        (None, _) => Some(Name::Plain(last)),
        (Some(first), None) => Some(Name::Indexed(first, last)),
        _ => None,
    }
}

/// A name that another task uses.
struct Taken<'a> {
    name: String,
    by: &'a Group,
}

impl<'a> Names<'a> {
    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.indexed.is_empty() && self.expanded.is_empty()
    }

    /// Adds a file of a group, unless its name is in use. All names with parameters must be added after the others.
    fn add(
        &mut self,
        place: Place,
        name: Name<'a>,
        group: &'a Group,
        budget: &mut Budget,
    ) -> Checked<Result<(), Taken<'a>>> {
        Ok(match name {
            Name::Plain(name) => self.add_plain(name, group),
            Name::Indexed(before, behind) => self.add_indexed(before, behind, group),
            Name::Expanded(template) => {
                budget.take(place, group)?;
                self.add_expanded(template)
            }
        })
    }

    fn add_plain(&mut self, name: String, group: &'a Group) -> Result<(), Taken<'a>> {
        if let Some(by) = self.holder(&name) {
            return Err(Taken { name, by });
        }
        self.plain.insert(name, group);
        Ok(())
    }

    fn add_indexed(
        &mut self,
        before: String,
        behind: String,
        group: &'a Group,
    ) -> Result<(), Taken<'a>> {
        let (from, to) = group.array.unwrap_or((0, 1));
        let begins = self.plain.range(before.clone()..);
        for (name, by) in begins.take_while(|(name, _)| name.starts_with(&before)) {
            let index = name
                .strip_prefix(&*before)
                .and_then(|rest| index_in(rest, &behind));
            if index.is_some_and(|index| (from..to).contains(&index)) {
                let name = name.clone();
                return Err(Taken { name, by });
            }
        }
        let key = (before, behind);
        let same = self.indexed.get(&key).into_iter().flatten();
        for other in same {
            if from < other.to && other.from < to {
                let ((before, behind), both) = (key, from.max(other.from));
                let name = format!("{before}{both}{behind}");
                let by = other.group;
                return Err(Taken { name, by });
            }
        }
        self.indexed
            .entry(key)
            .or_default()
            .push(Indices { from, to, group });
        Ok(())
    }

    fn add_expanded(&mut self, template: Template<'a>) -> Result<(), Taken<'a>> {
        let at = self.templates.len();
        let count = template.group().count();
        self.templates.push(template);
        let mut name = String::new();
        for offset in 0..count {
            self.templates[at].write(offset, &mut name);
            if let Some(by) = self.holder(&name) {
                return Err(Taken { name, by });
            }
            self.expanded.insert(hash(&name), (at, offset));
        }
        Ok(())
    }

    /// Returns the group that uses a name.
    fn holder(&self, name: &str) -> Option<&'a Group> {
        if let Some(group) = self.plain.get(name) {
            return Some(group);
        }
        if let Some((at, offset)) = self.expanded.get(&hash(name)) {
            let template = &self.templates[*at];
            if template.expand(*offset) == name {
                return Some(template.group());
            }
        }
        if self.indexed.is_empty() {
            return None;
        }
        // Every run of digits may be an index.
        let digit = |at: usize| name.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
        for start in (0..name.len()).filter(|at| digit(*at)) {
            let length = (start..).take_while(|at| digit(*at)).count();
            for end in start + 1..=start + length.min(INDEX_DIGITS_MAX) {
                let key = (name[..start].to_owned(), name[end..].to_owned());
                let Some(arrays) = self.indexed.get(&key) else {
                    continue;
                };
                let index = index_in(&name[start..], &key.1);
                let holds = |array: &&Indices<'_>| {
                    index.is_some_and(|index| (array.from..array.to).contains(&index))
                };
                if let Some(array) = arrays.iter().find(holds) {
                    return Some(array.group);
                }
            }
        }
        None
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(name.as_bytes());
    hasher.finish()
}

/// Returns the index at the beginning of a text that ends with `behind`, if it is written as in names.
fn index_in(text: &str, behind: &str) -> Option<u32> {
    let digits = text.strip_suffix(behind)?;
    let index: u32 = digits.parse().ok()?;
    (index.to_string() == digits).then_some(index)
}

#[cfg(test)]
mod tests;
