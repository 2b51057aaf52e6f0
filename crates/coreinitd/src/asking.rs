//! What this machine's own programs say of a unit: `journalctl` and `systemctl status`, run when somebody
//! asks, here or from another machine. A program ends with the stream of its words.
//!
//! It changes nothing, and keeps nothing. `run` gives it to the API, and to the port between machines.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::clocks;
use crate::http::{Question, Words};

/// A journal that is searched for the first of its last lines is slow at most so long; what is asked for
/// without following comes at once then.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// A program that cannot follow says so by then.
const FOLLOW_BEGIN_TIMEOUT: Duration = Duration::from_millis(300);
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);
const PIECE_BYTES: usize = 16 << 10;
/// Of what a program says on standard error.
const COMPLAINT_BYTES_MAX: u64 = 4 << 10;

/// For the port between machines.
pub fn encode(question: &Question) -> Vec<u8> {
    serde_json::to_vec(question).expect("a question has string keys only")
}

/// A question of another machine's daemon.
pub async fn answer(question: Vec<u8>) -> Result<Words, String> {
    let question = serde_json::from_slice(&question);
    here(&question.map_err(|error| format!("the question is not understood here: {error}"))?).await
}

/// Asks this machine.
pub async fn here(question: &Question) -> Result<Words, String> {
    match question {
        Question::Journal { unit, lines, follow, output } => {
            let mut program = Command::new("journalctl");
            program.arg("--no-pager");
            program.args([
                format!("--unit={unit}"),
                format!("--lines={lines}"),
                format!("--output={output}"),
            ]);
            if *follow {
                program.arg("--follow");
            }
            stream(program, if *follow { FOLLOW_BEGIN_TIMEOUT } else { BEGIN_TIMEOUT }).await
        }
        Question::Status { unit } => {
            let mut program = Command::new("systemctl");
            program.args(["status", "--no-pager", "--full", "--", unit.as_str()]);
            status(program).await
        }
        Question::Clock => Ok(futures::stream::iter([Ok(Bytes::from(clocks::answer()))]).boxed()),
    }
}

fn prepare(program: &mut Command) -> &mut Command {
    program.env("LC_ALL", "C.UTF-8").env("SYSTEMD_COLORS", "0").env("SYSTEMD_URLIFY", "0");
    program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true)
}

/// The program's words as they come. One that fails before it says anything is an error.
async fn stream(mut program: Command, begin: Duration) -> Result<Words, String> {
    let name = name(&program);
    let spawned = prepare(&mut program).spawn().with_context(|| format!("cannot run {name}"));
    let mut child = spawned.map_err(|error| format!("{error:#}"))?;
    let out = child.stdout.take().map(BufReader::new);
    let running = Running { name: name.clone(), child, out };
    let words = futures::stream::unfold(Some(running), |running| async move {
        let mut running = running?;
        match running.next().await {
            Ok(Some(piece)) => Some((Ok(piece), Some(running))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    });
    let mut words = words.boxed().peekable();
    // Cancel-safe: what has begun goes on at the next call.
    match timeout(begin, Pin::new(&mut words).peek()).await {
        Ok(Some(Err(error))) => Err(error.to_string()),
        Ok(Some(Ok(_)) | None) => Ok(words.boxed()),
        Err(_) if begin == FOLLOW_BEGIN_TIMEOUT => Ok(words.boxed()),
        Err(_) => Err(format!("{name} said nothing within {} s", begin.as_secs())),
    }
}

fn name(program: &Command) -> String {
    program.as_std().get_program().to_string_lossy().into_owned()
}

struct Running {
    name: String,
    child: Child,
    out: Option<BufReader<ChildStdout>>,
}

impl Running {
    /// More of its words; an error when it ends badly.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut piece = vec![0; PIECE_BYTES];
        let read = match &mut self.out {
            Some(out) => out.read(&mut piece).await?,
            None => 0,
        };
        if read > 0 {
            piece.truncate(read);
            return Ok(Some(piece.into()));
        }
        let mut complaint = String::new();
        if let Some(errors) = self.child.stderr.take() {
            let _ = errors.take(COMPLAINT_BYTES_MAX).read_to_string(&mut complaint).await;
        }
        let status = self.child.wait().await?;
        match status.success() {
            true => Ok(None),
            false => {
                Err(io::Error::other(format!("{} ended with {status}: {}", self.name, complaint.trim())))
            }
        }
    }
}

/// The exit status, and all that the program says.
async fn status(mut program: Command) -> Result<Words, String> {
    let name = name(&program);
    let ended = timeout(STATUS_TIMEOUT, prepare(&mut program).output()).await;
    let ended = ended.map_err(|_| format!("{name} took longer than {} s", STATUS_TIMEOUT.as_secs()))?;
    let ended = ended.map_err(|error| format!("cannot run {name}: {error}"))?;
    let Some(code) = ended.status.code() else { return Err(format!("{name} ended with {}", ended.status)) };
    let mut said = format!("{code}\n").into_bytes();
    said.extend_from_slice(&ended.stdout);
    // systemctl says there what it does not know.
    said.extend_from_slice(&ended.stderr);
    Ok(futures::stream::iter([Ok(Bytes::from(said))]).boxed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::UnitName;
    use tokio::time::Instant;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    async fn text(words: Words) -> String {
        let pieces: Vec<io::Result<Bytes>> = words.collect().await;
        let told = pieces.into_iter().map(|piece| match piece {
            Ok(piece) => String::from_utf8_lossy(&piece).into_owned(),
            Err(error) => format!("[{error}]"),
        });
        told.collect()
    }

    #[tokio::test]
    async fn words_come_as_they_are_said() {
        let words = stream(shell("echo one; echo two"), BEGIN_TIMEOUT).await.unwrap();
        assert_eq!(text(words).await, "one\ntwo\n");
        let silent = stream(shell("true"), BEGIN_TIMEOUT).await.unwrap();
        assert_eq!(text(silent).await, "");
        let error = stream(shell("echo no such thing >&2; exit 1"), BEGIN_TIMEOUT).await.err().unwrap();
        assert_eq!(error, "sh ended with exit status: 1: no such thing");
        let late = stream(shell("echo one; exit 3"), BEGIN_TIMEOUT).await.unwrap();
        assert_eq!(text(late).await, "one\n[sh ended with exit status: 3: ]");
    }

    #[tokio::test]
    async fn a_program_ends_with_its_reader() {
        let mut words = stream(shell("echo $$; exec sleep 1000"), FOLLOW_BEGIN_TIMEOUT).await.unwrap();
        let pid: u32 = String::from_utf8_lossy(&words.next().await.unwrap().unwrap()).trim().parse().unwrap();
        let runs = || std::path::Path::new(&format!("/proc/{pid}")).exists();
        assert!(runs());
        drop(words);
        let until = Instant::now() + Duration::from_secs(20);
        while runs() {
            assert!(Instant::now() < until, "it still runs");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_status_has_its_exit_status() {
        let words = status(shell("echo dead; echo complaint >&2; exit 3")).await.unwrap();
        assert_eq!(text(words).await, "3\ndead\ncomplaint\n");
    }

    #[tokio::test]
    async fn what_is_no_question_is_refused() {
        assert!(answer(b"{}".to_vec()).await.is_err());
        let question = Question::Status { unit: UnitName::new("a.service").unwrap() };
        assert_eq!(serde_json::from_slice::<Question>(&encode(&question)).unwrap(), question);
    }
}
