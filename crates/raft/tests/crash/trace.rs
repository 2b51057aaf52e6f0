//! What `strace -f -xx` wrote: system calls in the order in which they ended, and when each sync began.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// All that can change a file or its name, and all that moves a file descriptor.
const CALLS: &str = "trace=openat,creat,close,dup,dup2,dup3,fcntl,lseek,write,writev,pwrite64,pwritev,\
ftruncate,fallocate,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir";

/// One moment of the child's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A sync was asked for: it is about what was written by now.
    SyncBegins {
        thread: u32,
        fd: i32,
    },
    SyncEnds {
        thread: u32,
        fd: i32,
    },
    Open {
        path: PathBuf,
        fd: i32,
        truncate: bool,
        create: bool,
    },
    Close {
        fd: i32,
    },
    Duplicate {
        from: i32,
        to: i32,
    },
    Seek {
        fd: i32,
        to: u64,
    },
    /// Without `at`: where the descriptor stands.
    Write {
        fd: i32,
        at: Option<u64>,
        bytes: Vec<u8>,
    },
    Truncate {
        fd: i32,
        to: u64,
    },
    Extend {
        fd: i32,
        to: u64,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Unlink {
        path: PathBuf,
    },
    MakeFolder {
        path: PathBuf,
    },
}

/// Runs the command to its end under strace.
pub fn record(command: &Command, scratch: &Path) -> Vec<Event> {
    let out = scratch.join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-xx", "-s", "16777216", "-e", CALLS, "-e", "signal=none", "-o"]).arg(&out);
    strace.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        strace.env(name, value.unwrap());
    }
    let status =
        strace.stdin(Stdio::null()).stdout(Stdio::null()).status().expect("strace has to be installed");
    assert!(status.success(), "the child failed under strace: {status}");
    let text = std::fs::read_to_string(&out).unwrap();
    std::fs::remove_file(&out).unwrap();
    parse(&text)
}

fn parse(text: &str) -> Vec<Event> {
    let mut events = Vec::new();
    // The first half of a call that another thread's calls have interrupted, by thread.
    let mut halves = std::collections::BTreeMap::<u32, String>::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let (thread, rest) = (thread.parse::<u32>().unwrap(), rest.trim_start());
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        let (call, begins) = match rest.strip_prefix("<... ") {
            Some(resumed) => {
                let (_, end) = resumed.split_once(" resumed>").unwrap();
                (halves.remove(&thread).unwrap() + end, false)
            }
            None => (rest.to_string(), true),
        };
        let unfinished = call.strip_suffix(" <unfinished ...>");
        if begins && (call.starts_with("fsync(") || call.starts_with("fdatasync(")) {
            let (_, rest) = call.split_once('(').unwrap();
            events.push(Event::SyncBegins { thread, fd: number(rest) });
        }
        match unfinished {
            Some(half) => drop(halves.insert(thread, half.to_string())),
            None => events.extend(event(thread, &call)),
        }
    }
    events
}

/// The digits that `text` starts with.
fn number(text: &str) -> i32 {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().unwrap_or(-1)
}

/// What a whole call did; nothing when it failed or is of no interest.
fn event(thread: u32, call: &str) -> Option<Event> {
    let (name, rest) = call.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let arguments = arguments.trim_end().strip_suffix(')')?;
    let result: i64 = result.split([' ', '<']).next()?.parse().ok().filter(|result| *result >= 0)?;
    let words = || arguments.split(", ").collect::<Vec<_>>();
    let last = || words().last()?.parse::<u64>().ok();
    let fd = number(arguments);
    let path = |at: usize| Some(PathBuf::from(String::from_utf8(strings(arguments).nth(at)?).ok()?));
    Some(match name {
        "openat" | "creat" => Event::Open {
            path: path(0)?,
            fd: result as i32,
            truncate: name == "creat" || arguments.contains("O_TRUNC"),
            create: name == "creat" || arguments.contains("O_CREAT"),
        },
        "close" => Event::Close { fd },
        "dup" | "dup2" | "dup3" => Event::Duplicate { from: fd, to: result as i32 },
        "fcntl" if arguments.contains("F_DUPFD") => Event::Duplicate { from: fd, to: result as i32 },
        "lseek" => Event::Seek { fd, to: result as u64 },
        "write" | "writev" => Event::Write { fd, at: None, bytes: written(arguments, result) },
        "pwrite64" | "pwritev" => Event::Write { fd, at: Some(last()?), bytes: written(arguments, result) },
        "ftruncate" => Event::Truncate { fd, to: last()? },
        "fallocate" if !arguments.contains("KEEP_SIZE") => {
            let words = words();
            Event::Extend { fd, to: words[2].parse::<u64>().ok()? + words[3].parse::<u64>().ok()? }
        }
        "fsync" | "fdatasync" => Event::SyncEnds { thread, fd },
        "rename" | "renameat" | "renameat2" => Event::Rename { from: path(0)?, to: path(1)? },
        "unlink" | "unlinkat" => Event::Unlink { path: path(0)? },
        "mkdir" | "mkdirat" => Event::MakeFolder { path: path(0)? },
        _ => return None,
    })
}

fn written(arguments: &str, result: i64) -> Vec<u8> {
    let mut bytes: Vec<u8> = strings(arguments).flatten().collect();
    bytes.truncate(result as usize);
    bytes
}

/// The strings among the arguments, each written as `"\x68\x69"`.
fn strings(arguments: &str) -> impl Iterator<Item = Vec<u8>> + '_ {
    arguments.split('"').skip(1).step_by(2).map(|hex| {
        let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
        hex.as_bytes().chunks(4).map(|c| digit(c[2]) << 4 | digit(c[3])).collect()
    })
}

#[test]
fn calls_are_read() {
    let text = r#"7 openat(AT_FDCWD, "\x2f\x61", O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0666) = 3
7 write(3, "\x68\x69", 2 <unfinished ...>
8 fdatasync(3 <unfinished ...>
7 <... write resumed>) = 2
8 <... fdatasync resumed>) = 0
7 pwrite64(3, "\x68\x69", 2, 4096) = 1
7 unlink("\x2f\x62") = -1 ENOENT (No such file or directory)
7 +++ exited with 0 +++"#;
    let expected = [
        Event::Open { path: "/a".into(), fd: 3, truncate: true, create: true },
        Event::SyncBegins { thread: 8, fd: 3 },
        Event::Write { fd: 3, at: None, bytes: b"hi".into() },
        Event::SyncEnds { thread: 8, fd: 3 },
        Event::Write { fd: 3, at: Some(4096), bytes: b"h".into() },
    ];
    assert_eq!(parse(text), expected);
}
