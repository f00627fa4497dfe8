//! A server without its listeners, taken apart into the steps of a join, for nodes that come with a
//! document alone.

use std::sync::Arc;

use muster::ca::Authority;
use muster::domain::{KeyBinding, Purpose, Serial, TrustDomain};
use muster::join::Attempt;
use muster::methods::{self, Claims, Facts, FactsNeeded, JoinMethod, Presented, Remembered};
use muster::policy::{Approval, DEFAULT_SLOT, OrderRequest, PolicySet};
use muster::registry::{Asking, Recorded, Registry};
use muster::store::MemoryStore;

use crate::world::{certificates_of, simulator, sources, start_of_story};

/// What verifies, decides and signs.
pub(crate) struct Server {
    method: Arc<dyn JoinMethod>,
    policies: Arc<PolicySet>,
    trust_domain: TrustDomain,
    pub(crate) node_ca: Arc<Authority>,
}

/// What a decision is made on, beside the facts.
pub(crate) struct Verified {
    claims: Claims,
    request: OrderRequest,
}

impl Server {
    pub(crate) fn new(policies: Arc<PolicySet>) -> Self {
        let clock = muster::clock::Clock::fixed(start_of_story());
        let trust_domain: TrustDomain = "prod.example.org".parse().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let node_ca =
            Authority::node_ca(directory.path(), &trust_domain, None, clock.now()).unwrap();
        let methods = methods::build(&sources(certificates_of(simulator()), &clock));
        let method = methods.into_iter().find(|one| one.declaration().name == "ec2").unwrap();
        Self { method, policies, trust_domain, node_ca: Arc::new(node_ca) }
    }

    /// Step 1.
    pub(crate) fn verify(&self, attempt: &Attempt) -> Verified {
        let binding = binding(attempt);
        let remembered = Remembered::default();
        let claims = self.method.verify(&presented(attempt, &binding, &remembered)).unwrap();
        let request = OrderRequest {
            serial: Serial::from_random([7; 16]),
            public_key: attempt.start.public_key.clone(),
            trust_domain: self.trust_domain.clone(),
            issuer: self.node_ca.key(),
            slot: DEFAULT_SLOT.to_owned(),
            age_waived: false,
            reserved_names: vec!["muster.internal.example".to_owned()],
        };
        Verified { claims, request }
    }

    /// Step 3, which asks nobody: there is no proof. It finds the same for every node.
    pub(crate) async fn gather(&self, attempt: &Attempt) -> Facts {
        let (binding, remembered) = (binding(attempt), Remembered::default());
        let (claims, needed) = (self.verify(attempt).claims, FactsNeeded::default());
        let presented = presented(attempt, &binding, &remembered);
        methods::gather(self.method.as_ref(), &claims, &presented, &needed).await.unwrap()
    }

    /// Steps 2 and 4.
    pub(crate) fn decide(&self, verified: Verified, facts: &Facts) -> Approval {
        let Verified { claims, request } = verified;
        let now = start_of_story();
        let candidates = self.policies.candidates("web", claims, now).unwrap();
        candidates.decide(facts, request, now).unwrap()
    }

    /// Step 5, without its audit record.
    pub(crate) async fn record(&self, attempt: &Attempt) -> Recorded {
        let facts = self.gather(attempt).await;
        let approval = self.decide(self.verify(attempt), &facts);
        let registry = Registry::new(Arc::new(MemoryStore::new()));
        let key = attempt.start.public_key.digest();
        let policy = "web".parse().unwrap();
        let view =
            registry.view(approval.subject(), DEFAULT_SLOT, key, &policy, None).await.unwrap();
        let asking = Asking::Join { relies_on_grant: false };
        let now = start_of_story();
        registry.record(&approval, asking, view, "", now, |_| Ok(Vec::new())).await.unwrap()
    }
}

/// What the node has signed with its key, beside the evidence.
pub(crate) fn binding(attempt: &Attempt) -> KeyBinding {
    let (start, purpose) = (&attempt.start, Purpose::Join);
    let (channel, nonce) = (&attempt.channel, &attempt.nonce);
    KeyBinding::new(purpose, channel, nonce, &start.method, &start.policy, &start.public_key)
}

fn presented<'a>(
    attempt: &'a Attempt,
    binding: &'a KeyBinding,
    remembered: &'a Remembered,
) -> Presented<'a> {
    Presented {
        evidence: &attempt.evidence,
        binding,
        key: attempt.start.public_key.digest(),
        remembered,
        source: Some(attempt.source),
        now: start_of_story(),
    }
}
