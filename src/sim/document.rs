//! What the simulator says of an instance, in the words and the layout of AWS.

use std::net::Ipv4Addr;

use super::InstanceRecord;
use crate::domain::{AccountId, InstanceId, Lifetime, Region, Timestamp};

/// AWS signs three to four seconds after the start.
const SIGNING_DELAY: Lifetime = Lifetime::from_seconds(3);

/// One run of a simulated instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedInstance {
    /// The account that runs it.
    pub account_id: AccountId,
    /// Where it runs; its zone is the first one there.
    pub region: Region,
    /// Its id.
    pub instance_id: InstanceId,
    /// The image that it runs.
    pub image_id: String,
    /// Its type.
    pub instance_type: String,
    /// Its private address.
    pub private_ip: Ipv4Addr,
    /// When this run began.
    pub pending_time: Timestamp,
    /// How many network hops an answer of its metadata service may take; none ever arrives with 0.
    pub hop_limit: u32,
    /// Whose document its metadata service shows; its own unless given. For playing a thief.
    pub document_of: Option<InstanceId>,
    /// Whether its metadata service has credentials of the identity role.
    pub has_identity_role: bool,
    /// What EC2 says of it beyond its document.
    pub record: InstanceRecord,
}

impl SimulatedInstance {
    /// The availability zone.
    pub fn availability_zone(&self) -> String {
        format!("{}a", self.region)
    }

    /// When the document was signed.
    pub(super) fn signing_time(&self) -> Timestamp {
        self.pending_time.plus(SIGNING_DELAY)
    }

    /// The document with AWS's order of members and white space, which are part of what is signed.
    pub(super) fn json(&self) -> String {
        let Self { account_id, region, instance_id, image_id, instance_type, .. } = self;
        let Self { private_ip, pending_time, .. } = self;
        let zone = self.availability_zone();
        format!(
            r#"{{
  "accountId" : "{account_id}",
  "architecture" : "x86_64",
  "availabilityZone" : "{zone}",
  "billingProducts" : null,
  "devpayProductCodes" : null,
  "marketplaceProductCodes" : null,
  "imageId" : "{image_id}",
  "instanceId" : "{instance_id}",
  "instanceType" : "{instance_type}",
  "kernelId" : null,
  "pendingTime" : "{pending_time}",
  "privateIp" : "{private_ip}",
  "ramdiskId" : null,
  "region" : "{region}",
  "version" : "2017-09-30"
}}"#
        )
    }
}
