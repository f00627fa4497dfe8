//! What the queue promises to whatever crowd: bounds, shares by weight, and that nobody starves (I14).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);

/// Everybody asks and ends at one time and is served at another, so long after it that no trusted
/// network is at work, and nobody is held back.
const THEN: Duration = Duration::ZERO;
const NOW: Duration = Duration::from_hours(1);

/// Where everybody comes from, unless it is said.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn queue(at_once: usize, waiting: usize) -> FairQueue<u8, u32> {
    FairQueue::new(Bounds { at_once, waiting, in_debt: 8 })
}

/// Serves so many turns of this cost, one after the other; how many each flow got.
fn serve(
    queue: &mut FairQueue<u8, u32>,
    turns: usize,
    weight: impl Fn(u8) -> Weight,
) -> [usize; 4] {
    let mut served = [0; 4];
    for _ in 0..turns {
        let Some(Served { key, standing, .. }) = queue.serve(NOW) else { break };
        served[usize::from(key)] += 1;
        queue.done((key, standing), weight(key), MILLISECOND, THEN);
    }
    served
}

#[test]
fn whoever_is_alone_has_everything_whatever_he_weighs() {
    let mut queue = queue(2, 100);
    for ticket in 0..50 {
        assert_eq!(queue.ask((1, HERE), Weight::LEAST, ticket, THEN).1, None);
    }
    assert_eq!(serve(&mut queue, 100, |_| Weight::LEAST), [0, 50, 0, 0]);
}

#[test]
fn flows_share_by_weight_and_a_flow_is_served_in_order() {
    let weight = |key| if key == 0 { Weight::FULL } else { Weight::LEAST };
    let mut queue = queue(1, 1000);
    for ticket in 0..400 {
        for key in [1, 0] {
            queue.ask((key, HERE), weight(key), ticket, THEN);
        }
    }
    let served = serve(&mut queue, 170, weight);
    assert!((158..=162).contains(&served[0]), "16 of 17: {served:?}");
    let next = std::iter::from_fn(|| {
        let Served { key, standing, ticket, .. } = queue.serve(NOW)?;
        queue.done((key, standing), weight(key), MILLISECOND, THEN);
        Some((key, ticket))
    });
    let mut last = BTreeMap::new();
    for (key, ticket) in next {
        assert!(last.insert(key, ticket) < Some(ticket), "out of order");
    }
    assert_eq!(last, BTreeMap::from([(0, 399), (1, 399)]), "in the end everybody was served");
}

// Who makes work pays for it: turns are shared by what they cost, not by number.
#[test]
fn costly_turns_count_for_more() {
    let mut queue = queue(1, 1000);
    for ticket in 0..300 {
        queue.ask((0, HERE), Weight::FULL, ticket, THEN);
        queue.ask((1, HERE), Weight::FULL, ticket, THEN);
    }
    let mut served = [0; 2];
    for _ in 0..110 {
        let Served { key, standing, .. } = queue.serve(NOW).unwrap();
        served[usize::from(key)] += 1;
        let cost = if key == 1 { 10 * MILLISECOND } else { MILLISECOND };
        queue.done((key, standing), Weight::FULL, cost, THEN);
    }
    assert!((98..=102).contains(&served[0]), "{served:?}");
}

// A crowd that asks one at a time, and is gone in between, is still a crowd.
#[test]
fn going_away_pays_no_debt_and_earns_no_credit() {
    let weight = |key| if key == 1 { Weight::LEAST } else { Weight::FULL };
    let mut queue = queue(1, 1000);
    for ticket in 0..500 {
        queue.ask((0, HERE), Weight::FULL, ticket, THEN);
    }
    let mut of_the_crowd = 0;
    for ticket in 0..160 {
        if queue.flows.get(&1).is_none_or(|flow| flow.waiting.is_empty()) {
            queue.ask((1, HERE), Weight::LEAST, ticket, THEN);
        }
        of_the_crowd += serve(&mut queue, 1, weight)[1];
    }
    assert!((9..=11).contains(&of_the_crowd), "one of 17: {of_the_crowd}");
    // Flow 2 was away all the time. It gets its half from now on, and no more.
    for ticket in 0..100 {
        queue.ask((2, HERE), Weight::FULL, ticket, THEN);
    }
    let served = serve(&mut queue, 100, weight);
    assert!((45..=51).contains(&served[2]), "{served:?}");
}

#[test]
fn when_it_is_full_the_newest_of_the_most_crowded_flow_goes() {
    let mut queue = queue(1, 20);
    for ticket in 0..20 {
        assert_eq!(queue.ask((1, HERE), Weight::LEAST, ticket, THEN).1, None);
    }
    assert_eq!(queue.ask((0, HERE), Weight::FULL, 100, THEN).1, Some(19));
    assert_eq!(
        queue.ask((1, HERE), Weight::LEAST, 20, THEN).1,
        Some(20),
        "whoever makes it too much goes himself"
    );
    let served = serve(&mut queue, 2, |_| Weight::FULL);
    assert_eq!(served[0], 1, "the honest one is served: {served:?}");
}

