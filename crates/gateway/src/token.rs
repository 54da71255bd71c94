//! The token: the secret that requests over TCP must show.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Random bytes of a new token.
const RANDOM_BYTES: usize = 24;
/// The longest token that is read from a file, in bytes.
const LENGTH_MAX: u64 = 4096;

/// A token. It is compared by its hash, so that a comparison takes the same time for every wrong token.
#[derive(Clone)]
pub struct Token {
    text: String,
    hash: blake3::Hash,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Creates a random token.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn draw() -> io::Result<Self> {
        let mut bytes = [0; RANDOM_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        let text = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self::new(text))
    }

    /// Reads the token from a file. If there is no file, creates one with a new token that only its owner may read. Does not
    /// check who may read a file that exists.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds no token.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        match fs::File::open(path) {
            Ok(file) => {
                let mut text = String::new();
                io::Read::read_to_string(&mut io::Read::take(file, LENGTH_MAX), &mut text)?;
                let text = text.trim();
                if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                    let why = "it holds no token: remove it, and a new one is made";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
                Ok(Self::new(text.to_owned()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let token = Self::draw()?;
                let folder = path.parent().unwrap_or(Path::new("."));
                let mut file = tempfile::NamedTempFile::new_in(folder)?;
                writeln!(file, "{}", token.text)?;
                file.persist(path).map_err(|error| error.error)?;
                Ok(token)
            }
            Err(error) => Err(error),
        }
    }

    fn new(text: String) -> Self {
        let hash = blake3::hash(text.as_bytes());
        Self { text, hash }
    }

    /// The text of the token.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns whether `shown` is the token, in a time that does not depend on how much of it is right.
    pub fn is(&self, shown: &[u8]) -> bool {
        // Hashes are compared in constant time.
        blake3::hash(shown) == self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_stays_in_its_file_which_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let token = Token::of_file(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let again = Token::of_file(&path).unwrap();
        assert!(again.is(token.text().as_bytes()));
        assert!(!again.is(b"") && !again.is(&token.text().as_bytes()[1..]));
        assert_ne!(Token::draw().unwrap().text(), token.text());
        fs::write(&path, "\n").unwrap();
        assert!(Token::of_file(&path).is_err());
    }
}
