//! One request to a daemon's socket, as raw as a test wants it. HTTP/1.0, so that the answer ends where the
//! connection does.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A status and a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends `body` as JSON, whatever it holds, and waits at most `limit` for each piece of the answer.
pub fn call(socket: &Path, method: &str, path: &str, body: &[u8], limit: Duration) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: coreinit\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    // A daemon may answer and close before it has read a body that it does not want.
    let sent = stream.write_all(body);
    let mut bytes = Vec::new();
    let received = stream.read_to_end(&mut bytes);
    parse(&bytes).or_else(|bad| sent.and(received.map(drop)).and(Err(bad)))
}

fn parse(bytes: &[u8]) -> io::Result<Answer> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "no HTTP answer");
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(bad)?;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(bad)?;
    Ok(Answer { status, body: bytes[end + 4..].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let answer = parse(b"HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n{}").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (404, "{}"));
        assert!(parse(b"").is_err());
        assert!(parse(b"HTTP/1.1 x\r\n\r\n").is_err());
    }

    #[test]
    fn a_call_there_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = [0; 4];
            stream.read_exact(&mut seen).unwrap();
            stream.write_all(b"HTTP/1.0 413 Too Large\r\n\r\nno").unwrap();
            seen
        });
        let answer = call(&path, "PUT", "/", &vec![b'x'; 4 << 20], Duration::from_secs(5)).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (413, "no"));
        assert_eq!(&server.join().unwrap(), b"PUT ");
    }
}
