//! Credentials that need no memory.
//!
//! A session token carries who its holder is, under a MAC of the simulator's key; the secret is
//! derived from the key id and the token by the same key. Nothing here shows a secret.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::SimulatedInstance;
use crate::domain::{AccountId, InstanceId, Lifetime, Partition, Timestamp};

/// Credentials of an instance live about six hours and are renewed in time; here every hour.
pub(super) const INSTANCE_ROLE_LIFE: Lifetime = Lifetime::from_hours(6);
const INSTANCE_ROLE_RENEWAL_SECONDS: i64 = 3600;
/// The name of the server's own user.
const SERVER_USER: &str = "muster-server";
const BASE32: [char; 32] = [
    'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P', 'Q', 'R', 'S',
    'T', 'U', 'V', 'W', 'X', 'Y', 'Z', '2', '3', '4', '5', '6', '7',
];
const MAC_BYTES: usize = 32;

/// Who holds credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Principal {
    pub(super) account: AccountId,
    pub(super) kind: PrincipalKind,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PrincipalKind {
    /// The user of the server, in whichever partition it calls.
    ServerUser,
    /// The identity role that every instance has.
    InstanceRole { partition: Partition, instance: InstanceId },
    /// The role of an instance's profile, which has the profile's name.
    InstanceProfile { partition: Partition, role: String, instance: InstanceId },
    /// A session of an assumed role.
    RoleSession { partition: Partition, role: String, session: String, policy: Option<String> },
}

impl Principal {
    /// Whether the credentials are known in this partition.
    pub(super) fn is_known_in(&self, partition: Partition) -> bool {
        match &self.kind {
            PrincipalKind::ServerUser => true,
            PrincipalKind::InstanceRole { partition: own, .. }
            | PrincipalKind::InstanceProfile { partition: own, .. }
            | PrincipalKind::RoleSession { partition: own, .. } => *own == partition,
        }
    }

    /// The ARN, as `GetCallerIdentity` tells it in this partition.
    pub(super) fn arn(&self, partition: Partition) -> String {
        let account = &self.account;
        match &self.kind {
            PrincipalKind::ServerUser => {
                format!("arn:{partition}:iam::{account}:user/{SERVER_USER}")
            }
            PrincipalKind::InstanceRole { instance, .. } => {
                format!("arn:{partition}:sts::{account}:assumed-role/aws:ec2-instance/{instance}")
            }
            PrincipalKind::InstanceProfile { role, instance, .. } => {
                format!("arn:{partition}:sts::{account}:assumed-role/{role}/{instance}")
            }
            PrincipalKind::RoleSession { role, session, .. } => {
                format!("arn:{partition}:sts::{account}:assumed-role/{role}/{session}")
            }
        }
    }

    /// The user id, as `GetCallerIdentity` tells it.
    pub(super) fn user_id(&self) -> String {
        let account = &self.account;
        match &self.kind {
            PrincipalKind::ServerUser => unique_id("AIDA", &[account.as_str(), SERVER_USER]),
            PrincipalKind::InstanceRole { instance, .. } => {
                format!("{account}:aws:ec2-instance:{instance}")
            }
            PrincipalKind::InstanceProfile { role, instance, .. } => {
                format!("{}:{instance}", unique_id("AROA", &[account.as_str(), role]))
            }
            PrincipalKind::RoleSession { role, session, .. } => {
                format!("{}:{session}", unique_id("AROA", &[account.as_str(), role]))
            }
        }
    }
}

/// IAM's unique ids: a prefix that tells the kind and 17 characters, here made of the name.
pub(super) fn unique_id(prefix: &str, name: &[&str]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.join("/").as_bytes());
    let rest = base32(digest.as_ref());
    format!("{prefix}{}", rest.get(..17).unwrap_or_default())
}

/// Makes credentials and knows them again.
pub(super) struct Mint {
    key: hmac::Key,
    server_account: AccountId,
}

/// What a session token says.
#[derive(Serialize, Deserialize)]
struct Claims {
    key_id: String,
    principal: Principal,
    expires: Timestamp,
}

/// Why credentials do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotAccepted {
    Unknown,
    Expired,
}

