//! `fd-forward`: standard input and output become a connection to a Unix socket, for tunnels of fleet's kind.

use std::path::Path;

use anyhow::Context;
use tokio::io::{AsyncWriteExt, copy};
use tokio::net::UnixStream;

use crate::Exit;

pub async fn run(socket: &Path) -> anyhow::Result<Exit> {
    let connected = UnixStream::connect(socket).await;
    let stream = connected.with_context(|| format!("cannot connect to {}", socket.display()))?;
    let (mut from, mut to) = stream.into_split();
    let inward = async {
        copy(&mut tokio::io::stdin(), &mut to).await?;
        to.shutdown().await?;
        // The answer may still come.
        std::future::pending::<std::io::Result<()>>().await
    };
    let outward = async {
        let mut out = tokio::io::stdout();
        copy(&mut from, &mut out).await?;
        out.flush().await
    };
    tokio::select! {
        // Neither is resumed: whichever ends, the other has nothing more to carry.
        end = inward => end?,
        end = outward => end?,
    }
    Ok(Exit::Done)
}
