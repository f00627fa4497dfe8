//! The command that tells others of a new certificate: run without a shell, one at a time, beside
//! the agent and never in its way.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long the command may take.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Runs the command for certificates.
pub(super) struct Reloader {
    /// The program and its arguments; empty if nothing is to be run.
    command: Vec<String>,
    running: Option<Running>,
    /// The serial of a certificate that came while the command ran for another one.
    wanted: Option<String>,
}

struct Running {
    serial: String,
    task: JoinHandle<Result<(), String>>,
}

/// How the command ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reloaded {
    /// The certificate that it was run for.
    pub(super) serial: String,
    pub(super) result: Result<(), String>,
}

impl Reloader {
    pub(super) fn new(command: Vec<String>) -> Self {
        Self { command, running: None, wanted: None }
    }

    /// Begins to run the command for this certificate, or does so when it has ended.
    pub(super) fn start(&mut self, serial: &str) {
        if self.command.is_empty() {
            return;
        }
        if self.running.is_some() {
            self.wanted = Some(serial.to_owned());
            return;
        }
        let task = tokio::spawn(run(self.command.clone()));
        self.running = Some(Running { serial: serial.to_owned(), task });
    }

    /// Waits for the command; for ever if it does not run. Nothing is lost if the wait is given up.
    pub(super) async fn ended(&mut self) -> Reloaded {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let ended = (&mut running.task).await;
        let result = ended.unwrap_or_else(|error| Err(error.to_string()));
        let reloaded = Reloaded { serial: running.serial.clone(), result };
        self.running = None;
        if let Some(serial) = self.wanted.take() {
            self.start(&serial);
        }
        reloaded
    }
}

async fn run(command: Vec<String>) -> Result<(), String> {
    let (program, arguments) = command.split_first().ok_or("no command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        // The agent's own stdout is for its ready line.
        .stdout(Stdio::null())
        // A group of its own, so that its children end with it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    match timeout(TIMEOUT, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{program}: {status}")),
        Ok(Err(error)) => Err(format!("{program}: {error}")),
        Err(_) => {
            end(&mut child).await;
            Err(format!("{program} did not end within {} s", TIMEOUT.as_secs()))
        }
    }
}

async fn end(child: &mut Child) {
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(group) = group {
        let _gone = kill_process_group(group, Signal::KILL);
    }
    let _reaped = child.wait().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reloader(command: &[&str]) -> Reloader {
        Reloader::new(command.iter().map(|word| (*word).to_owned()).collect())
    }

    async fn result(command: &[&str]) -> Result<(), String> {
        let mut reloader = reloader(command);
        reloader.start("01");
        let Reloaded { serial, result } = reloader.ended().await;
        assert_eq!(serial, "01");
        result
    }

    #[tokio::test]
    async fn a_failure_says_why_and_no_shell_reads_the_words() {
        assert_eq!(result(&["true"]).await, Ok(()));
        let failed = result(&["false"]).await.unwrap_err();
        assert!(failed.contains("exit status: 1"), "{failed}");
        let missing = result(&["/nonexistent/reload"]).await.unwrap_err();
        assert!(missing.contains("/nonexistent/reload"), "{missing}");
        assert_eq!(result(&["test", "$HOME", "=", "$HOME"]).await, Ok(()));
        assert_eq!(result(&["test", "$(echo a)", "!=", "a"]).await, Ok(()));
    }

    // Timers of this test stand at the end of every wait, so the minute is over at once.
    #[tokio::test(start_paused = true)]
    async fn a_command_that_hangs_is_ended_with_its_children() {
        let scratch = tempfile::tempdir().unwrap();
        let pids = scratch.path().join("pids");
        // The timer must not be over before the script has begun.
        let script =
            format!("sleep 1000 & echo $$ $! >{}.new; mv {0}.new {0}; wait", pids.display());
        let mut child = Command::new("sh").args(["-c", &script]).process_group(0).spawn().unwrap();
        while !pids.exists() {
            std::thread::yield_now();
        }
        end(&mut child).await;
        for pid in std::fs::read_to_string(&pids).unwrap().split_whitespace() {
            // A killed process may need a moment to die, and then wait for its new parent.
            let is_running = || {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                let state = stat.rsplit(") ").next().unwrap_or_default().to_owned();
                state.starts_with(['R', 'S', 'D'])
            };
            let died = (0..500).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                !is_running()
            });
            assert!(died, "{pid} runs on");
        }
        let hung = result(&["sleep", "1000"]).await.unwrap_err();
        assert!(hung.contains("60 s"), "{hung}");
    }

    #[tokio::test]
    async fn one_runs_at_a_time_and_the_newest_certificate_is_not_forgotten() {
        let mut reloader = reloader(&["true"]);
        for serial in ["01", "02", "03"] {
            reloader.start(serial);
        }
        assert_eq!(reloader.ended().await.serial, "01");
        assert_eq!(reloader.ended().await.serial, "03");
        assert!(reloader.running.is_none());
    }
}
