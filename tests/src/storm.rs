//! Bad requests by the thousand, for a daemon's two ports: garbage, TLS that stops half-way, bodies that do
//! not end, headers one byte at a time, JSON that is too deep. It goes to addresses of this machine alone.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// What OpenSSL says first.
const CLIENT_HELLO: &[u8] = include_bytes!("storm/client_hello.bin");
/// Requests are released in so small portions.
const TICK: Duration = Duration::from_millis(5);
/// Who does one after the other; more than are ever under way.
const WORKERS: usize = 256;
/// Connections that each worker holds on to, of each kind that wants to hold something up.
const HELD: usize = 8;
/// A request that cannot be made by then has failed, and the next is made.
const PATIENCE: Duration = Duration::from_secs(1);
/// Of brackets; the daemon follows 128.
const DEPTH: usize = 1000;
/// Deep bodies that are sent at once on one connection, where so many are due.
const TOGETHER: u32 = 8;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    GarbageToPeers,
    HalfOpenTls,
    GarbageToApi,
    EndlessBody,
    SlowHeaders,
    DeepJson,
}

const MIX: [Kind; 10] = [
    Kind::GarbageToPeers,
    Kind::HalfOpenTls,
    Kind::DeepJson,
    Kind::SlowHeaders,
    Kind::GarbageToPeers,
    Kind::EndlessBody,
    Kind::HalfOpenTls,
    Kind::DeepJson,
    Kind::GarbageToApi,
    Kind::GarbageToPeers,
];

#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub peers: SocketAddr,
    pub api: SocketAddr,
    /// Requests a second.
    pub rate: u64,
    pub time: Duration,
}

/// What was sent, by kind.
#[derive(Debug, Default)]
struct Counts {
    made: [AtomicU64; 6],
    /// No connection, or one that the daemon ended before all was said, as it should.
    failed: [AtomicU64; 6],
}

/// Runs on as many threads as the machine has processors, and says what became of it.
pub fn run(plan: Plan) -> String {
    assert!(plan.peers.ip().is_loopback() && plan.api.ip().is_loopback(), "own addresses only");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let counts = Arc::new(Counts::default());
    let begun = std::time::Instant::now();
    let share = Plan { rate: plan.rate / threads as u64, ..plan };
    let threads: Vec<_> = (0..threads)
        .map(|_| {
            let counts = counts.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                LocalSet::new().block_on(&runtime.expect("a runtime"), storm(share, counts));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("the storm does not panic"));
    let took = begun.elapsed();
    let kinds = [
        Kind::GarbageToPeers,
        Kind::HalfOpenTls,
        Kind::GarbageToApi,
        Kind::EndlessBody,
        Kind::SlowHeaders,
        Kind::DeepJson,
    ];
    let mut said = String::new();
    let mut all = 0;
    for kind in kinds {
        let (made, failed) = (&counts.made[kind as usize], &counts.failed[kind as usize]);
        let (made, failed) = (made.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
        all += made;
        said.push_str(&format!("{kind:?}: {made}, of which {failed} were cut off\n"));
    }
    let rate = all as f64 / took.as_secs_f64();
    said + &format!("{all} bad requests in {:.1} s: {rate:.0} a second\n", took.as_secs_f64())
}

async fn storm(plan: Plan, counts: Arc<Counts>) {
    let permits = Arc::new(Semaphore::new(0));
    let until = Instant::now() + plan.time;
    for worker in 0..WORKERS {
        let (permits, counts) = (permits.clone(), counts.clone());
        tokio::task::spawn_local(async move {
            let mut worker = Worker { plan, held: Default::default(), talks: None, turn: worker };
            while let Ok(permit) = permits.acquire().await {
                permit.forget();
                let kind = MIX[worker.turn % MIX.len()];
                worker.turn += 1;
                let mut count = 1;
                if kind == Kind::DeepJson
                    && let Ok(more) = permits.try_acquire_many(TOGETHER - 1)
                {
                    more.forget();
                    count = u64::from(TOGETHER);
                }
                counts.made[kind as usize].fetch_add(count, Ordering::Relaxed);
                let sent = timeout(PATIENCE, worker.send(kind, count as usize)).await;
                if !sent.is_ok_and(|sent| sent.is_ok()) {
                    counts.failed[kind as usize].fetch_add(count, Ordering::Relaxed);
                }
            }
        });
    }
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let per_tick = (plan.rate as f64 * TICK.as_secs_f64()).ceil() as usize;
    while Instant::now() < until {
        tick.tick().await;
        // What the machine does not manage is not saved up.
        if permits.available_permits() < plan.rate as usize {
            permits.add_permits(per_tick);
        }
    }
    permits.close();
}

struct Worker {
    plan: Plan,
    held: [VecDeque<TcpStream>; 6],
    /// A connection on which requests are answered.
    talks: Option<TcpStream>,
    turn: usize,
}

impl Worker {
    async fn send(&mut self, kind: Kind, count: usize) -> io::Result<()> {
        match kind {
            Kind::GarbageToPeers => throw(self.plan.peers, &[0x5a; 256]).await,
            Kind::GarbageToApi => throw(self.plan.api, &[0xa5; 256]).await,
            Kind::HalfOpenTls => self.hold(kind, self.plan.peers, CLIENT_HELLO, &[]).await,
            Kind::SlowHeaders => {
                self.hold(kind, self.plan.api, b"GET /v1/units HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"s").await
            }
            Kind::EndlessBody => {
                let head = b"POST /v1/units HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                             Transfer-Encoding: chunked\r\n\r\n";
                let mut chunk = b"4000\r\n".to_vec();
                chunk.extend([b' '; 0x4000]);
                chunk.extend(b"\r\n");
                self.hold(kind, self.plan.api, head, &chunk).await
            }
            Kind::DeepJson => self.ask_deep(count).await,
        }
    }

    /// Begins another connection, and says more on the oldest.
    async fn hold(&mut self, kind: Kind, to: SocketAddr, begin: &[u8], more: &[u8]) -> io::Result<()> {
        let held = &mut self.held[kind as usize];
        let mut said = Ok(());
        if HELD <= held.len()
            && let Some(mut oldest) = held.pop_front()
        {
            said = oldest.write_all(more).await;
            // Gone without a farewell, which the kernel would have to remember for a minute.
            oldest.set_zero_linger()?;
        }
        let mut stream = TcpStream::connect(to).await?;
        stream.write_all(begin).await?;
        stream.write_all(more).await?;
        held.push_back(stream);
        said
    }

    /// Each is refused, or it is an error.
    async fn ask_deep(&mut self, count: usize) -> io::Result<()> {
        let mut stream = match self.talks.take() {
            Some(stream) => stream,
            None => TcpStream::connect(self.plan.api).await?,
        };
        let body = format!("{{\"operations\":{}", "[".repeat(DEPTH));
        let head = format!(
            "POST /v1/units HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).repeat(count).as_bytes()).await?;
        let (mut answers, mut piece) = (Vec::new(), [0; 8192]);
        while String::from_utf8_lossy(&answers).matches("HTTP/1.1 400").count() < count {
            match stream.read(&mut piece).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => answers.extend_from_slice(&piece[..read]),
            }
        }
        self.talks = Some(stream);
        Ok(())
    }
}

/// Says it and is gone.
async fn throw(to: SocketAddr, words: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    let said = stream.write_all(words).await;
    stream.set_zero_linger()?;
    said
}
