//! Counts what arrives, so that tests can say how often the cloud was asked.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use super::Service;
use crate::domain::AccountId;

/// The actions that are counted by name; all others of a service are one.
const ACTIONS: [&str; 9] = [
    "GetCallerIdentity",
    "AssumeRole",
    "DescribeInstances",
    "PutParameter",
    "GetParameter",
    "GetParameters",
    "GetParametersByPath",
    "AddTagsToResource",
    "DeleteParameter",
];

/// The action by its name, if it is one that is counted.
pub(super) fn known_action(action: &str) -> Option<&'static str> {
    ACTIONS.into_iter().find(|known| *known == action)
}

/// What arrived until now. A request is counted when it arrives, whatever becomes of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Calls {
    /// Requests for STS, by action.
    pub sts: BTreeMap<&'static str, u64>,
    /// Requests for EC2, by action.
    pub ec2: BTreeMap<&'static str, u64>,
    /// Requests for SSM, by action.
    pub ssm: BTreeMap<&'static str, u64>,
    /// Requests with a right signature, by the account that signed.
    pub by_account: BTreeMap<String, AccountCalls>,
    /// How many instances the answers of `DescribeInstances` had, all together.
    pub instances_described: u64,
    /// Requests for other services.
    pub other: u64,
}

/// Requests that one account signed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AccountCalls {
    /// For STS.
    pub sts: u64,
    /// For EC2.
    pub ec2: u64,
    /// For SSM.
    pub ssm: u64,
}

/// The counter.
#[derive(Default)]
pub(super) struct Counter(Mutex<Calls>);

impl Counter {
    pub(super) fn calls(&self) -> Calls {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn arrived(&self, service: Option<Service>, action: Option<&str>) {
        let action = action.and_then(known_action).unwrap_or("Other");
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = match service {
            Some(Service::Sts) => calls.sts.entry(action).or_default(),
            Some(Service::Ec2) => calls.ec2.entry(action).or_default(),
            Some(Service::Ssm) => calls.ssm.entry(action).or_default(),
            None => &mut calls.other,
        };
        *count += 1;
    }

    pub(super) fn signed_by(&self, service: Service, account: &AccountId) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let account = calls.by_account.entry(account.to_string()).or_default();
        *match service {
            Service::Sts => &mut account.sts,
            Service::Ec2 => &mut account.ec2,
            Service::Ssm => &mut account.ssm,
        } += 1;
    }

    pub(super) fn described(&self, instances: usize) {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.instances_described += u64::try_from(instances).unwrap_or(u64::MAX);
    }
}
