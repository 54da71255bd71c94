//! `hedge ui`: the grid in a browser.

use super::Context;
use super::gateway::{draw_token, file, serve};
use crate::args::Ui;
use crate::exit::{Exit, Failure};
use crate::show;
use hedge_gateway::{Listen, Reached};
use serde_json::json;
use std::io::Write;
use std::process::{Command, Stdio};
use tempfile::NamedTempFile;

/// Runs until it is told to end.
///
/// # Errors
/// It cannot listen, or the grid cannot be reached or refuses this peer.
pub fn run(context: &Context, args: &Ui) -> Result<Exit, Failure> {
    let folder = context.folders.gateway();
    let token = draw_token(&folder)?;
    let text = token.text().to_owned();
    let mut page = None;
    serve(
        context,
        &args.grid,
        (Listen::Loopback(args.listen), None),
        token,
        |reached| {
            let Reached::Loopback(address) = reached else {
                return Ok(());
            };
            let url = format!("http://{address}/#token={text}");
            let told = context
                .look
                .print(&json!({ "url": url }), || format!("{url}\n"));
            if args.no_browser || !has_screen() {
                return told;
            }
            let made = redirect(&folder, &url);
            let made = made.map_err(|error| file("write a page to", &folder, error))?;
            open(page.insert(made));
            Ok(())
        },
    )
}

/// A page that leads to the dashboard. The token would be seen by all users of the machine on the browser's command line.
fn redirect(folder: &std::path::Path, url: &str) -> std::io::Result<NamedTempFile> {
    let mut page = tempfile::Builder::new()
        .prefix("open-")
        .suffix(".html")
        .tempfile_in(folder)?;
    writeln!(
        page,
        "<!doctype html><meta charset=\"utf-8\"><title>Hedgerow</title>\
         <meta http-equiv=\"refresh\" content=\"0; url={url}\"><a href=\"{url}\">Hedgerow</a>"
    )?;
    Ok(page)
}

/// Whether a browser could be shown.
fn has_screen() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    set("DISPLAY") || set("WAYLAND_DISPLAY")
}

/// Opens a page in the user's browser; a user without one opens the address that was printed.
fn open(page: &NamedTempFile) {
    let opened = Command::new("xdg-open")
        .arg(page.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if opened.is_err() {
        show::note("no browser was opened, as there is no xdg-open here: open the address above");
    }
}
