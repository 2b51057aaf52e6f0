//! How bytes get from one daemon to another: the one place that knows of TCP. A simulation brings its own.

use std::io;

use async_trait::async_trait;
use cluster::MachineId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A connection in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub type BoxStream = Box<dyn Stream>;

/// Who is at the other end of a connection that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Nobody looked: whoever reaches the port.
    Anyone,
    /// A machine of this cluster, as its certificate says.
    Machine(MachineId),
}

/// Opens connections, and takes them.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// `address` is `HOST:PORT`.
    async fn connect(&self, address: &str) -> io::Result<BoxStream>;
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>>;
}

#[async_trait]
pub trait Listener: Send + 'static {
    /// Safe to cancel: no connection is lost by it.
    async fn accept(&mut self) -> io::Result<(BoxStream, Caller)>;
    /// Where it listens, with the port that was chosen when 0 was asked for.
    fn address(&self) -> io::Result<String>;
}

/// Plain TCP.
#[derive(Clone, Copy, Debug)]
pub struct Tcp;

#[async_trait]
impl Transport for Tcp {
    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(TcpListener::bind(address).await?))
    }
}

#[async_trait]
impl Listener for TcpListener {
    async fn accept(&mut self) -> io::Result<(BoxStream, Caller)> {
        let (stream, _) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), Caller::Anyone))
    }

    fn address(&self) -> io::Result<String> {
        Ok(self.local_addr()?.to_string())
    }
}
