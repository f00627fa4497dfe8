//! The local socket: what an operator on the machine may ask. One JSON line in, JSON lines out.
//!
//! Only root and the server's own user may use it, by the kernel's word (`SO_PEERCRED`), and every
//! use is a security record with uid, pid and the login uid, the person behind a `sudo`.

mod ca;
mod commands;
mod locks;
mod protocol;
mod publications;
mod tokens;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::audit::{Class, Outcome, Record};
use crate::domain::Code;

pub(super) use commands::Local;
pub use protocol::{BundleFormat, Command, LocalError, LockWanted, Reply, TokenWanted};

/// The longest command line.
const COMMAND_BYTES_MAX: u64 = 64 * 1024;
/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(2);
/// Commands at a time.
const COMMANDS_MAX: usize = 16;

/// Binds the socket; a socket that nobody serves any more is taken over. The data directory is
/// locked and of mode 0700, so nobody else can be there first.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves commands until `stop` says so.
pub(super) async fn serve(
    listener: UnixListener,
    local: Arc<Local>,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(COMMANDS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let local = Arc::clone(&local);
        tokio::spawn(async move {
            let _slot = slot;
            match timeout(COMMAND_TIMEOUT, answer(stream, &local)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(error = %error, "a local command was not answered"),
                Err(_) => warn!("a local command took too long"),
            }
        });
    }
}

/// Who is at the other end.
struct Caller {
    uid: u32,
    pid: Option<i32>,
    login_uid: Option<String>,
}

impl Caller {
    fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let pid = credentials.pid();
        // Survives `su` and `sudo`; absent in containers without audit.
        let login_uid = pid
            .and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/loginuid")).ok())
            .map(|text| text.trim().chars().take(16).collect());
        Ok(Self { uid: credentials.uid(), pid, login_uid })
    }

    /// For whoever asks later who did something.
    fn in_words(&self) -> String {
        match &self.login_uid {
            // The kernel's word for "nobody logged in".
            Some(login) if login != "4294967295" => format!("uid {} (login {login})", self.uid),
            Some(_) | None => format!("uid {}", self.uid),
        }
    }

    fn is_permitted(&self) -> bool {
        self.uid == 0 || self.uid == rustix::process::geteuid().as_raw()
    }

    fn describe(&self, record: Record) -> Record {
        record.with("uid", self.uid).with("pid", self.pid).with("login_uid", self.login_uid.clone())
    }
}

async fn answer(stream: UnixStream, local: &Local) -> io::Result<()> {
    let caller = Caller::of(&stream)?;
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    BufReader::new(reader.take(COMMAND_BYTES_MAX)).read_until(b'\n', &mut line).await?;
    let (replies, mut queue) = tokio::sync::mpsc::channel(64);
    let writing = async move {
        while let Some(reply) = queue.recv().await {
            let mut line = serde_json::to_vec::<Reply>(&reply)?;
            line.push(b'\n');
            writer.write_all(&line).await?;
        }
        writer.shutdown().await
    };
    let deciding = async {
        let outcome = decide(&line, &caller, local, &replies).await;
        let last = match outcome {
            Ok(()) => Reply::End,
            Err(error) => Reply::Error(error),
        };
        let _gone = replies.send(last).await;
        drop(replies);
    };
    let (written, ()) = tokio::join!(writing, deciding);
    written
}

async fn decide(
    line: &[u8],
    caller: &Caller,
    local: &Local,
    replies: &tokio::sync::mpsc::Sender<Reply>,
) -> Result<(), LocalError> {
    let parsed: Result<Command, _> = serde_json::from_slice(line);
    let name = parsed.as_ref().map_or("unreadable", Command::name);
    let outcome = if caller.is_permitted() { Outcome::Done } else { Outcome::Refused };
    let mut record =
        Record::new(local.joins.clock.now(), Class::Security, "local-command", outcome);
    record.code = (!caller.is_permitted()).then_some(Code::NotPermitted);
    // Changes are part of the transaction that makes them; the use is on record before anything
    // is answered.
    local.audit.write(&caller.describe(record.with("command", name))).await?;
    if !caller.is_permitted() {
        return Err(LocalError::new(Code::NotPermitted, "this user may not use the socket"));
    }
    // What was sent is not repeated: it may be anything (I10).
    let command = parsed.map_err(|_| {
        LocalError::new(
            Code::MalformedRequest,
            "the command cannot be read; use one version of muster on both sides",
        )
    })?;
    local.run(command, caller, replies).await
}
