//! Turns as those who wait for them see it (I14).

use std::sync::atomic::AtomicUsize;

use tokio::task::JoinSet;

use super::*;

fn source(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Computes, as a step of a handshake does: without letting anybody else on this thread.
fn compute() {
    std::thread::sleep(Duration::from_micros(300));
}

// On one thread nobody ever computes while another is asked, so without the round through the
// scheduler the line would always be empty. With it a crowd that came first waits.
#[tokio::test]
async fn a_crowd_that_came_first_does_not_go_first() {
    let turns = Arc::new(Turns::new(1, 10_000));
    for _ in 0..50 {
        turns.note(source("192.0.2.1"), Showing::Worthless);
        turns.note(source("198.51.100.1"), Showing::Admitted);
    }
    let served_of_crowd = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..500 {
        let (turns, served) = (Arc::clone(&turns), Arc::clone(&served_of_crowd));
        tasks.spawn(async move {
            let _turn = turns.turn(source("192.0.2.7")).await.unwrap();
            compute();
            served.fetch_add(1, Ordering::Relaxed);
            0
        });
    }
    for _ in 0..50 {
        let (turns, served) = (Arc::clone(&turns), Arc::clone(&served_of_crowd));
        tasks.spawn(async move {
            let _turn = turns.turn(source("198.51.100.7")).await.unwrap();
            compute();
            served.load(Ordering::Relaxed)
        });
    }
    let before_fleet = tasks.join_all().await.into_iter().max().unwrap();
    assert!(before_fleet < 20, "{before_fleet} of the crowd came before the last of the fleet");
    assert_eq!(served_of_crowd.load(Ordering::Relaxed), 500, "and then the crowd had its turns");
    assert_eq!(turns.waiting(), 0);
    assert_eq!(turns.served(Standing::Trusted), 50);
    assert!(turns.used() > Duration::from_millis(100), "{:?}", turns.used());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_too_long_or_is_too_many_is_told_when_to_come_back() {
    let turns = Arc::new(Turns::new(1, 3));
    let held = turns.turn(source("192.0.2.1")).await.unwrap();
    let mut waiting = JoinSet::new();
    for _ in 0..4 {
        let turns = Arc::clone(&turns);
        waiting.spawn(async move { turns.turn(source("192.0.2.1")).await.map(drop) });
    }
    let first = waiting.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(first.reason, Reason::Crowded);
    let mut rest = Vec::new();
    while let Some(ended) = waiting.join_next().await {
        rest.push(ended.unwrap().unwrap_err().reason);
    }
    assert_eq!(rest, [Reason::Waited; 3]);
    assert_eq!((turns.waiting(), turns.sent_away(Reason::Waited)), (0, 3));
    drop(held);
    drop(turns.turn(source("192.0.2.1")).await.unwrap());
}

#[tokio::test]
async fn whoever_goes_away_takes_no_turn_with_him() {
    let turns = Arc::new(Turns::new(1, 10));
    let held = turns.turn(source("192.0.2.1")).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..5 {
        let turns = Arc::clone(&turns);
        tasks.spawn(async move { turns.turn(source("192.0.2.1")).await.map(drop) });
    }
    tokio::task::yield_now().await;
    assert_eq!(turns.waiting(), 5);
    tasks.shutdown().await;
    assert_eq!(turns.waiting(), 0);
    // One who is called, and is gone before he hears it.
    {
        let mut gone = Box::pin(turns.turn(source("192.0.2.1")));
        assert!(futures_poll(gone.as_mut()).await.is_none());
        drop(held);
    }
    drop(turns.turn(source("192.0.2.1")).await.unwrap());
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|context| match std::pin::Pin::new(&mut future).poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn a_turn_is_not_held_while_somebody_waits_for_something_else() {
    let turns = Arc::new(Turns::new(1, 10));
    let turn = turns.turn(source("192.0.2.1")).await.unwrap();
    let (turn, ready) = turn.aside(std::future::ready(7)).await.unwrap();
    assert_eq!(ready, 7);
    let (send, receive) = oneshot::channel();
    let aside = turn.aside(receive);
    let other = async {
        // With one turn for all this would hang.
        drop(turns.turn(source("198.51.100.1")).await.unwrap());
        send.send(8).unwrap();
    };
    let (aside, ()) = tokio::join!(aside, other);
    assert_eq!(aside.unwrap().1, Ok(8));
}

#[tokio::test]
async fn what_would_take_too_long_is_said_before_it_begins() {
    let turns = Arc::new(Turns::new(1, 100_000));
    turns.turn_takes.store(nanoseconds(Duration::from_millis(10)), Ordering::Relaxed);
    let held = turns.turn(source("192.0.2.1")).await.unwrap();
    let mut crowd = JoinSet::new();
    for _ in 0..2000 {
        let turns = Arc::clone(&turns);
        crowd.spawn(async move { turns.turn(source("192.0.2.1")).await.map(drop) });
    }
    while turns.waiting() < 2000 {
        tokio::task::yield_now().await;
    }
    let told = turns.expect(source("192.0.2.9")).unwrap_err();
    assert_eq!(told.reason, Reason::Expected);
    assert!((2..=60).contains(&told.retry_after_seconds));
    assert_eq!(turns.expect(source("198.51.100.1")), Ok(()), "another network does not wait");
    crowd.shutdown().await;
    drop(held);
}

// Nobody else moves while the crowd waits: it is called again by the clock alone.
#[tokio::test(start_paused = true)]
async fn a_crowd_that_was_held_back_goes_on_when_the_nodes_are_gone() {
    let turns = Arc::new(Turns::new(1, 10_000));
    for _ in 0..50 {
        turns.note(source("192.0.2.1"), Showing::Worthless);
        turns.note(source("198.51.100.1"), Showing::Admitted);
    }
    drop(turns.turn(source("198.51.100.7")).await.unwrap());
    let of_crowd = turns.turn(source("192.0.2.7")).await.unwrap();
    // Fifteen times as long is more than until the nodes count as gone.
    std::thread::sleep(Duration::from_millis(20));
    drop(of_crowd);
    let began = Instant::now();
    drop(turns.turn(source("192.0.2.7")).await.unwrap());
    let waited = began.elapsed();
    assert!((200..=300).contains(&waited.as_millis()), "{waited:?}");
    assert!(turns.next_look.lock().unwrap().is_none());
}

// There are sixteen seats for each one of them, also while no node waits for one.
#[tokio::test(start_paused = true)]
async fn a_crowd_has_a_sixteenth_of_the_seats_beside_nodes() {
    let processor = Turns::new(1, 10_000);
    for _ in 0..50 {
        processor.note(source("192.0.2.1"), Showing::Worthless);
        processor.note(source("198.51.100.1"), Showing::Admitted);
    }
    let seats = Arc::new(processor.seats(448, 1000));
    let node = seats.turn(source("198.51.100.7")).await.unwrap();
    let mut crowd = JoinSet::new();
    for _ in 0..100 {
        let seats = Arc::clone(&seats);
        crowd.spawn(async move { seats.turn(source("192.0.2.7")).await });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((seats.taken(), seats.waiting()), (29, 72));
    drop(node);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((seats.taken(), seats.waiting()), (100, 0));
    crowd.shutdown().await;
}
