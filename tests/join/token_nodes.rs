//! Nodes that joined with a token: from then on they lean on their keys.

use muster::domain::{Code, Lifetime};

use crate::renewal::{new_key, shown};
use crate::tokens::{Amend, Tokens, attempt};
use crate::world::serial;

// A name is taken over by a later token and by no earlier one.
#[tokio::test]
async fn a_bound_name_goes_to_the_later_token() {
    let tokens = Tokens::new();
    let bound: Amend = |token| {
        token.node = Some("db-1".parse().unwrap());
        token.max_uses = Some(5);
    };
    let first = tokens.token("first", bound).await;
    let (old_key, key) = (new_key(), new_key());
    let admission = tokens.admitted(Some(&first), &old_key).await;
    assert!(admission.order.spiffe_id.as_str().ends_with("/node/token/web/db-1"));
    assert_eq!(tokens.refused(Some(&first), &key).await, Code::EnrollmentConflict);
    tokens.pass(Lifetime::from_minutes(1));
    let second = tokens.token("second", bound).await;
    let taken = tokens.admitted(Some(&second), &key).await;
    assert_eq!(taken.enrollment.node_id, admission.enrollment.node_id);
    assert_eq!(taken.enrollment.history.last().unwrap().what, "rebound");
    assert_eq!(tokens.refused(Some(&first), &new_key()).await, Code::EpochStale);
    // The one that was put out cannot renew: its certificate was revoked with its key. Nor can it lock
    // out the one that has the name now.
    let refusal = tokens.renew(&shown(&admission), "web", &new_key()).await.unwrap_err();
    assert_eq!(tokens.world.code_of(&refusal).await, Code::CloneSuspected);
    tokens.renew(&shown(&taken), "web", &new_key()).await.unwrap();
}

// After it has joined a node needs no token: it renews by certificate and key.
#[tokio::test]
async fn a_node_renews_without_its_token() {
    let tokens = Tokens::new();
    let secret = tokens.token("once", |_| ()).await;
    let first = tokens.admitted(Some(&secret), &new_key()).await;
    tokens.world.registry.remove_token(secret.name(), |_| Ok(Vec::new())).await.unwrap();
    tokens.pass(Lifetime::from_hours(8));
    let next = tokens.renew(&shown(&first), "web", &new_key()).await.unwrap();
    assert_eq!(next.enrollment.token.as_ref().unwrap().name.as_str(), "once");
    assert_eq!(next.order.spiffe_id, first.order.spiffe_id);
    // Two-phase: the next one is in use once it has been shown.
    let third = tokens.renew(&shown(&next), "web", &new_key()).await.unwrap();
    assert_eq!(third.enrollment.current.order.serial, serial(&next));
}

// T56, T63: without a fresh proof two of one node cannot be told apart, so that node alone is locked.
#[tokio::test]
async fn a_copied_key_locks_its_own_node_and_nobody_else() {
    let tokens = Tokens::new();
    let secret = tokens.token("two", |token| token.max_uses = Some(2)).await;
    let first = tokens.admitted(Some(&secret), &new_key()).await;
    let other = tokens.admitted(Some(&secret), &new_key()).await;
    tokens.pass(Lifetime::from_hours(8));
    tokens.renew(&shown(&first), "web", &new_key()).await.unwrap();
    let refusal = tokens.renew(&shown(&first), "web", &new_key()).await.unwrap_err();
    assert_eq!(tokens.world.code_of(&refusal).await, Code::CloneSuspected);
    let refusal = tokens.renew(&shown(&first), "web", &new_key()).await.unwrap_err();
    assert_eq!(tokens.world.code_of(&refusal).await, Code::Locked);
    tokens.renew(&shown(&other), "web", &new_key()).await.unwrap();
}

// A node that was off past the end of its certificate comes back if its policy says so, as long and as
// often as it says.
#[tokio::test]
async fn a_node_comes_back_by_its_key_where_its_policy_lets_it() {
    let tokens = Tokens::new();
    let secret = tokens.token("once", |_| ()).await;
    let key = new_key();
    let first = tokens.admitted(Some(&secret), &key).await;
    // While the certificate lives it is repeated, to its own key: a reply may have been lost.
    for hours in [1, 8] {
        assert_eq!(serial(&tokens.admitted(None, &key).await), serial(&first));
        tokens.pass(Lifetime::from_hours(hours));
    }
    for times in 1..=2 {
        tokens.pass(Lifetime::from_days(6));
        let back = tokens.admitted(None, &key).await;
        assert_eq!(back.enrollment.come_backs, times);
        assert_eq!(back.order.spiffe_id, first.order.spiffe_id);
        assert_eq!(back.enrollment.history.last().unwrap().what, "came back");
    }
    tokens.pass(Lifetime::from_days(6));
    assert_eq!(tokens.refused(None, &key).await, Code::ComeBackRefused);
    assert_eq!(tokens.state(&secret).await.uses, 1);
    // A token begins anew, under the same name.
    let again = tokens.token("again", |_| ()).await;
    let joined = tokens.admitted(Some(&again), &key).await;
    assert_eq!((joined.enrollment.come_backs, joined.order.spiffe_id), (0, first.order.spiffe_id));
    tokens.pass(Lifetime::from_days(9));
    assert_eq!(tokens.refused(None, &key).await, Code::ComeBackRefused);
    // Somebody else's key is nobody's.
    assert_eq!(tokens.refused(None, &new_key()).await, Code::TokenUnknown);
}