impl Mint {
    /// A new key. `None` if the cryptographic library refuses.
    pub(super) fn new(server_account: AccountId) -> Option<Self> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new()).ok()?;
        Some(Self { key, server_account })
    }

    /// The keys of the server's own user, which never end.
    pub(super) fn server(&self) -> Credentials {
        let key_id = self.key_id("AKIA", &self.server_account, SERVER_USER);
        let secret = self.secret(&key_id, "");
        Credentials::new(key_id, secret, None, None, "simulator")
    }

    /// What the metadata service answers now for the identity role, and since when.
    pub(super) fn identity_role(
        &self,
        instance: &SimulatedInstance,
        now: Timestamp,
    ) -> Option<(Credentials, Timestamp)> {
        let kind = PrincipalKind::InstanceRole {
            partition: Partition::of_region(&instance.region),
            instance: instance.instance_id.clone(),
        };
        self.of_instance(instance, kind, "identity", now)
    }

    /// The same for the role of its instance profile, if it has one.
    pub(super) fn instance_profile(
        &self,
        instance: &SimulatedInstance,
        now: Timestamp,
    ) -> Option<(Credentials, Timestamp)> {
        let kind = PrincipalKind::InstanceProfile {
            partition: Partition::of_region(&instance.region),
            role: instance.record.instance_profile.clone()?,
            instance: instance.instance_id.clone(),
        };
        self.of_instance(instance, kind, "profile", now)
    }

    fn of_instance(
        &self,
        instance: &SimulatedInstance,
        kind: PrincipalKind,
        purpose: &str,
        now: Timestamp,
    ) -> Option<(Credentials, Timestamp)> {
        let seconds = now.unix_seconds();
        let since = seconds - seconds % INSTANCE_ROLE_RENEWAL_SECONDS;
        let since = Timestamp::from_unix_seconds(since);
        let principal = Principal { account: instance.account_id.clone(), kind };
        let name = format!("{} {purpose} {since}", instance.instance_id);
        Some((self.session(principal, &name, since.plus(INSTANCE_ROLE_LIFE))?, since))
    }

    /// A new session of a role.
    pub(super) fn role_session(
        &self,
        principal: Principal,
        expires: Timestamp,
    ) -> Option<Credentials> {
        let name: [u8; 16] = rand::generate(&rand::SystemRandom::new()).ok()?.expose();
        self.session(principal, &hex::encode(name), expires)
    }

    fn session(&self, principal: Principal, name: &str, ends: Timestamp) -> Option<Credentials> {
        let key_id = self.key_id("ASIA", &principal.account, name);
        let claims = Claims { key_id: key_id.clone(), principal, expires: ends };
        let claims = serde_json::to_vec(&claims).ok()?;
        let mac = hmac::sign(&self.key, &[b"token ", claims.as_slice()].concat());
        let token = STANDARD.encode([mac.as_ref(), &claims].concat());
        let secret = self.secret(&key_id, &token);
        let since_1970 = Duration::from_secs(u64::try_from(ends.unix_seconds()).ok()?);
        let ends = UNIX_EPOCH + since_1970;
        Some(Credentials::new(key_id, secret, Some(token), Some(ends), "simulator"))
    }

    /// Whose credentials these are, and the secret that belongs to them.
    pub(super) fn look_up(
        &self,
        key_id: &str,
        token: Option<&str>,
        now: Timestamp,
    ) -> Result<(Principal, Credentials), NotAccepted> {
        let Some(token) = token else {
            let own = self.server();
            let principal =
                Principal { account: self.server_account.clone(), kind: PrincipalKind::ServerUser };
            let is_own = own.access_key_id() == key_id;
            return if is_own { Ok((principal, own)) } else { Err(NotAccepted::Unknown) };
        };
        let claims = self
            .opened(token)
            .filter(|claims| claims.key_id == key_id)
            .ok_or(NotAccepted::Unknown)?;
        if now >= claims.expires {
            return Err(NotAccepted::Expired);
        }
        let secret = self.secret(key_id, token);
        let credentials =
            Credentials::new(key_id, secret, Some(token.to_owned()), None, "simulator");
        Ok((claims.principal, credentials))
    }

    fn opened(&self, token: &str) -> Option<Claims> {
        let sealed = STANDARD.decode(token).ok()?;
        let (mac, claims) = sealed.split_at_checked(MAC_BYTES)?;
        hmac::verify(&self.key, &[b"token ", claims].concat(), mac).ok()?;
        serde_json::from_slice(claims).ok()
    }

    fn secret(&self, key_id: &str, token: &str) -> String {
        let mac = hmac::sign(&self.key, format!("secret {key_id} {token}").as_bytes());
        // 30 bytes are 40 characters, like AWS's.
        STANDARD.encode(mac.as_ref().get(..30).unwrap_or_default())
    }

    /// A key id that tells its account as AWS's do: after the prefix, in base32, a bit that is set,
    /// 40 bits of the account's number, and 39 bits that are made of the name.
    fn key_id(&self, prefix: &str, account: &AccountId, name: &str) -> String {
        let mac = hmac::sign(&self.key, format!("key id {account} {name}").as_bytes());
        let made =
            mac.as_ref().iter().take(5).fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        let account = account.as_str().parse::<u128>().unwrap_or_default();
        let bits = 1 << 79 | account << 39 | made & ((1 << 39) - 1);
        let bytes = bits.to_be_bytes();
        format!("{prefix}{}", base32(bytes.get(6..).unwrap_or_default()))
    }
}

