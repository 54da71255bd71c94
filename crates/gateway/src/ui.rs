//! The dashboard's files, which are part of the program. Nothing is loaded from elsewhere.

use crate::problem::Problem;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
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
    "store.js" JS,
    "timeline.js" JS,
    "views/job.js" JS,
    "views/jobs.js" JS,
    "views/machines.js" JS,
    "views/task.js" JS,
);

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
