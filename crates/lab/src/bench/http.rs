//! As much of HTTP as measuring a gateway needs: one connection to its socket, one request after the other.

use crate::failure::Failure;
use serde_json::Value;
use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Longest response that is read, bytes.
const RESPONSE_BYTES_MAX: u64 = 256 << 20;

/// A connection.
pub struct Http(BufReader<UnixStream>);

impl Http {
    /// Connects to the socket of this path.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn open(path: &Path) -> Result<Self, Failure> {
        let stream = UnixStream::connect(path).await.map_err(failed)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends JSON, and gives the JSON of the answer; null where it has no content.
    ///
    /// # Errors
    /// The answer is a problem, or none comes.
    pub async fn json(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Value, Failure> {
        let length = self.ask(method, path, body).await?;
        let mut answer = vec![0; length.min(RESPONSE_BYTES_MAX) as usize];
        self.0.read_exact(&mut answer).await.map_err(failed)?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer)
            .map_err(|error| Failure::Local(format!("{path} gave no JSON: {error}")))
    }

    /// Reads a stream for as long as it comes.
    ///
    /// # Errors
    /// It ends.
    pub async fn drain(&mut self, path: &str) -> Result<(), Failure> {
        self.ask("GET", path, b"").await?;
        let mut some = vec![0; 64 << 10];
        while self.0.read(&mut some).await.map_err(failed)? > 0 {}
        Err(Failure::Local(format!("{path} ended")))
    }

    /// Sends a request and reads the head of the answer; gives the length of its body, where that is said.
    async fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Result<u64, Failure> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        self.0.get_mut().write_all(&request).await.map_err(failed)?;
        let mut line = String::new();
        self.0.read_line(&mut line).await.map_err(failed)?;
        if !line.starts_with("HTTP/1.1 2") {
            return Err(Failure::Local(format!("{method} {path}: {}", line.trim())));
        }
        let mut length = 0;
        loop {
            line.clear();
            self.0.read_line(&mut line).await.map_err(failed)?;
            match line.trim().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse().unwrap_or(0);
                }
                Some(_) => {}
                None => return Ok(length),
            }
        }
    }
}

fn failed(error: std::io::Error) -> Failure {
    Failure::Local(format!("the gateway does not answer: {error}"))
}
