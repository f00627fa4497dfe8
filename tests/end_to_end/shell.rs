//! Completions and manual pages: they name every command that `--help` has.

use std::fs;
use std::process::Command;

use crate::harness::{Answer, MUSTER};

/// The commands as `muster --help` lists them.
fn commands() -> Vec<String> {
    let help = Command::new(MUSTER).arg("--help").output().unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    let listed = text.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| {
        let indented = line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?;
        indented.split_whitespace().next()
    });
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let commands = commands();
    assert!(commands.len() > 10, "{commands:?}");
    for shell in ["bash", "zsh", "fish"] {
        let printed = Command::new(MUSTER).args(["completions", shell]).output().unwrap();
        let script = String::from_utf8(printed.stdout).unwrap();
        for command in &commands {
            assert!(script.contains(command.as_str()), "{shell}: {command}");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("man1");
    Answer::of(Command::new(MUSTER).args(["man", "--output", "json", "--out"]).arg(&out)).yes();
    for command in &commands {
        let page = fs::read_to_string(out.join(format!("muster-{command}.1"))).unwrap();
        assert!(page.contains(".SH NAME"), "{command}");
    }
    let page = fs::read_to_string(out.join("muster-nodes-lock.1")).unwrap();
    assert!(page.contains("reason"), "flags of a nested command: {page}");
    // A closed standard output ends quietly.
    let script = format!("{MUSTER} completions bash | head -1");
    let piped = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(piped.status.success() && piped.stderr.is_empty(), "{piped:?}");
}
