//! Who shares which call, and what an unknown id costs the others.

use std::collections::BTreeSet;

use tokio::task::JoinSet;

use super::fake::Fake;
use super::*;

#[tokio::test]
async fn a_thousand_at_once_are_six_calls() {
    let fake = Fake::start().await;
    fake.close();
    let client = fake.client();
    let first = tokio::spawn({
        let client = client.clone();
        async move { ask(&client, 0).await }
    });
    fake.until_calls(1).await;
    let rest = tokio::spawn(async move { ask_all(&client, 1..1_000).await });
    // A second call goes as soon as a whole batch waits.
    fake.until_calls(2).await;
    fake.open(100);
    assert!(first.await.unwrap().unwrap().is_some());
    assert!(rest.await.unwrap().into_iter().all(|found| found == Ok(true)));
    let mut sizes: Vec<_> = fake.ec2().iter().map(|call| call.ids().len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 199, 200, 200, 200, 200]);
    assert_eq!(fake.statistics.ec2.calls(), 6);
}

#[tokio::test]
async fn the_same_instance_is_asked_for_once() {
    let fake = Fake::start().await;
    let found = ask_all(&fake.client(), std::iter::repeat_n(7, 500)).await;
    assert!(found.into_iter().all(|found| found == Ok(true)));
    assert_eq!(fake.ec2().len(), 1);
    assert_eq!(fake.ec2()[0].ids(), [id(7).to_string()]);
}

// A look is younger than its question: the answer of a call that was on its way says how the
// instance was before.
#[tokio::test]
async fn who_comes_late_shares_the_next_call_and_not_the_one_on_its_way() {
    let fake = Fake::start().await;
    fake.close();
    let client = fake.client();
    let early = tokio::spawn({
        let client = client.clone();
        async move { ask(&client, 1).await }
    });
    fake.until_calls(1).await;
    let late = tokio::spawn(async move { ask_all(&client, [1, 2, 1]).await });
    tokio::time::sleep(Duration::from_millis(30)).await;
    fake.open(1);
    early.await.unwrap().unwrap();
    fake.until_calls(2).await;
    assert!(!late.is_finished());
    fake.open(1);
    late.await.unwrap();
    let calls: Vec<_> = fake.ec2().iter().map(fake::Seen::ids).collect();
    assert_eq!(calls, [vec![id(1).to_string()], vec![id(1).to_string(), id(2).to_string()]]);
}

#[tokio::test]
async fn no_answer_is_kept() {
    let fake = Fake::start().await;
    let client = fake.client();
    for calls in 1..4 {
        ask(&client, 1).await.unwrap();
        assert_eq!(fake.ec2().len(), calls);
    }
}

// T25: one unknown id among a hundred.
#[tokio::test]
async fn an_unknown_id_fails_alone_and_costs_one_more_call() {
    let fake = Fake::start().await;
    fake.edit(|state| state.unknown.insert(id(42).to_string()));
    let found = ask_all(&fake.client(), 0..100).await;
    for (n, found) in found.into_iter().enumerate() {
        assert_eq!(found, Ok(n != 42), "{n}");
    }
    assert_eq!(fake.ec2().len(), 2);
}

// T25: an error that names one id of several, and one that names none that was asked for.
#[tokio::test]
async fn unknown_ids_that_are_not_named_cost_two_more_calls() {
    for named in [0, 1] {
        let fake = Fake::start().await;
        let unknown = [3, 50, 99];
        fake.edit(|state| {
            state.named = named;
            state.page = 40;
            state.unknown = unknown.iter().map(|n| id(*n).to_string()).collect();
        });
        let found = ask_all(&fake.client(), 0..100).await;
        for (n, found) in found.into_iter().enumerate() {
            assert_eq!(found, Ok(!unknown.contains(&n)), "{n}");
        }
        let calls = fake.ec2();
        let by_id = calls.iter().filter(|call| !call.is_filter()).count();
        assert_eq!(by_id, 1 + named);
        let tokens: Vec<_> = calls.iter().filter(|call| call.is_filter()).collect();
        let tokens = tokens.iter().map(|call| call.form.get("NextToken").map(String::as_str));
        assert_eq!(tokens.collect::<Vec<_>>(), [None, Some("+/40"), Some("+/80")]);
    }
}

