//! A wire to etcd that can be cut: connections through it end or hang, as the test says.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Clone, Copy, PartialEq)]
enum Flow {
    Through,
    /// New connections are closed at once, old ones now.
    Refused,
    /// Nothing is heard from either side any more.
    Silent,
    /// What the far side says on streams that are older than this is lost; the rest goes on.
    Deaf,
}

pub struct Wire {
    pub endpoint: String,
    flow: Arc<watch::Sender<Flow>>,
    _task: JoinSet<()>,
}

impl Wire {
    /// To one member, `http://HOST:PORT`.
    pub async fn to(endpoint: &str) -> Wire {
        let target = endpoint.trim_start_matches("http://").to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let flow = Arc::new(watch::Sender::new(Flow::Through));
        let mut task = JoinSet::new();
        task.spawn(serve(listener, target, flow.clone()));
        Wire { endpoint, flow, _task: task }
    }

    pub fn cut(&self) {
        self.flow.send_replace(Flow::Refused);
    }

    pub fn silence(&self) {
        self.flow.send_replace(Flow::Silent);
    }

    /// Until the connection is replaced.
    pub fn deafen(&self) {
        self.flow.send_replace(Flow::Deaf);
    }

    pub fn mend(&self) {
        self.flow.send_replace(Flow::Through);
    }
}

async fn serve(listener: TcpListener, target: String, flow: Arc<watch::Sender<Flow>>) {
    let mut connections = JoinSet::new();
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let (target, mut flow) = (target.clone(), flow.subscribe());
        connections.spawn(async move {
            if *flow.borrow_and_update() == Flow::Refused {
                return;
            }
            let Ok(mut far) = TcpStream::connect(&target).await else { return };
            loop {
                let now = *flow.borrow_and_update();
                match now {
                    Flow::Refused => return,
                    // What was on its way is lost: a wire that is mended carries new connections only.
                    Flow::Silent => return drop(flow.changed().await),
                    Flow::Through => tokio::select! {
                        // Not resumed when cancelled: the wire is cut.
                        _ = pass(&mut near, &mut far, flow.clone()) => return,
                        _ = flow.wait_for(|flow| !matches!(flow, Flow::Through | Flow::Deaf)) => {}
                    },
                    // A new connection is as it should be.
                    Flow::Deaf => tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => return,
                        _ = flow.wait_for(|flow| !matches!(flow, Flow::Through | Flow::Deaf)) => {}
                    },
                }
            }
        });
    }
}

/// Both ways, frame by frame (RFC 9113) from the far side: those with data, on streams that were there when
/// the wire became deaf, are lost.
async fn pass(near: &mut TcpStream, far: &mut TcpStream, flow: watch::Receiver<Flow>) -> std::io::Result<()> {
    const DATA: u8 = 0;
    let ((mut near_read, mut near_write), (mut far_read, mut far_write)) = (near.split(), far.split());
    let heard = async {
        let (mut newest, mut is_http2) = (0, None);
        loop {
            let mut head = [0; 9];
            far_read.read_exact(&mut head).await?;
            if !*is_http2.get_or_insert(!head.starts_with(b"HTTP/1")) {
                near_write.write_all(&head).await?;
                copy(&mut far_read, &mut near_write).await?;
                return Ok(());
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let mut body = vec![0; length];
            far_read.read_exact(&mut body).await?;
            let is_deaf = *flow.borrow() == Flow::Deaf;
            if !is_deaf {
                newest = newest.max(stream);
            }
            if !(is_deaf && head[3] == DATA && stream <= newest) {
                near_write.write_all(&head).await?;
                near_write.write_all(&body).await?;
            }
        }
    };
    let said = copy(&mut near_read, &mut far_write);
    tokio::select! {
        // Not resumed when cancelled: the connection ends with it.
        ended = heard => ended,
        ended = said => ended.map(drop),
    }
}