// Twenty of weight 1 are more than one of a sixteenth.
#[test]
fn nobody_is_safe_for_being_trusted() {
    let mut queue = queue(1, 20);
    for ticket in 0..20 {
        queue.ask((0, HERE), Weight::FULL, ticket, THEN);
    }
    assert_eq!(queue.ask((1, HERE), Weight::LEAST, 100, THEN).1, Some(19));
}

#[test]
fn the_expected_wait_is_of_the_share() {
    let mut queue = queue(1, 5000);
    let wait =
        |queue: &FairQueue<_, _>, key, weight| queue.expected_wait(key, weight, MILLISECOND, NOW);
    assert_eq!(wait(&queue, 0, Weight::FULL), Duration::ZERO);
    for ticket in 0..1000 {
        queue.ask((1, HERE), Weight::LEAST, ticket, THEN);
    }
    assert_eq!(wait(&queue, 1, Weight::LEAST), 1000 * MILLISECOND);
    assert!(wait(&queue, 0, Weight::FULL) <= 2 * MILLISECOND, "a fleet does not wait for a crowd");
    assert_eq!(wait(&queue, 2, Weight::LEAST), MILLISECOND);
}

// T36, D6. A node is in line for a moment only; the crowd that is there in all the others gets its part.
#[test]
fn a_crowd_does_not_fill_the_gaps_between_nodes() {
    let mut queue = queue(1, 5000);
    for ticket in 0..1000 {
        queue.ask((1, HERE), Weight::LEAST, ticket, THEN);
    }
    let mut served = [0; 2];
    for round in 0..160 {
        // One turn of a millisecond for a node, and nine in which there is none.
        let now = round * 10 * MILLISECOND;
        queue.ask((0, HERE), Weight::FULL, 0, now);
        for now in (0..10).map(|step| now + step * MILLISECOND) {
            let Some(Served { key, standing, .. }) = queue.serve(now) else { continue };
            served[usize::from(key)] += 1;
            let weight = if key == 0 { Weight::FULL } else { Weight::LEAST };
            queue.done((key, standing), weight, MILLISECOND, now + MILLISECOND);
        }
    }
    assert_eq!(served[0], 160, "every node is served in its own moment");
    assert!((90..=100).contains(&served[1]), "a sixteenth of all the time: {served:?}");
    // When the nodes are gone, the whole is for the crowd, without anybody's saying so.
    let now = 1600 * MILLISECOND;
    let then = queue.look_again_at(now).unwrap();
    assert!(queue.serve(now).is_none() && then <= now + Duration::from_millis(250));
    queue.serve(then).unwrap();
}

// Told before they begin, and rightly: of a thousand before it each takes sixteen turns' time.
#[test]
fn whoever_is_held_back_is_told_how_long() {
    let mut queue = queue(2, 5000);
    for ticket in 0..1000 {
        queue.ask((1, HERE), Weight::LEAST, ticket, THEN);
    }
    let wait =
        |queue: &FairQueue<u8, u32>, now| queue.expected_wait(1, Weight::LEAST, MILLISECOND, now);
    assert_eq!(wait(&queue, NOW), 500 * MILLISECOND);
    queue.ask((0, HERE), Weight::FULL, 0, NOW);
    assert_eq!(wait(&queue, NOW), 8000 * MILLISECOND);
}

