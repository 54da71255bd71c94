//! The dashboard's files, which are part of the program, and reports that are made of them. Nothing is loaded from
//! elsewhere.

use crate::problem::Problem;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use hyper::header::{CONTENT_TYPE, HeaderValue};

/// A file: its path, its media type and its content.
struct File(&'static str, &'static str, &'static str);

macro_rules! files {
    ($($path:literal $form:ident),* $(,)?) => {
        &[$(File(concat!("/ui/", $path), $form, include_str!(concat!("../ui/", $path)))),*]
    };
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const FILES: &[File] = files!(
    "index.html" HTML,
    "style.css" CSS,
    "icon.svg" SVG,
    "main.js" JS,
    "api.js" JS,
    "ask.js" JS,
    "dom.js" JS,
    "graph.js" JS,
    "report-api.js" JS,
    "report.js" JS,
    "store.js" JS,
    "timeline.js" JS,
    "views/faults.js" JS,
    "views/job.js" JS,
    "views/jobs.js" JS,
    "views/machines.js" JS,
    "views/task.js" JS,
);

/// What a report allows itself: nothing but what it has in it.
const REPORT_POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; \
                             script-src 'unsafe-inline' data:; style-src 'unsafe-inline'";

/// A page without a server: the dashboard's view of one job, with everything that it shows. `data` is an object with
/// `job`, `groups`, `attempts`, `now_ms`, `workers` and `failed`, and `title` the title of the page.
pub fn report(title: &str, data: &serde_json::Value) -> String {
    let mut modules: serde_json::Map<String, serde_json::Value> = FILES
        .iter()
        .filter(|File(_, form, _)| *form == JS)
        .map(|File(path, _, content)| {
            let content = BASE64.encode(by_name(path, content).as_bytes());
            (
                name(path),
                format!("data:text/javascript;base64,{content}").into(),
            )
        })
        .collect();
    // The gateway is not there.
    if let Some(own) = modules.remove("hedge/report-api.js") {
        modules.insert("hedge/api.js".to_owned(), own);
    }
    let text = |path: &str| {
        let known = FILES.iter().find(|File(known, ..)| *known == path);
        known.map_or("", |File(_, _, content)| content)
    };
    let icon = BASE64.encode(text("/ui/icon.svg").as_bytes());
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{REPORT_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:image/svg+xml;base64,{icon}">
<style>{style}</style>
<script type="application/json" id="data">{data}</script>
<script type="importmap">{imports}</script>
<script type="module">import "hedge/report.js";</script>
</head>
<body>
<header><span class="brand">{title}</span></header>
<main id="main" tabindex="-1"><noscript><p>This report needs JavaScript.</p></noscript></main>
</body>
</html>
"#,
        title = escaped(title),
        style = text("/ui/style.css"),
        data = inert(data),
        imports = inert(&serde_json::json!({ "imports": modules })),
    )
}

/// The name by which modules of a report import each other.
fn name(path: &str) -> String {
    path.replacen("/ui/", "hedge/", 1)
}

/// A module whose imports are by name: data has no place that relative ones could start from.
fn by_name(path: &str, content: &str) -> String {
    let above = if path.starts_with("/ui/views/") {
        "hedge/views/"
    } else {
        "hedge/"
    };
    content
        .replace(" from \"../", " from \"hedge/")
        .replace(" from \"./", &format!(" from \"{above}"))
}

/// JSON within a page: nothing in it ends the element that it is in.
fn inert(value: &serde_json::Value) -> String {
    value.to_string().replace('<', "\\u003c")
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

/// Sends a file of the dashboard.
pub async fn file(request: Request) -> Result<Response, Problem> {
    let path = match request.uri().path() {
        "/" => "/ui/index.html",
        path => path,
    };
    let File(_, form, content) = FILES
        .iter()
        .find(|File(known, ..)| *known == path)
        .ok_or_else(|| Problem::unknown(format!("there is no file {path:?}")))?;
    let mut response = content.into_response();
    let form = HeaderValue::from_static(form);
    response.headers_mut().insert(CONTENT_TYPE, form);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_another_names_is_there() {
        let known: Vec<&str> = FILES.iter().map(|File(path, ..)| *path).collect();
        for File(path, _, content) in FILES {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            for import in content.split(" from \"").skip(1) {
                let name = import.split('"').next().unwrap();
                let full = match name.strip_prefix("../") {
                    Some(rest) => format!("/ui/{rest}"),
                    None => format!("{folder}/{}", name.strip_prefix("./").unwrap()),
                };
                assert!(known.contains(&full.as_str()), "{path} imports {name}");
            }
            for foreign in ["http://", "https://", "style=\""] {
                let rest = content.replace("http://www.w3.org/2000/svg", "");
                assert!(!rest.contains(foreign), "{path} has {foreign}");
            }
        }
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("ui");
        let count = |folder: &std::path::Path| {
            let entries = std::fs::read_dir(folder).unwrap().flatten();
            entries.filter(|entry| entry.path().is_file()).count()
        };
        assert_eq!(count(&folder) + count(&folder.join("views")), FILES.len());
    }
}
