//! turmoil's network, as the store wants it. turmoil opens a connection as soon as the other side has it,
//! though no packet can come back; here one comes back first, as with TCP's handshake.

use std::io;

use async_trait::async_trait;
use raft::{BoxStream, Caller, Listener, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What the side that was called says first.
const HERE: u8 = 0x06;

pub struct SimNet;

#[async_trait]
impl Transport for SimNet {
    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        let mut stream = turmoil::net::TcpStream::connect(address).await?;
        match stream.read_u8().await? {
            HERE => Ok(Box::new(stream)),
            said => Err(io::Error::other(format!("the first byte is {said:#x}"))),
        }
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(SimListener(turmoil::net::TcpListener::bind(address).await?)))
    }
}

struct SimListener(turmoil::net::TcpListener);

#[async_trait]
impl Listener for SimListener {
    async fn accept(&mut self) -> io::Result<(BoxStream, Caller)> {
        loop {
            let (mut stream, _) = self.0.accept().await?;
            // Waits for nobody: turmoil's network takes it at once.
            if stream.write_u8(HERE).await.is_ok() {
                return Ok((Box::new(stream), Caller::Anyone));
            }
        }
    }

    fn address(&self) -> io::Result<String> {
        Ok(self.0.local_addr()?.to_string())
    }
}
