//! A real browser without a screen, told what to do over two pipes.

use super::{PATIENCE, tool, until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, SystemTime};

/// Messages of the browser that wait to be read; it is held up beyond that.
const WAITING_MAX: usize = 10_000;
/// The browser's program.
const PROGRAM: &str = "chromium";

/// Text is told apart from its background in every part that can be seen: the least contrast that readers need.
const CONTRAST: &str = r#"(() => {
  const parse = (text) => { const p = document.createElement("canvas").getContext("2d"); p.fillStyle = text; p.fillRect(0, 0, 1, 1); return [...p.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => { const f = (v) => ((v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const behind = (element) => { for (let at = element; at; at = at.parentElement) { const found = getComputedStyle(at).backgroundColor; if (parse(found)[3] === 255) return found; } return "white"; };
  const poor = [];
  for (const element of document.querySelectorAll("h1, h2, p, dt, dd, td, th, a, button, label, pre span")) {
    if (!element.innerText?.trim() || !element.checkVisibility()) continue;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(parse(behind(element)))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${element.tagName} ${element.innerText.slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return poor;
})()"#;

/// What a keyboard or a screen reader would miss.
const NAMES: &str = r#"[...document.querySelectorAll("button, a, input, select, [role=button], [role=img], svg, canvas")]
  .filter((element) => element.checkVisibility() && !(element.innerText?.trim() || element.getAttribute("aria-label") || element.labels?.length || element.title))
  .map((element) => element.outerHTML.slice(0, 80))"#;

/// What axe-core finds serious.
const AXE: &str = r#"axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations
  .filter(({ impact }) => ["serious", "critical"].includes(impact))
  .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(" | ")}`))"#;

/// A page of a browser that ends with the test.
pub struct Page {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: String,
    last: u64,
    /// What the page reported as an error.
    pub errors: Vec<String>,
}

impl Page {
    /// Opens a page; `folder` is for what the browser keeps.
    pub fn open(folder: &Path, url: &str) -> Page {
        // The browser takes commands from descriptor 3 and answers on 4.
        let script = format!(
            "exec {PROGRAM} --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
             --remote-debugging-pipe --user-data-dir=\"$1\" about:blank 3<&0 4>&1 >/dev/null 2>&1 </dev/null"
        );
        let mut child = Command::new("sh")
            .args(["-c", &script, "sh"])
            .arg(folder.join("browser"))
            .env("HOME", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let to = child.stdin.take().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let (sender, from) = sync_channel(WAITING_MAX);
        std::thread::spawn(move || {
            loop {
                let mut message = Vec::new();
                match out.read_until(0, &mut message) {
                    Ok(length) if length > 0 => {}
                    _ => return,
                }
                message.pop();
                let message = serde_json::from_slice(&message).unwrap();
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut page = Page {
            child,
            to,
            from,
            session: String::new(),
            last: 0,
            errors: Vec::new(),
        };
        let target = page.tell("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = page.tell("Target.attachToTarget", attach);
        page.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            page.tell(&format!("{domain}.enable"), json!({}));
        }
        page.tell("Page.navigate", json!({ "url": url }));
        page
    }

    /// Sends a command and gives its result.
    pub fn tell(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.to.write_all(message.to_string().as_bytes()).unwrap();
        self.to.write_all(&[0]).unwrap();
        loop {
            let answer = self.from.recv_timeout(PATIENCE);
            let answer =
                answer.unwrap_or_else(|_| panic!("{PROGRAM} does not answer; is it there?"));
            self.note(&answer);
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    fn note(&mut self, message: &Value) {
        let params = &message["params"];
        let bad = match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Log.entryAdded") => params["entry"]["level"] == "error",
            Some("Runtime.consoleAPICalled") => params["type"] == "error",
            _ => false,
        };
        if bad {
            self.errors.push(params.to_string());
        }
    }

    /// The value of an expression.
    pub fn value(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let found = self.tell("Runtime.evaluate", params);
        assert!(found["exceptionDetails"].is_null(), "{expression}: {found}");
        found["result"]["value"].clone()
    }

    /// Waits until the page shows a text.
    pub fn await_text(&mut self, text: &str) {
        until(&format!("the page to show {text:?}"), || {
            let shown = self.value("document.body ? document.body.innerText : ''");
            shown
                .as_str()
                .unwrap_or_default()
                .contains(text)
                .then_some(())
        });
    }

    /// Has the page show what `shown`, an expression, says, by something that `act` does: without being loaded anew, and
    /// without a request of its own. Gives the time from `act` until it was shown.
    pub fn await_pushed(&mut self, what: &str, shown: &str, act: impl FnOnce()) -> Duration {
        let watch = format!(
            "window.pushed = {{ at: null, requests: performance.getEntriesByType('resource').length }};
             new MutationObserver((_, observer) => {{
               if (!({shown})) return;
               observer.disconnect();
               pushed.at = Date.now();
             }}).observe(document.body, {{ subtree: true, childList: true, characterData: true, attributes: true }});
             Boolean({shown})"
        );
        assert_eq!(self.value(&watch), false, "{what} is shown already");
        let since = SystemTime::now();
        act();
        // The page is another one where it was loaded anew.
        let at = until(what, || self.value("window.pushed.at").as_u64());
        // Its own files, like the icon, may come at any time.
        let asked = "performance.getEntriesByType('resource').slice(pushed.requests)
            .map(({ name }) => name).filter((name) => name.includes('/v1/'))";
        assert_eq!(self.value(asked), json!([]), "the page asked for {what}");
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at);
        let took = at.duration_since(since).unwrap_or_default();
        println!("{what}: shown after {} ms", took.as_millis());
        took
    }

    /// Goes to another view.
    pub fn go(&mut self, hash: &str) {
        self.value(&format!("location.hash = {hash:?}"));
    }

    /// Checks what can be seen of a view in both themes, wide and narrow: that it fits, can be read, and is named for those
    /// who do not see it. With HEDGE_SCREENSHOTS in the environment, pictures of it are kept in that folder.
    pub fn check(&mut self, view: &str) {
        for (width, dark) in [(1280, false), (1280, true), (375, true), (375, false)] {
            self.look(width, dark);
            let over = self.value("document.documentElement.scrollWidth - innerWidth");
            assert!(
                over.as_i64() <= Some(0),
                "{view} is {over} px too wide for {width}"
            );
            let poor = self.value(CONTRAST);
            assert_eq!(poor, json!([]), "{view}, {width}, dark {dark}");
            self.keep_picture(&format!(
                "{view}-{width}-{}",
                if dark { "dark" } else { "light" }
            ));
            let axe = std::fs::read_to_string(tool("npm/node_modules/axe-core/axe.min.js"));
            // Its own text ends with no value that could be sent here.
            self.value(&format!("{};0", axe.unwrap()));
            let found = self.value(AXE);
            assert_eq!(found, json!([]), "{view}, {width}, dark {dark}");
        }
        let nameless = self.value(NAMES);
        assert_eq!(nameless, json!([]), "{view}");
    }

    fn keep_picture(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("HEDGE_SCREENSHOTS") else {
            return;
        };
        let taken = self.tell(
            "Page.captureScreenshot",
            json!({ "captureBeyondViewport": true }),
        );
        let picture = data_encoding::BASE64.decode(taken["data"].as_str().unwrap().as_bytes());
        let path = Path::new(&folder).join(format!("{name}.png"));
        std::fs::write(path, picture.unwrap()).unwrap();
    }

    /// Makes the window so wide, dark or light.
    pub fn look(&mut self, width: u32, dark: bool) {
        let size =
            json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false });
        self.tell("Emulation.setDeviceMetricsOverride", size);
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.tell(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        );
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Its other processes end with the first.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
