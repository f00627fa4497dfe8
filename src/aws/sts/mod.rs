//! Asking STS who signed a request.
//!
//! The node never sends HTTP. It sends the few values of one fixed request that differ from node to
//! node; the request is rebuilt from them with the server's own key binding among the signed
//! headers, so there is nothing to smuggle (T1, T47).

mod access_key;
mod answer;
mod request;

use std::sync::Arc;
use std::time::Duration;

use http::Request;

pub use access_key::account_of_access_key;
pub use answer::{CallerIdentity, read_caller_identity};
pub use request::{InvalidSignedRequest, SignedRequest, SigningFailed, TemporaryCredentials};

use super::{AnswerLimits, AwsHttp, CallFailed, CallStatistics, Endpoints, Failure, Service};
use crate::clock::Clock;
use crate::domain::{KeyBinding, Region, Timestamp};

/// An honest answer has some 400 bytes and comes within a second.
const LIMITS: AnswerLimits = AnswerLimits { time: Duration::from_secs(5), bytes: 64 * 1024 };

/// What STS says of a signed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The credentials of this identity signed it, with this very key binding.
    Signed(CallerIdentity),
    /// The signature is not of these credentials over this request; STS's code.
    Rejected(String),
    /// The credentials have ended.
    Expired,
    /// STS refused, and not in words that say anything of the signature; its code.
    Unclear(String),
}

/// The client of STS's `GetCallerIdentity`.
#[derive(Debug, Clone)]
pub struct Sts {
    http: AwsHttp,
    endpoints: Endpoints,
    clock: Clock,
    statistics: Arc<CallStatistics>,
}

impl Sts {
    /// A client that asks at these endpoints.
    pub fn new(
        http: AwsHttp,
        endpoints: Endpoints,
        clock: Clock,
        statistics: Arc<CallStatistics>,
    ) -> Self {
        Self { http, endpoints, clock, statistics }
    }

    /// Where STS is asked.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// What time it is at STS in this region, as far as its answer to nothing in particular says.
    pub async fn time(&self, region: &Region) -> Result<Option<Timestamp>, CallFailed> {
        let host = self.endpoints.host(Service::Sts, region);
        let uri = host.and_then(|host| self.endpoints.uri(Service::Sts, region, &host));
        let request = uri.and_then(|uri| Request::get(uri).body(Vec::new()).ok());
        let request = request.ok_or_else(|| {
            CallFailed::new(Service::Sts, Failure::Unavailable, "no endpoint in this region")
        })?;
        let sent = self.http.send(request, LIMITS).await;
        let answer = sent.map_err(|error| CallFailed::no_answer(Service::Sts, &error))?;
        Ok(answer.date)
    }

    /// Asks who signed the request, with `binding` in the place that only the server fills.
    pub async fn who_signed(
        &self,
        signed: &SignedRequest,
        binding: &KeyBinding,
    ) -> Result<Verdict, CallFailed> {
        let result = self.ask(signed, binding).await;
        self.statistics.sts.count(&result, self.clock.now());
        result
    }

    async fn ask(
        &self,
        signed: &SignedRequest,
        binding: &KeyBinding,
    ) -> Result<Verdict, CallFailed> {
        let uri = self.endpoints.uri(Service::Sts, signed.region(), signed.host());
        let request = uri.and_then(|uri| signed.rebuild(&uri, binding)).ok_or_else(|| {
            CallFailed::new(Service::Sts, Failure::Unavailable, "the request cannot be made")
        })?;
        let sent = self.http.send(request, LIMITS).await;
        let answer = sent.map_err(|error| CallFailed::no_answer(Service::Sts, &error))?;
        self.statistics.compare(self.clock.now(), answer.date);
        read_caller_identity(&answer)
    }
}
