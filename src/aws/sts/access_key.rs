//! The account that an access key id names.

use crate::domain::AccountId;

/// The account in an access key id: base32 of the characters after the first four, bits 7 to 46 of
/// the first six bytes. Nothing for older ids, which hold none.
///
/// A hint, not a defence: anybody can make up an id of any account (red team D3). It spares STS
/// the honest mistakes.
pub fn account_of_access_key(id: &str) -> Option<AccountId> {
    let coded = id.as_bytes().get(4..14)?;
    let is_of_the_kind_with_account =
        coded.first().is_some_and(|b| (b'Q'..=b'Z').contains(b) || (b'2'..=b'7').contains(b));
    if !is_of_the_kind_with_account {
        return None;
    }
    let mut bits = 0_u64;
    for byte in coded {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'2'..=b'7' => byte - b'2' + 26,
            _ => return None,
        };
        bits = (bits << 5) | u64::from(digit);
    }
    // Ten characters are 50 bits; the first six bytes are 48 of them.
    let account = (bits >> 2 >> 7) & ((1 << 40) - 1);
    format!("{account:012}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Both ids are from the red team's notes (D3): one of a CloudTrail record, one made up.
    #[test]
    fn an_id_names_its_account() {
        for (id, account) in [
            ("ASIA52GPOBQCD6DF76FQ", Some("949622803460")),
            ("ASIARTX3GSDSTI32LOY6", Some("111122223333")),
            ("ASIAIOSFODNN7EXAMPLE", None),
            ("ASIA", None),
            ("ASIAQ1111111111111111", None),
            ("", None),
        ] {
            let found = account_of_access_key(id);
            assert_eq!(found.as_ref().map(AccountId::as_str), account, "{id}");
        }
    }
}