impl fmt::Debug for Mint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mint({})", self.server_account)
    }
}

/// RFC 4648 section 6, without padding; a rest of less than five bits is left out.
fn base32(bytes: &[u8]) -> String {
    let bit =
        |place: usize| bytes.get(place / 8).is_some_and(|byte| byte >> (7 - place % 8) & 1 == 1);
    (0..bytes.len() * 8 / 5)
        .filter_map(|digit| {
            let value = (0..5).fold(0, |value, at| value << 1 | usize::from(bit(digit * 5 + at)));
            BASE32.get(value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

    fn mint() -> Mint {
        Mint::new("012345678901".parse().unwrap()).unwrap()
    }

    fn session(mint: &Mint) -> Credentials {
        let kind = PrincipalKind::RoleSession {
            partition: Partition::Aws,
            role: "r".to_owned(),
            session: "s".to_owned(),
            policy: None,
        };
        let principal = Principal { account: "999999999999".parse().unwrap(), kind };
        mint.role_session(principal, NOW.plus(Lifetime::from_hours(1))).unwrap()
    }

    /// The published way to read the account of a key id.
    fn account_of(key_id: &str) -> u64 {
        let bits = key_id[4..].chars().take(10).fold(0_u64, |bits, digit| {
            bits << 5 | BASE32.iter().position(|one| *one == digit).unwrap() as u64
        });
        // Ten digits are 50 bits; the first six bytes are 48 of them.
        ((bits >> 2) & 0x7fff_ffff_ff80) >> 7
    }

    #[test]
    fn a_key_id_tells_its_account() {
        let mint = mint();
        for (key_id, account) in [
            (mint.server().access_key_id().to_owned(), 12_345_678_901),
            (session(&mint).access_key_id().to_owned(), 999_999_999_999),
        ] {
            assert_eq!(key_id.len(), 20);
            assert_eq!(account_of(&key_id), account);
            assert!(key_id[4..].starts_with(|c| matches!(c, 'Q'..='Z' | '2'..='7')), "{key_id}");
        }
    }

    #[test]
    fn base32_is_that_of_the_rfc() {
        assert_eq!(base32(b"fooba"), "MZXW6YTB");
        assert_eq!(base32(b""), "");
    }

    #[test]
    fn sessions_are_known_again_until_they_end() {
        let mint = mint();
        let session = session(&mint);
        let (id, token) = (session.access_key_id(), session.session_token().unwrap());
        let (_, found) = mint.look_up(id, Some(token), NOW).unwrap();
        assert_eq!(found.secret_access_key(), session.secret_access_key());
        assert_eq!(found.secret_access_key().len(), 40);
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)));
        let end = NOW.plus(Lifetime::from_hours(1));
        assert_eq!(mint.look_up(id, Some(token), end).unwrap_err(), NotAccepted::Expired);
        assert_eq!(mint.look_up(id, None, NOW).unwrap_err(), NotAccepted::Unknown);
        let own = mint.server().access_key_id().to_owned();
        assert_eq!(mint.look_up(&own, Some(token), NOW).unwrap_err(), NotAccepted::Unknown);
        let other = Mint::new("012345678901".parse().unwrap()).unwrap();
        assert_eq!(other.look_up(id, Some(token), NOW).unwrap_err(), NotAccepted::Unknown);
    }

    #[test]
    fn no_single_changed_character_of_a_token_is_accepted() {
        let mint = mint();
        let session = session(&mint);
        let token = session.session_token().unwrap();
        for place in 0..token.len() {
            let mut changed = token.as_bytes().to_vec();
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            let refused = mint.look_up(session.access_key_id(), Some(&changed), NOW);
            assert_eq!(refused.unwrap_err(), NotAccepted::Unknown, "{place}");
        }
    }

    #[test]
    fn nothing_shows_a_secret() {
        let mint = mint();
        let session = session(&mint);
        let shown = format!("{session:?} {mint:?}");
        assert!(!shown.contains(session.secret_access_key()));
        assert!(!shown.contains(session.session_token().unwrap()));
    }
}