// I5, T8: a node that asks again with its own token is the one that it was used for; with another token it
// uses that one.
#[tokio::test]
async fn a_node_uses_its_token_once_and_another_token_too() {
    let tokens = Tokens::new();
    let long: Amend =
        |token| token.expires_at = Some(token.created_at.plus(Lifetime::from_hours(20)));
    let (own, other) = (tokens.token("own", long).await, tokens.token("other", long).await);
    let key = new_key();
    let first = tokens.admitted(Some(&own), &key).await;
    // More than a third of its life is gone: it is ordered anew, not repeated.
    tokens.pass(Lifetime::from_hours(5));
    let second = tokens.admitted(Some(&own), &key).await;
    assert_ne!(serial(&second), serial(&first));
    assert_eq!(tokens.state(&own).await.uses, 1);
    tokens.pass(Lifetime::from_hours(5));
    let third = tokens.admitted(Some(&other), &key).await;
    assert_ne!(serial(&third), serial(&second));
    assert_eq!(tokens.state(&other).await.uses, 1);
    assert_eq!(tokens.refused(Some(&other), &new_key()).await, Code::TokenExhausted);
}

// To the second: the certificate is repeated until its end, and then the policy's time runs.
#[tokio::test]
async fn the_time_to_come_back_has_a_last_second() {
    let (week, second) = (Lifetime::from_days(7), Lifetime::from_seconds(1));
    for (is_past_end, is_past_week) in [(false, false), (true, false), (true, true)] {
        let tokens = Tokens::new();
        let secret = tokens.token("once", |_| ()).await;
        let key = new_key();
        let first = tokens.admitted(Some(&secret), &key).await;
        tokens.pass(first.order.not_after.since(tokens.now()));
        if is_past_end {
            tokens.pass(week);
        }
        if is_past_week {
            tokens.pass(second);
            assert_eq!(tokens.refused(None, &key).await, Code::ComeBackRefused);
        } else {
            let back = tokens.admitted(None, &key).await;
            assert_eq!(back.enrollment.come_backs, u32::from(is_past_end));
            assert_eq!(serial(&back) == serial(&first), !is_past_end);
        }
    }
}

#[tokio::test]
async fn nobody_comes_back_unless_the_policy_says_so() {
    let tokens = Tokens::new();
    let strict: Amend = |token| token.policy = "strict".parse().unwrap();
    let secret = tokens.token("strict-1", strict).await;
    let key = new_key();
    tokens.admitted(Some(&secret), &key).await;
    tokens.pass(Lifetime::from_days(1));
    assert_eq!(tokens.refused(None, &key).await, Code::ComeBackRefused);
    // Naming the policy that would allow it does not help.
    let refusal = tokens.world.joins.admit(&attempt(None, &key, "web")).await.unwrap_err();
    assert_eq!(tokens.world.code_of(&refusal).await, Code::TokenOtherPolicy);
}

// Whoever was forgotten does not come back by the key that was meant to be forgotten.
#[tokio::test]
async fn a_forgotten_node_needs_a_token() {
    let tokens = Tokens::new();
    let (first, second) = (tokens.token("one", |_| ()).await, new_key());
    let admission = tokens.admitted(Some(&first), &second).await;
    tokens.pass(Lifetime::from_days(1));
    tokens.world.forget(&admission).await;
    assert_eq!(tokens.refused(None, &second).await, Code::ComeBackRefused);
    let later = tokens.token("two", |_| ()).await;
    tokens.admitted(Some(&later), &second).await;
}

// Nor with the token that it has used up: what was forgotten is no longer the node that it was used for.
#[tokio::test]
async fn a_spent_token_does_not_bring_back_who_was_forgotten() {
    let tokens = Tokens::new();
    let (secret, key) = (tokens.token("once", |_| ()).await, new_key());
    let admission = tokens.admitted(Some(&secret), &key).await;
    tokens.world.forget(&admission).await;
    assert_eq!(tokens.refused(Some(&secret), &key).await, Code::TokenExhausted);
    assert_eq!(tokens.state(&secret).await.uses, 1);
}

// A name that was given by hand goes no further than the policy that it was given for, and does not
// outlive its being forgotten.
#[tokio::test]
async fn a_given_name_does_not_travel() {
    let tokens = Tokens::new();
    let bound: Amend = |token| token.node = Some("db-1".parse().unwrap());
    let (first, key) = (tokens.token("first", bound).await, new_key());
    let admission = tokens.admitted(Some(&first), &key).await;
    let elsewhere: Amend = |token| token.policy = "strict".parse().unwrap();
    let other = tokens.token("strict-1", elsewhere).await;
    assert_eq!(tokens.refused(Some(&other), &key).await, Code::KeyInUse);
    tokens.pass(Lifetime::from_minutes(1));
    tokens.world.forget(&admission).await;
    let unbound = tokens.token("unbound", |_| ()).await;
    assert_eq!(tokens.refused(Some(&unbound), &key).await, Code::KeyInUse);
}

// The next certificate was made, its reply lost, and the node went off: its next key still gets it.
#[tokio::test]
async fn a_lost_reply_of_a_renewal_does_not_keep_a_node_out() {
    let tokens = Tokens::new();
    let secret = tokens.token("once", |_| ()).await;
    let first = tokens.admitted(Some(&secret), &new_key()).await;
    tokens.pass(Lifetime::from_hours(8));
    let next_key = new_key();
    let lost = tokens.renew(&shown(&first), "web", &next_key).await.unwrap();
    tokens.pass(Lifetime::from_hours(6));
    assert_eq!(serial(&tokens.admitted(None, &next_key).await), serial(&lost));
}
