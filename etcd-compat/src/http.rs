//! One request over HTTP/1.1 to one server, with or without TLS: for etcd's v2 interface, and to ask an etcd
//! what it is. Connections are kept for later requests.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::options::{Tls, User};
use crate::tls::{connector, explained};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections that are kept for later requests.
const IDLE_MAX: usize = 32;
/// A directory of all records that a full log holds.
const BODY_BYTES_MAX: usize = 64 << 20;

/// One server.
pub struct Http {
    host: String,
    address: String,
    tls: Option<(TlsConnector, Tls)>,
    authorization: Option<String>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// What the server said.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// `X-Etcd-Index`.
    pub index: Option<u64>,
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The request was not sent.
    #[error("cannot reach {address}: {source}")]
    Unreachable { address: String, source: io::Error },
    #[error("no answer from {address}: {source}")]
    NoAnswer { address: String, source: io::Error },
}

impl Http {
    pub fn new(endpoint: &str, tls: Option<&Tls>, user: Option<&User>) -> Result<Http, String> {
        let (scheme, address) = endpoint.split_once("://").ok_or("an endpoint is http://HOST:PORT")?;
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let tls = match (scheme, tls) {
            ("https", Some(tls)) => Some((connector(tls)?, tls.clone())),
            ("https", None) => return Err("https needs to know who vouches for the server".into()),
            _ => None,
        };
        Ok(Http {
            host: host.trim_matches(['[', ']']).into(),
            address: address.into(),
            tls,
            authorization: user.map(|user| basic(&user.name, &user.password)),
            idle: Mutex::default(),
        })
    }

    /// `body` is a form; without one it is a GET-like request of that method.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<String>,
        limit: Duration,
    ) -> Result<Answer, HttpError> {
        let tls = self.tls.as_ref().map(|(_, tls)| tls);
        // What is refused in a handshake may be told only after it, to the first request.
        let clear = |source: io::Error| match explained(&source, tls) {
            Some(told) => io::Error::new(source.kind(), told),
            None => source,
        };
        let unreachable =
            |source| HttpError::Unreachable { address: self.address.clone(), source: clear(source) };
        let no_answer = |source| HttpError::NoAnswer { address: self.address.clone(), source: clear(source) };
        let mut sender = match self.kept() {
            Some(sender) => sender,
            None => match timeout(CONNECT_TIMEOUT, self.connect()).await {
                Ok(connected) => connected.map_err(unreachable)?,
                Err(_) => return Err(unreachable(io::ErrorKind::TimedOut.into())),
            },
        };
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, &self.address);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())));
        let request = request.map_err(|error| unreachable(io::Error::other(error)))?;
        let exchange = async {
            let response: Response<_> = sender.send_request(request).await.map_err(io::Error::other)?;
            let status = response.status().as_u16();
            let index = response.headers().get("x-etcd-index");
            let index = index.and_then(|index| index.to_str().ok()?.parse().ok());
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
            Ok(Answer { status, index, body: body.map_err(io::Error::other)?.to_bytes() })
        };
        match timeout(limit, exchange).await {
            Ok(Ok(answer)) => {
                self.keep(sender);
                Ok(answer)
            }
            Ok(Err(error)) => Err(no_answer(error)),
            Err(_) => Err(no_answer(io::ErrorKind::TimedOut.into())),
        }
    }

    /// A connection that nobody uses now.
    fn kept(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().expect("no holder of this lock panics");
        idle.retain(|sender| !sender.is_closed());
        let ready = idle.iter().position(|sender| sender.is_ready())?;
        Some(idle.swap_remove(ready))
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().expect("no holder of this lock panics");
        if idle.len() < IDLE_MAX {
            idle.push(sender);
        }
    }

    async fn connect(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => begin(stream).await,
            Some((connector, _)) => {
                let name = ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
                let stream = connector.connect(name, stream).await.map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => {
                        let told = "it hung up on a TLS handshake; if it does not speak TLS, write \
                        http:// in \
                                    etcd_endpoints";
                        io::Error::new(error.kind(), told)
                    }
                    _ => error,
                });
                begin(stream?).await
            }
        }
    }
}

async fn begin<S>(stream: S) -> io::Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // It ends when its sender is dropped, or when the server closes it.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to etcd ended");
        }
    });
    Ok(sender)
}

/// RFC 7617.
fn basic(name: &str, password: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("Basic ");
    for bytes in format!("{name}:{password}").as_bytes().chunks(3) {
        let at = |number: usize| u32::from(bytes.get(number).copied().unwrap_or(0));
        let group = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let value = (group >> (18 - 6 * digit)) & 63;
            text.push(if digit <= bytes.len() { DIGITS[value as usize] as char } else { '=' });
        }
    }
    text
}

/// For a form, or a part of a path.
pub fn escaped(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                escaped.push(byte as char)
            }
            _ => {
                escaped.push('%');
                for digit in [byte >> 4, byte & 15] {
                    escaped.push(DIGITS[usize::from(digit)] as char);
                }
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_the_wire() {
        for (name, password, expected) in
            [("a", "b", "Basic YTpi"), ("Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")]
        {
            assert_eq!(basic(name, password), expected);
        }
        assert_eq!(escaped("a b/ä@1.service&=+"), "a%20b/%C3%A4%401.service%26%3D%2B");
    }
}
