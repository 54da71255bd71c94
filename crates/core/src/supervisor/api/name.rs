//! Finds the peer or ticket that a person named.

use hedge_model::msg::RefusalKind;
use std::fmt::Display;

/// Shortest beginning of an id that identifies something. A shorter one may be a slip that matches by chance.
const ID_CHARS_MIN: usize = 4;

/// Returns the one item of `all` whose id begins with `name` or whose second name it is. `what` names the kind of
/// item and `list` the command that lists them.
pub(crate) fn only<'a, T>(
    name: &str,
    what: &str,
    list: &str,
    all: impl Iterator<Item = (T, impl Display, Option<&'a str>)>,
) -> Result<T, (RefusalKind, String)> {
    if name.is_empty() {
        let why = format!("an empty id names no {what}; nothing was changed: `{list}` lists ids");
        return Err((RefusalKind::Bad, why));
    }
    let long = name.chars().count() >= ID_CHARS_MIN;
    let (mut found, mut count, mut short) = (None, 0, false);
    for (item, id, other) in all {
        let begins = id.to_string().starts_with(name);
        if other == Some(name) || begins && long {
            found = Some(item);
            count += 1;
        }
        short |= begins && !long;
    }
    match (found, count) {
        (Some(item), 1) => Ok(item),
        (Some(_), count) => Err((
            RefusalKind::Bad,
            format!("{name:?} fits {count} {what}s; nothing was changed: give more of the id"),
        )),
        (None, _) if short => Err((
            RefusalKind::Bad,
            format!(
                "{name:?} is too short to name a {what}; nothing was changed: give at least {ID_CHARS_MIN} \
                 characters of the id"
            ),
        )),
        (None, _) => Err((
            RefusalKind::Unknown,
            format!("no {what} is called {name:?}; nothing was changed: `{list}` lists them"),
        )),
    }
}
