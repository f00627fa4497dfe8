//! The local socket: what an operator on the machine may ask. One JSON line in, JSON lines out.
//!
//! Only root and the server's own user may use it, by the kernel's word (`SO_PEERCRED`), and every
//! use is a security record with uid, pid and the login uid, the person behind a `sudo`.

mod audit;
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
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::audit::{Class, Outcome, Record};
use crate::domain::Code;

pub(super) use commands::Local;
pub use protocol::{
    BundleFormat, Command, LocalError, LockWanted, RecordFilter, Reply, TokenWanted,
};

/// The longest command line.
const COMMAND_BYTES_MAX: u64 = 64 * 1024;
/// How long a command may take.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(2);
/// How long a reader may take for one value.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Commands at a time.
const COMMANDS_MAX: usize = 16;
/// Of these, how many may be without an end.
const ENDLESS_MAX: usize = 4;

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

/// Serves commands until `stop` says so. Those that have begun then go on in `answering`.
pub(super) async fn serve(
    listener: UnixListener,
    local: Arc<Local>,
    answering: TaskTracker,
    mut stop: watch::Receiver<bool>,
) {
    let slots = Arc::new(Semaphore::new(COMMANDS_MAX));
    let endless = Arc::new(Semaphore::new(ENDLESS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let Ok((stream, slot)) = accepted else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let (local, endless) = (Arc::clone(&local), Arc::clone(&endless));
        answering.spawn(async move {
            let _slot = slot;
            if let Err(error) = answer(stream, &local, &endless).await {
                debug!(error = %error, "a local command was not answered");
            }
        });
    }
}

/// The next connection, when there is a slot for it.
async fn accept(
    listener: &UnixListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(UnixStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, slot))
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

async fn answer(stream: UnixStream, local: &Local, endless: &Semaphore) -> io::Result<()> {
    let caller = Caller::of(&stream)?;
    let (reader, writer) = stream.into_split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(COMMAND_BYTES_MAX));
    let mut stopped = local.stopped.clone();
    tokio::select! {
        read = timeout(COMMAND_TIMEOUT, reader.read_until(b'\n', &mut line)) => read??,
        // Nothing has begun, so there is nothing to wait for.
        _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
    };
    let command: Option<Command> = serde_json::from_slice(&line).ok();
    let (replies, queue) = tokio::sync::mpsc::channel(64);
    let is_endless = command.as_ref().is_some_and(Command::is_endless);
    let deciding = async {
        let held = is_endless.then(|| endless.try_acquire());
        let has_place = !matches!(held, Some(Err(_)));
        let last = match decide(command, &caller, has_place, local, &replies).await {
            Ok(()) => Reply::End,
            Err(error) => Reply::Error(error),
        };
        let _gone = replies.send(last).await;
        drop(replies);
    };
    let answering = async { tokio::join!(write_replies(writer, queue), deciding).0 };
    if is_endless {
        // The other end says nothing more; when it is gone, so is the command.
        let mut connection = reader.into_inner().into_inner();
        tokio::select! {
            written = answering => written,
            _ = connection.read_u8() => Ok(()),
        }
    } else if let Ok(written) = timeout(COMMAND_TIMEOUT, answering).await {
        written
    } else {
        warn!("a local command took too long");
        Ok(())
    }
}

async fn write_replies(
    mut writer: OwnedWriteHalf,
    mut queue: tokio::sync::mpsc::Receiver<Reply>,
) -> io::Result<()> {
    while let Some(reply) = queue.recv().await {
        let mut line = serde_json::to_vec::<Reply>(&reply)?;
        line.push(b'\n');
        timeout(READ_TIMEOUT, writer.write_all(&line)).await??;
    }
    writer.shutdown().await
}

async fn decide(
    command: Option<Command>,
    caller: &Caller,
    has_place: bool,
    local: &Local,
    replies: &tokio::sync::mpsc::Sender<Reply>,
) -> Result<(), LocalError> {
    let name = command.as_ref().map_or("unreadable", Command::name);
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
    if !has_place {
        let message = format!("{ENDLESS_MAX} commands follow the audit log already");
        return Err(LocalError::new(Code::Overloaded, message));
    }
    // What was sent is not repeated: it may be anything (I10).
    let command = command.ok_or_else(|| {
        LocalError::new(
            Code::MalformedRequest,
            "the command cannot be read; use one version of muster on both sides",
        )
    })?;
    local.run(command, caller, replies).await
}
