//! Bad requests by the thousand, for a daemon's two ports: garbage, TLS that stops half-way, bodies that do
//! not end, headers one byte at a time, JSON that is too deep. It goes to addresses of this machine alone.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
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
/// Of a body that does not end.
const PIECE: usize = 0x1000;
/// How the answer to one begins.
const REFUSED: &str = "HTTP/1.1 400";
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
                let local = LocalSet::new();
                local.block_on(&runtime.expect("a runtime"), storm(share, counts));
                // Before thousands of connections that were held on to are closed.
                begun.elapsed()
            })
        })
        .collect();
    let took = threads.into_iter().map(|thread| thread.join().expect("the storm does not panic")).max();
    let took = took.unwrap_or_default();
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
    let (rate, seconds) = (all as f64 / took.as_secs_f64(), took.as_secs_f64());
    let own = processor_seconds().map_or_else(String::new, |own| {
        format!("; to send them took {own:.1} s of processor, {:.0} us each", own * 1e6 / all.max(1) as f64)
    });
    said + &format!("{all} bad requests in {seconds:.1} s: {rate:.0} a second{own}\n")
}

/// What this process has used of the processors, the kernel's work for it included (proc(5)).
fn processor_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = text.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<f64>().ok();
    // A hundredth of a second each, on every Linux there is.
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

async fn storm(plan: Plan, counts: Arc<Counts>) {
    let words = Rc::new(Words::new());
    let permits = Arc::new(Semaphore::new(0));
    let until = Instant::now() + plan.time;
    for worker in 0..WORKERS {
        let (permits, counts, words) = (permits.clone(), counts.clone(), words.clone());
        tokio::task::spawn_local(async move {
            let mut worker = Worker { plan, words, held: Default::default(), talks: None, turn: worker };
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

/// What is said again and again, put together once: whoever sends shares the processors with the daemon.
struct Words {
    /// A head and the first piece of a body.
    endless: Vec<u8>,
    piece_bytes: usize,
    slow: Vec<u8>,
    deep: Vec<u8>,
}

impl Words {
    fn new() -> Words {
        let mut endless = b"POST /v1/units HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                            Transfer-Encoding: chunked\r\n\r\n"
            .to_vec();
        let begins = endless.len();
        endless.extend(format!("{PIECE:x}\r\n").into_bytes());
        endless.resize(endless.len() + PIECE, b' ');
        endless.extend(b"\r\n");
        let piece_bytes = endless.len() - begins;
        let body = format!("{{\"operations\":{}", "[".repeat(DEPTH));
        let head = format!(
            "POST /v1/units HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        let slow = b"GET /v1/units HTTP/1.1\r\nHost: x\r\nX-Slow: s".to_vec();
        Words { endless, piece_bytes, slow, deep: (head + &body).into_bytes() }
    }
}

struct Worker {
    plan: Plan,
    words: Rc<Words>,
    held: [VecDeque<TcpStream>; 6],
    /// A connection on which requests are answered.
    talks: Option<TcpStream>,
    turn: usize,
}

impl Worker {
    async fn send(&mut self, kind: Kind, count: usize) -> io::Result<()> {
        let words = self.words.clone();
        match kind {
            Kind::GarbageToPeers => throw(self.plan.peers, &[0x5a; 256]).await,
            Kind::GarbageToApi => throw(self.plan.api, &[0xa5; 256]).await,
            Kind::HalfOpenTls => self.hold(kind, self.plan.peers, CLIENT_HELLO, &[]).await,
            Kind::SlowHeaders => self.hold(kind, self.plan.api, &words.slow, b"s").await,
            Kind::EndlessBody => {
                let piece = &words.endless[words.endless.len() - words.piece_bytes..];
                self.hold(kind, self.plan.api, &words.endless, piece).await
            }
            Kind::DeepJson => self.ask_deep(&words, count).await,
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
        held.push_back(stream);
        said
    }

    /// Each is refused, or it is an error.
    async fn ask_deep(&mut self, words: &Words, count: usize) -> io::Result<()> {
        let mut stream = match self.talks.take() {
            Some(stream) => stream,
            None => TcpStream::connect(self.plan.api).await?,
        };
        stream.write_all(&words.deep.repeat(count)).await?;
        let (mut answered, mut piece) = (0, [0; 8192]);
        // Where an answer begins may be split between two reads.
        let mut kept = 0;
        while answered < count {
            let read = match stream.read(&mut piece[kept..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => kept + read,
            };
            answered += String::from_utf8_lossy(&piece[..read]).matches(REFUSED).count();
            kept = read.min(REFUSED.len() - 1);
            piece.copy_within(read - kept..read, 0);
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
