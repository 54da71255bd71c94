//! What library code does not do, seen in its tokens, so that comments and texts may speak of it.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::visit_mut::VisitMut;

use super::Finding;
use super::source::Repository;

/// Macros that library code must not call, and what to do instead.
const MACROS: &[(&str, &str)] = &[
    (
        "print",
        "only the command prints: return what is to be said, or use `tracing`",
    ),
    (
        "println",
        "only the command prints: return what is to be said, or use `tracing`",
    ),
    ("dbg", "remove it"),
    ("todo", "build it, or refuse the input that would need it"),
    (
        "unimplemented",
        "build it, or refuse the input that would need it",
    ),
];

/// Names that none of our code may use, and what to do instead.
const NAMES: &[(&str, &str)] = &[
    (
        "unbounded_channel",
        "every queue has a bound, and says why it is that",
    ),
    (
        "UnboundedSender",
        "every queue has a bound, and says why it is that",
    ),
    (
        "UnboundedReceiver",
        "every queue has a bound, and says why it is that",
    ),
];

/// Checks the sources of the libraries, without their tests.
pub fn check(repository: &Repository) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, rust) in repository.rust() {
        if is_product(&file.path) {
            let mut rust = rust.clone();
            WithoutTests.visit_file_mut(&mut rust);
            let prints = file.path.starts_with("crates/cli/");
            scan(rust.to_token_stream(), &file.path, prints, &mut findings);
        }
    }
    findings
}

fn is_product(path: &str) -> bool {
    let mut parts = path.split('/');
    parts.next() == Some("crates") && parts.nth(1) == Some("src")
}

/// Takes away everything that is compiled for tests alone.
struct WithoutTests;

impl VisitMut for WithoutTests {
    fn visit_file_mut(&mut self, file: &mut syn::File) {
        file.items.retain(|item| !for_tests(item));
        syn::visit_mut::visit_file_mut(self, file);
    }

    fn visit_item_mod_mut(&mut self, item: &mut syn::ItemMod) {
        if let Some((_, items)) = &mut item.content {
            items.retain(|item| !for_tests(item));
        }
        syn::visit_mut::visit_item_mod_mut(self, item);
    }
}

fn for_tests(item: &syn::Item) -> bool {
    let attributes = match item {
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|argument| argument == "test")
    })
}

fn scan(tokens: TokenStream, path: &str, prints: bool, findings: &mut Vec<Finding>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (index, token) in tokens.iter().enumerate() {
        let ident = match token {
            TokenTree::Group(group) => {
                scan(group.stream(), path, prints, findings);
                continue;
            }
            TokenTree::Ident(ident) => ident,
            _ => continue,
        };
        let place = || format!("{path}:{}", ident.span().start().line);
        let next = tokens.get(index + 1);
        let called = matches!(next, Some(TokenTree::Punct(mark)) if mark.as_char() == '!')
            && matches!(tokens.get(index + 2), Some(TokenTree::Group(_)));
        for (name, instead) in MACROS.iter().filter(|(name, _)| called && ident == name) {
            if !(prints && name.starts_with("print")) {
                findings.push(Finding::new(place(), format!("`{name}!`: {instead}")));
            }
        }
        for (name, instead) in NAMES.iter().filter(|(name, _)| ident == name) {
            findings.push(Finding::new(place(), format!("`{name}`: {instead}")));
        }
        let empty = matches!(next, Some(TokenTree::Group(group))
            if group.delimiter() == Delimiter::Parenthesis && group.stream().is_empty());
        let of_mpsc = index.checked_sub(3).is_some_and(
            |holder| matches!(&tokens[holder], TokenTree::Ident(ident) if ident == "mpsc"),
        );
        if ident == "channel" && empty && of_mpsc {
            findings.push(Finding::new(
                place(),
                "a channel without a bound: use `sync_channel` or its like",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        let repository = Repository::of(&[(path, text)]);
        assert_eq!(repository.broken, []);
        check(&repository).len()
    }

    #[test]
    fn what_libraries_must_not_do_is_found() {
        let library = "crates/core/src/a.rs";
        assert_eq!(
            found(
                library,
                "fn f() { println!(\"x\"); select! { _ = g() => dbg!(1) } }"
            ),
            2
        );
        assert_eq!(
            found(library, "fn f() { let (a, b) = mpsc::channel(); }"),
            1
        );
        assert_eq!(
            found(
                library,
                "fn f() { let (a, b) = mpsc::unbounded_channel(); }"
            ),
            1
        );
        assert_eq!(found(library, "mod inner { fn f() { todo!() } }"), 1);
        assert_eq!(
            found("crates/cli/src/a.rs", "fn f() { println!(); todo!() }"),
            1
        );
    }

    #[test]
    fn what_they_may_do_is_not() {
        let library = "crates/core/src/a.rs";
        assert_eq!(
            found(
                library,
                "/// println!\nfn f() { let (a, b) = mpsc::channel(8); let _ = \"dbg!(1)\"; }"
            ),
            0
        );
        assert_eq!(
            found(library, "#[cfg(test)] mod tests { fn f() { println!(); } }"),
            0
        );
        assert_eq!(found("crates/core/tests/a.rs", "fn f() { println!(); }"), 0);
        assert_eq!(
            found(
                library,
                "fn f(link: &Link) { link.channel(); oneshot::channel(); }"
            ),
            0
        );
    }
}
