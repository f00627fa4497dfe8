//! Which machine this is: the EC2 instance, or for nodes that have no metadata service a name that
//! is made of what the host knows of itself.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::domain::InstanceId;

const PREFIX: &str = "machine-";
const DIGITS: usize = 32;
/// Both files have one short line.
const FILE_BYTES_MAX: u64 = 256;
const MACHINE_ID: &str = "etc/machine-id";
const PRODUCT_UUID: &str = "sys/class/dmi/id/product_uuid";
/// On EC2's Nitro machines the instance's own id, and readable by everybody.
const BOARD_ASSET_TAG: &str = "sys/class/dmi/id/board_asset_tag";

/// What state is stamped with: `i-0123456789abcdef0`, or `machine-` and 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MachineId(String);

/// Text that names no machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an instance id, or `machine-` and 32 lower-case hexadecimal digits")]
pub struct InvalidMachineId;

/// A host that cannot be told from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this machine cannot be told from others: /etc/machine-id is missing or empty; \
     `systemd-machine-id-setup` makes it"
)]
pub struct NoMachineId;

impl MachineId {
    /// The host whose files are below `root`, which is `/`.
    ///
    /// A cloned disk keeps `/etc/machine-id`, but its new machine has another asset tag and product
    /// UUID, where it has them. The UUID is only readable by root.
    pub fn of_host(root: &Path) -> Result<Self, NoMachineId> {
        // An image that is to be copied says `uninitialized`, or nothing.
        let machine_id =
            line(&root.join(MACHINE_ID)).filter(|id| id != "uninitialized").ok_or(NoMachineId)?;
        let product_uuid = line(&root.join(PRODUCT_UUID)).unwrap_or_default();
        let asset_tag = line(&root.join(BOARD_ASSET_TAG)).unwrap_or_default();
        // Hashed: machine-id(5) asks that it is not shown to others, and the name goes into logs.
        let mut hash = Context::new(&SHA256);
        hash.update(b"muster/machine/v1\0");
        hash.update(machine_id.as_bytes());
        hash.update(b"\0");
        hash.update(product_uuid.to_ascii_lowercase().as_bytes());
        hash.update(b"\0");
        hash.update(asset_tag.as_bytes());
        let digits = hex::encode(hash.finish().as_ref());
        Ok(Self(format!("{PREFIX}{}", digits.get(..DIGITS).unwrap_or_default())))
    }
}

/// The only line of a file; nothing if there is none.
fn line(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

impl From<InstanceId> for MachineId {
    fn from(id: InstanceId) -> Self {
        Self(id.to_string())
    }
}

impl FromStr for MachineId {
    type Err = InvalidMachineId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        let is_host = text
            .strip_prefix(PREFIX)
            .is_some_and(|digits| digits.len() == DIGITS && digits.bytes().all(is_digit));
        if is_host || text.parse::<InstanceId>().is_ok() {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidMachineId)
        }
    }
}

impl TryFrom<String> for MachineId {
    type Error = InvalidMachineId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MachineId> for String {
    fn from(id: MachineId) -> Self {
        id.0
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn host(machine_id: &str, product_uuid: Option<&str>) -> Result<MachineId, NoMachineId> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [(MACHINE_ID, Some(machine_id)), (PRODUCT_UUID, product_uuid)] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if let Some(text) = text {
                fs::write(path, text).unwrap();
            }
        }
        MachineId::of_host(root.path())
    }

    // T62: what a clone of a disk shares, and what it does not.
    #[test]
    fn a_cloned_disk_is_another_machine_and_a_reboot_is_not() {
        let id = "0123456789abcdef0123456789abcdef\n";
        let first = host(id, Some("EC2AAAAA-0000\n")).unwrap();
        assert_eq!(first, host(id, Some("ec2aaaaa-0000")).unwrap());
        assert_ne!(first, host(id, Some("EC2BBBBB-0000")).unwrap());
        assert_ne!(first, host(id, None).unwrap());
        assert_ne!(host("a", Some("b")), host("ab", None));
        assert_eq!(first.to_string().parse(), Ok(first.clone()));
        assert!(!first.to_string().contains("0123456789abcdef"), "it is not shown: {first}");
    }

    #[test]
    fn a_host_that_nothing_tells_apart_has_no_name() {
        for nameless in ["", "\n", "uninitialized\n"] {
            assert_eq!(host(nameless, Some("EC2AAAAA")), Err(NoMachineId), "{nameless:?}");
        }
        assert_eq!(MachineId::of_host(Path::new("/nonexistent")), Err(NoMachineId));
    }

    #[test]
    fn text_is_an_instance_or_a_host() {
        let id: InstanceId = "i-0123456789abcdef0".parse().unwrap();
        assert_eq!("i-0123456789abcdef0".parse(), Ok(MachineId::from(id)));
        for wrong in
            ["", "machine-", "machine-0123", "host", &format!("machine-{}", "F".repeat(32))]
        {
            assert_eq!(wrong.parse::<MachineId>(), Err(InvalidMachineId), "{wrong}");
        }
    }
}
