//! The node's answers to a challenge, one file for each method. What is sent is the node's own
//! decision: nothing in a challenge asks for another method (B2, T58).

mod ec2;
mod token;

pub(super) use ec2::{Ec2Attester, IdentityRole};
pub(super) use token::TokenAttester;
