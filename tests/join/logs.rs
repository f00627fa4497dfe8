//! How loudly a refusal is told to those who run the server.

use std::sync::{Arc, Mutex};

use muster::ca::CertificateAuthority;
use muster::domain::Code;
use muster::join::Attempt;
use muster::store::MemoryStore;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::authority::{Fault, FaultyCa};
use crate::world::{ALLOWED, Node, POLICIES, STRANGER, World};

/// The levels of what the refusals of this thread wrote.
#[derive(Clone, Default)]
struct Levels(Arc<Mutex<Vec<Level>>>);

impl<S: Subscriber> Layer<S> for Levels {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "muster::join::refusal" {
            self.0.lock().unwrap().push(*event.metadata().level());
        }
    }
}

async fn levels(world: &World, attempt: &Attempt, code: Code) -> Vec<Level> {
    let levels = Levels::default();
    let subscriber = tracing_subscriber::registry().with(levels.clone());
    let listening = tracing::subscriber::set_default(subscriber);
    let refusal = world.joins.admit(attempt).await.unwrap_err();
    drop(listening);
    assert_eq!(refusal.recorded, code);
    levels.0.lock().unwrap().clone()
}

fn with_ca(fault: Fault) -> World {
    World::with(Arc::new(MemoryStore::new()), POLICIES, |_| {
        Arc::new(FaultyCa::new(fault)) as Arc<dyn CertificateAuthority>
    })
}

// Whoever wakes people by the logs must not be woken by strangers, and not sleep through a theft.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_as_loud_as_what_it_means() {
    let world = World::new();
    let (node, stranger) = (Node::new(ALLOWED, 1), Node::new(STRANGER, 1).attempt("web"));
    assert_eq!(levels(&world, &stranger, Code::PolicyNoMatch).await, [Level::INFO]);
    world.admitted(&node, "web").await;
    let thief = node.copied().attempt("web");
    assert_eq!(levels(&world, &thief, Code::EnrollmentConflict).await, [Level::WARN]);

    let turns = Arc::clone(&world.joins.turns);
    let source = stranger.source;
    let _held = [turns.turn(source).await.unwrap(), turns.turn(source).await.unwrap()];
    assert_eq!(levels(&world, &stranger, Code::Overloaded).await, [Level::DEBUG]);

    let honest = node.attempt("web");
    let outage = with_ca(Fault::Refuses);
    assert_eq!(levels(&outage, &honest, Code::CaUnavailable).await, [Level::WARN]);
    let rogue = with_ca(Fault::OtherKey);
    assert_eq!(levels(&rogue, &honest, Code::CertificateRejected).await, [Level::ERROR]);
}
