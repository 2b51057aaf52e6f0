//! A wire to etcd that can be cut: connections through it end or hang, as the test says.

use std::sync::Arc;

use tokio::io::copy_bidirectional;
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
                        _ = copy_bidirectional(&mut near, &mut far) => return,
                        _ = flow.changed() => {}
                    },
                }
            }
        });
    }
}
