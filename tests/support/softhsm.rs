//! SoftHSM: a PKCS#11 token in files, of one test alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The user's PIN of every token; no test may find it in a log.
pub(crate) const PIN: &str = "pin-4711-of-tests";
/// Names the configuration to the module, which reads it when it is loaded: a process that uses
/// the module must be started with this variable.
pub(crate) const CONFIGURATION: &str = "SOFTHSM2_CONF";
/// Where Debian, Fedora and a build by hand put the module.
const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// Tokens below one directory.
pub(crate) struct SoftHsm {
    pub(crate) configuration: PathBuf,
}

impl SoftHsm {
    /// The library.
    pub(crate) fn module() -> Option<&'static str> {
        MODULES.into_iter().find(|module| Path::new(module).exists())
    }

    /// The file of the user's PIN.
    pub(crate) fn pin_file(directory: &Path) -> PathBuf {
        directory.join("pin")
    }

    /// One empty token with this label; none, with a message, where SoftHSM is not installed.
    pub(crate) fn new(directory: &Path, label: &str) -> Option<Self> {
        let is_there = Command::new("softhsm2-util").arg("--version").output().is_ok();
        if !is_there || Self::module().is_none() {
            let is_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
            assert!(!is_ci, "on the CI: softhsm2 is not installed");
            eprintln!("skipped: softhsm2 is not installed");
            return None;
        }
        let tokens = directory.join("tokens");
        fs::create_dir_all(&tokens).unwrap();
        let configuration = directory.join("softhsm2.conf");
        let text = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        fs::write(&configuration, text).unwrap();
        let pin_file = Self::pin_file(directory);
        fs::write(&pin_file, format!("{PIN}\n")).unwrap();
        fs::set_permissions(&pin_file, fs::Permissions::from_mode(0o600)).unwrap();
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label, "--so-pin", "so-pin"])
            .args(["--pin", PIN])
            .env(CONFIGURATION, &configuration)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(Self { configuration })
    }
}
