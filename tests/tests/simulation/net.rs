//! turmoil's network, as the store wants it.

use std::io;

use async_trait::async_trait;
use raft::{BoxStream, Caller, Listener, Transport};

pub struct SimNet;

#[async_trait]
impl Transport for SimNet {
    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        Ok(Box::new(turmoil::net::TcpStream::connect(address).await?))
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        Ok(Box::new(SimListener(turmoil::net::TcpListener::bind(address).await?)))
    }
}

struct SimListener(turmoil::net::TcpListener);

#[async_trait]
impl Listener for SimListener {
    async fn accept(&mut self) -> io::Result<(BoxStream, Caller)> {
        Ok((Box::new(self.0.accept().await?.0), Caller::Anyone))
    }

    fn address(&self) -> io::Result<String> {
        Ok(self.0.local_addr()?.to_string())
    }
}