#[derive(Debug, Clone)]
enum Step {
    Ask(u8, u8),
    Leave(usize),
    Serve,
    Done(u16),
    Pass(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..20_u8, 0..3_u8).prop_map(|(key, weight)| Step::Ask(key, weight)),
        1 => any::<usize>().prop_map(Step::Leave),
        3 => Just(Step::Serve),
        3 => (0..5000_u16).prop_map(Step::Done),
        2 => (0..500_u16).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 0..400)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    // Whatever comes: it works as long as there is work, within its bounds, and loses nobody.
    #[test]
    fn it_serves_whenever_it_can_and_keeps_its_bounds(steps in steps()) {
        let mut queue: FairQueue<u8, u64> = FairQueue::new(Bounds { at_once: 3, waiting: 30, in_debt: 5 });
        let mut waiting: BTreeMap<u64, (u8, u64)> = BTreeMap::new();
        let mut served: Vec<(u8, Standing)> = Vec::new();
        let (mut ticket, mut now) = (0, Duration::ZERO);
        for step in steps {
            match step {
                Step::Ask(key, weight) => {
                    ticket += 1;
                    let weight = [Weight::LEAST, Weight::UNKNOWN, Weight::FULL][usize::from(weight)];
                    let (number, put_out) = queue.ask((key, HERE), weight, ticket, now);
                    waiting.insert(ticket, (key, number));
                    if let Some(put_out) = put_out {
                        prop_assert!(waiting.remove(&put_out).is_some());
                        prop_assert_eq!(waiting.len(), 30, "nobody is put out while there is room");
                    }
                }
                Step::Leave(which) => {
                    let found = waiting.keys().nth(which % waiting.len().max(1)).copied();
                    if let Some((key, number)) = found.and_then(|found| waiting.remove(&found)) {
                        queue.leave((key, HERE), number);
                    }
                }
                Step::Serve => match queue.serve(now) {
                    Some(Served { key, standing, ticket, .. }) => {
                        prop_assert_eq!(waiting.remove(&ticket).map(|(key, _)| key), Some(key));
                        served.push((key, standing));
                        prop_assert!(served.len() <= 3);
                    }
                    None if waiting.is_empty() || served.len() == 3 => {}
                    None => {
                        let only_distrusted = queue.others.turns == 0;
                        prop_assert!(only_distrusted && queue.pacing.holds_back(now), "it idles");
                        // Whoever is held back is let go, by time or by an end.
                        let let_go_at = queue.look_again_at(now);
                        prop_assert!(let_go_at.is_none_or(|then| then > now));
                        prop_assert!(let_go_at.is_some() || !served.is_empty(), "it idles for ever");
                    }
                },
                Step::Done(cost) => if let Some(begun) = served.pop() {
                    let cost = Duration::from_micros(cost.into());
                    queue.done(begun, Weight::UNKNOWN, cost, now);
                },
                Step::Pass(time) => now += Duration::from_millis(time.into()),
            }
            prop_assert_eq!(queue.waiting(), waiting.len());
            let in_line = queue.distrusted.next.len() + queue.others.next.len();
            prop_assert_eq!(queue.crowding.parties(), in_line);
            prop_assert_eq!(queue.flows.len(), in_line + queue.debts.len());
            prop_assert!(queue.debts.len() <= 5);
            for flows in [&queue.distrusted, &queue.others] {
                let weights = flows.next.values().map(|key| queue.flows[key].weight);
                prop_assert_eq!(weights.map(Weight::parts).sum::<u64>(), flows.weight);
            }
        }
    }

    // Two flows that always wait get what their weights say, however their costs differ; a third
    // one that comes in between is served soon.
    #[test]
    fn shares_follow_weights_and_nobody_starves(
        costs in prop::collection::vec((1..2000_u64, 1..2000_u64), 300..400),
        is_light in any::<bool>(),
        comes_at in 50..250_usize,
    ) {
        let weight = |key| if key == 1 && is_light { Weight::LEAST } else { Weight::FULL };
        let mut queue = queue(1, 2000);
        for ticket in 0..500 {
            queue.ask((0, HERE), weight(0), ticket, THEN);
            queue.ask((1, HERE), weight(1), ticket, THEN);
        }
        let (mut used, mut late) = ([0_u64; 3], None);
        for (turn, (heavy, light)) in costs.into_iter().enumerate() {
            if turn == comes_at {
                queue.ask((2, HERE), Weight::FULL, 0, THEN);
                late = Some(0);
            }
            let Served { key, standing, .. } = queue.serve(NOW).unwrap();
            let cost = [heavy, light, 1][usize::from(key)];
            used[usize::from(key)] += cost;
            late = if key == 2 { None } else { late.map(|turns| turns + 1) };
            prop_assert!(late < Some(4), "the third one waits for {late:?} turns");
            queue.done((key, standing), weight(key), Duration::from_micros(cost), THEN);
        }
        let stretched = if is_light { used[1] * 16 } else { used[1] };
        // At most one turn of each apart.
        prop_assert!(stretched.abs_diff(used[0]) <= 2000 * 17, "{used:?}");
    }
}

// T55: whoever stands next door to a crowd, in a network of its own weight, is not behind it.
#[test]
fn sources_of_a_flow_take_turns() {
    let [crowd, node, other] = [1, 2, 3].map(|last| IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)));
    let mut queue = queue(1, 100);
    for ticket in 0..50 {
        queue.ask((1, crowd), Weight::LEAST, ticket, THEN);
    }
    queue.ask((1, node), Weight::LEAST, 100, THEN);
    let (number, _) = queue.ask((1, other), Weight::LEAST, 200, THEN);
    queue.ask((1, node), Weight::LEAST, 101, THEN);
    queue.leave((1, crowd), number);
    queue.leave((1, other), number);
    let mut served = Vec::new();
    while let Some(Served { key, source, standing, ticket }) = queue.serve(NOW) {
        served.push((source, ticket));
        queue.done((key, standing), Weight::LEAST, MILLISECOND, THEN);
    }
    let first: Vec<_> = served[..5].to_vec();
    assert_eq!(first, [(crowd, 0), (node, 100), (crowd, 1), (node, 101), (crowd, 2)]);
    assert_eq!((served.len(), queue.waiting()), (52, 0), "all but the one who left");
    // Who has the most loses the newest.
    for ticket in 0..99 {
        queue.ask((1, crowd), Weight::LEAST, ticket, THEN);
    }
    queue.ask((1, node), Weight::LEAST, 100, THEN);
    assert_eq!(queue.ask((1, node), Weight::LEAST, 101, THEN).1, Some(98));
}