#[tokio::test]
async fn three_unknown_among_450() {
    let fake = Fake::start().await;
    let unknown = BTreeSet::from([5, 205, 449]);
    fake.edit(|state| state.unknown = unknown.iter().map(|n| id(*n).to_string()).collect());
    let found = ask_all(&fake.client(), 0..450).await;
    for (n, found) in found.into_iter().enumerate() {
        assert_eq!(found, Ok(!unknown.contains(&n)), "{n}");
    }
    assert_eq!(fake.ec2().len(), 6);
}

#[tokio::test]
async fn a_batch_of_nothing_but_unknown_ids_ends() {
    let fake = Fake::start().await;
    fake.edit(|state| state.unknown = (0..10).map(|n| id(n).to_string()).collect());
    let found = ask_all(&fake.client(), 0..10).await;
    assert!(found.into_iter().all(|found| found == Ok(false)));
    assert_eq!(fake.ec2().len(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_disturbs_nobody_and_is_not_asked_for() {
    let fake = Fake::start().await;
    fake.close();
    let client = fake.client();
    let asking = |n| {
        let client = client.clone();
        tokio::spawn(async move { ask(&client, n).await })
    };
    let (first, same) = (asking(1), asking(1));
    fake.until_calls(1).await;
    let (leaves, stays) = (asking(2), asking(3));
    tokio::time::sleep(Duration::from_millis(20)).await;
    first.abort();
    leaves.abort();
    tokio::time::sleep(Duration::from_millis(20)).await;
    fake.open(10);
    assert!(same.await.unwrap().unwrap().is_some());
    assert!(stays.await.unwrap().unwrap().is_some());
    let calls: Vec<_> = fake.ec2().iter().map(fake::Seen::ids).collect();
    assert_eq!(calls, [[id(1).to_string()], [id(3).to_string()]]);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_bounded_in_number_and_time() {
    let fake = Fake::start().await;
    fake.close();
    let client = fake.client();
    let many = batch::WAITING_MAX + 2_000;
    let begun = Instant::now();
    let found = ask_all(&client, (0..many).map(|n| n % 100)).await;
    assert!(begun.elapsed() <= WAIT_MAX + Duration::from_secs(1), "{:?}", begun.elapsed());
    let throttled = |found: &&Result<bool, CallFailed>| {
        found.as_ref().is_err_and(|failure| failure.detail.contains("too many wait"))
    };
    assert_eq!(found.iter().filter(throttled).count(), 2_000);
    assert!(found.iter().all(Result::is_err));
}

// Questions that come at the pace of STS are gathered: 600 a second, few calls.
#[tokio::test(start_paused = true)]
async fn a_crowd_that_trickles_in_shares_its_calls() {
    let fake = Fake::start().await;
    let client = fake.client();
    let mut crowd = JoinSet::new();
    for number in 0..3_000 {
        let client = client.clone();
        crowd.spawn(async move {
            client.describe(&own(), &LookUpBy::Own, &id(number), long_ago()).await.unwrap();
        });
        tokio::time::sleep(Duration::from_micros(1_667)).await;
    }
    crowd.join_all().await;
    let calls = fake.ec2().len();
    assert!(calls <= 35, "{calls} calls");
}

// Twenty roles in one account share the account's limit; another account has its own.
#[tokio::test(start_paused = true)]
async fn calls_of_an_account_stay_below_its_limit() {
    let fake = Fake::start().await;
    let client = fake.client();
    let (mut calls, begun) = (0, Instant::now());
    while begun.elapsed() < Duration::from_secs(5) {
        let arn = format!("arn:aws:iam::{OWN_ACCOUNT}:role/web-{}", calls % 20);
        let by =
            if calls % 20 == 0 { LookUpBy::Own } else { LookUpBy::Role { arn, external_id: None } };
        client.describe(&own(), &by, &id(calls), long_ago()).await.unwrap();
        calls += 1;
    }
    assert!((95..=105).contains(&calls), "{calls} calls in 5 s");
    let begun = Instant::now();
    let arn = "arn:aws:iam::444455556666:role/web".to_owned();
    let by = LookUpBy::Role { arn, external_id: None };
    client.describe(&place("444455556666"), &by, &id(1), long_ago()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
}
