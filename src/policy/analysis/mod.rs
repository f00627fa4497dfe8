//! What policies mean, decided exactly and without a server: who may join, and what a change newly
//! admits. The decision is not here; it stands in `judge`, `truth` and `set`, and never looks here.
//!
//! A rule asks for one set of values of each thing, and all must fit. So the values of each thing
//! fall into few classes that no rule of the policies at hand tells apart, and to try one value of
//! each class is to try them all. Whether a class gets past a condition is asked of the decision
//! itself, so the two cannot drift apart. What is proven here is only that no class is forgotten
//! (`samples`) and that no combination is (`search`).
//!
//! Everything that can be unknown has a class of its own for that: a claim that the evidence does not
//! make, a fact that nobody read. A hint admits as little as no claim, and needs no class.
//! Things are taken one by one: that AWS never makes some combinations, such as a zone of another
//! region, is not known here. Only partition, account and region are taken together.

mod access;
mod diff;
mod floors;
mod population;
mod replay;
mod samples;
mod search;
mod space;
mod strings;
mod terms;
mod unnamed;
mod witness;

pub use access::{Access, AccessQuery, Accesses, AdmittingRule, Refusal, access, refusals};
pub use diff::{Change, ChangeKind, Comparison, Proof, Spot, compare};
pub use population::Population;
pub use replay::replay;
pub use space::{Ground, Horizon};
pub use witness::Witness;
