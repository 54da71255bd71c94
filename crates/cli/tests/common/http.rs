//! A gateway that runs, and requests to it.

use super::{Kept, Place, until};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// Longest time without a byte of a response.
const STALLS_FOR: Duration = Duration::from_secs(120);

/// Where a gateway listens, and what requests show.
#[derive(Clone)]
pub enum At {
    Socket(PathBuf),
    Tcp(SocketAddr, String),
}

/// A gateway that ends with the test.
pub struct Gateway {
    pub process: Kept,
    pub at: At,
}

/// What a gateway answered.
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Gateway {
    /// Starts a gateway and waits until it listens.
    pub fn start(place: &Place, args: &[&str]) -> Gateway {
        let mut process = place.start(&[&["gateway", "--json"], args].concat());
        let told = until("the gateway to listen", || {
            assert!(process.running(), "{}", process.told());
            serde_json::from_str::<Value>(&process.out()).ok()
        });
        let at = match told["socket"].as_str() {
            Some(path) => At::Socket(place.folder.join(path)),
            None => {
                let address = told["url"].as_str().unwrap().strip_prefix("http://");
                let token = std::fs::read_to_string(told["token_file"].as_str().unwrap());
                At::Tcp(
                    address.unwrap().parse().unwrap(),
                    token.unwrap().trim().to_owned(),
                )
            }
        };
        Gateway { process, at }
    }

    /// What a path has; panics unless that is JSON.
    pub fn get(&self, path: &str) -> Value {
        let response = self.at.ask("GET", path, &[], b"");
        assert_eq!(response.status, 200, "{path}: {}", response.text());
        response.json()
    }

    /// Sends something to a path.
    pub fn send(&self, method: &str, path: &str, form: &str, body: &[u8]) -> Response {
        self.at.ask(method, path, &[("content-type", form)], body)
    }

    /// Submits a job file and gives the job's number.
    pub fn submit(&self, toml: &str) -> u64 {
        let response = self.send("POST", "/v1/jobs", "application/toml", toml.as_bytes());
        assert_eq!(response.status, 201, "{}", response.text());
        response.json()["job"].as_u64().unwrap()
    }

    /// Waits until a job has this state and gives its view.
    pub fn await_state(&self, job: u64, state: &str) -> Value {
        until(state, || {
            let view = self.get(&format!("/v1/jobs/{job}"));
            (view["state"] == state).then_some(view)
        })
    }
}

impl At {
    /// Sends a request, and gives the whole response.
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut own = headers.to_vec();
        let length = body.len().to_string();
        let sized = headers.iter().any(|(name, _)| *name == "content-length");
        if !sized && (method == "POST" || method == "PUT") {
            own.push(("content-length", &length));
        }
        let mut stream = self.open(method, path, &own);
        // One that is refused may be answered before all of its body is read.
        _ = stream.write_all(body);
        read(&mut BufReader::new(stream), method == "HEAD")
    }

    /// Follows a stream of events, behind the one with this id.
    pub fn follow(&self, path: &str, last: Option<&str>) -> Events {
        let headers: Vec<(&str, &str)> = last.into_iter().map(|id| ("last-event-id", id)).collect();
        let mut reader = BufReader::new(self.open("GET", path, &headers));
        let head = head(&mut reader);
        assert_eq!(head.status, 200, "{path}");
        let form = head.header("content-type");
        assert_eq!(form, Some("text/event-stream"));
        Events {
            reader,
            waiting: String::new(),
        }
    }

    fn open(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Box<dyn Stream> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        let has = |name: &str| headers.iter().any(|(known, _)| *known == name);
        let mut stream: Box<dyn Stream> = match self {
            At::Socket(path) => {
                if !has("host") {
                    request += "host: localhost\r\n";
                }
                let stream = UnixStream::connect(path).unwrap();
                stream.set_read_timeout(Some(STALLS_FOR)).unwrap();
                Box::new(stream)
            }
            At::Tcp(address, token) => {
                if !has("host") {
                    request += &format!("host: {address}\r\n");
                }
                if !has("authorization") {
                    request += &format!("authorization: Bearer {token}\r\n");
                }
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(STALLS_FOR)).unwrap();
                Box::new(stream)
            }
        };
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        stream.write_all((request + "\r\n").as_bytes()).unwrap();
        stream
    }
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(known, _)| known == name);
        found.next().map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }
}

/// Events as they come.
pub struct Events {
    reader: BufReader<Box<dyn Stream>>,
    waiting: String,
}

/// An event.
#[derive(Clone, Debug, Default)]
pub struct Event {
    pub name: String,
    pub id: Option<String>,
    pub data: Value,
}

impl Events {
    /// The next event; none at the end.
    pub fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.waiting.find("\n\n") {
                let text: String = self.waiting.drain(..end + 2).collect();
                let mut event = Event::default();
                for line in text.lines() {
                    match line.split_once(": ") {
                        Some(("event", name)) => event.name = name.to_owned(),
                        Some(("id", id)) => event.id = Some(id.to_owned()),
                        Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                        _ => {}
                    }
                }
                if !event.name.is_empty() {
                    return Some(event);
                }
            }
            let chunk = chunk(&mut self.reader)?;
            self.waiting += std::str::from_utf8(&chunk).unwrap();
        }
    }

    /// The next event for which `wanted` gives something.
    pub fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        loop {
            let event = self
                .next()
                .unwrap_or_else(|| panic!("the stream ended before {what}"));
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    }
}

fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn head(reader: &mut impl BufRead) -> Response {
    let status = line(reader);
    let status = status
        .split(' ')
        .nth(1)
        .unwrap_or_else(|| panic!("no status: {status:?}"));
    let mut headers = Vec::new();
    loop {
        let line = line(reader);
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    Response {
        status: status.parse().unwrap(),
        headers,
        body: Vec::new(),
    }
}

/// A chunk of a body; none behind the last, or where the connection ends.
fn chunk(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let length = usize::from_str_radix(&line(reader), 16).ok()?;
    let mut bytes = vec![0; length + 2];
    reader.read_exact(&mut bytes).ok()?;
    bytes.truncate(length);
    (length > 0).then_some(bytes)
}

fn read(reader: &mut impl BufRead, no_body: bool) -> Response {
    let mut response = head(reader);
    if no_body {
        return response;
    }
    if response.header("transfer-encoding") == Some("chunked") {
        while let Some(chunk) = chunk(reader) {
            response.body.extend(chunk);
        }
    } else {
        let length = response
            .header("content-length")
            .map_or(0, |text| text.parse().unwrap());
        reader.take(length).read_to_end(&mut response.body).unwrap();
    }
    response
}
