//! Where the SDK's own calls may go: to STS where the configuration says it is, and to this
//! machine's metadata services.
//!
//! The SDK's chain of credentials makes STS clients of its own, and they obey `AWS_ENDPOINT_URL`,
//! `AWS_ENDPOINT_URL_STS` and `endpoint_url` of profiles; nothing in its settings turns that off
//! (`ProviderConfig::client_config`). So it is turned off here, under them (T75).

use std::net::IpAddr;

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector,
    http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use http::Uri;
use http_body_util::Limited;

use crate::aws::{AwsHttp, EndpointKind, Endpoints, Service, host};
use crate::domain::Region;

/// The longest answer that is read: credentials have a few KiB.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The client for the SDK.
pub(super) fn client(http: &AwsHttp, endpoints: &Endpoints) -> SharedHttpClient {
    let (aws, endpoints) = (http.for_sdk(), endpoints.clone());
    // The machine's own services speak plain HTTP and are never behind a proxy.
    let plain = Connector::builder().proxy_config(ProxyConfig::disabled()).build_http();
    let machine = SharedHttpConnector::new(plain);
    http_client_fn(move |settings, components| {
        let (aws, machine) = (aws.http_connector(settings, components), machine.clone());
        SharedHttpConnector::new(Route { aws, machine, endpoints: endpoints.clone() })
    })
}

#[derive(Debug)]
struct Route {
    aws: SharedHttpConnector,
    machine: SharedHttpConnector,
    endpoints: Endpoints,
}

enum Destination {
    Sts(Region, String),
    Machine,
}

impl HttpConnector for Route {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let connector = match destination(request.method(), request.uri()) {
            Some(Destination::Sts(region, host)) => {
                let Some(uri) = self.endpoints.uri(Service::Sts, &region, &host) else {
                    return refused("this host has no address");
                };
                // The signature names AWS's host, so the header has to as well.
                request.headers_mut().insert("host", host);
                if request.uri_mut().set_endpoint(&uri.to_string()).is_err() {
                    return refused("this host has no address");
                }
                &self.aws
            }
            Some(Destination::Machine) => &self.machine,
            None => {
                return refused(
                    "credentials come from STS and this machine's metadata services alone: \
                     AWS_ENDPOINT_URL and other addresses of the environment are not followed",
                );
            }
        };
        let answer = connector.call(request);
        HttpConnectorFuture::new(async move {
            let bounded = |body| SdkBody::from_body_1_x(Limited::new(body, ANSWER_BYTES_MAX));
            Ok(answer.await?.map(bounded))
        })
    }
}

fn refused(why: &'static str) -> HttpConnectorFuture {
    HttpConnectorFuture::ready(Err(ConnectorError::user(why.into())))
}

fn destination(method: &str, uri: &str) -> Option<Destination> {
    let uri: Uri = uri.parse().ok()?;
    let name = uri.host()?;
    match uri.scheme_str()? {
        "https" if uri.port().is_none() => {
            let region: Region = name.split('.').nth(1)?.parse().ok()?;
            [EndpointKind::Regional, EndpointKind::Fips]
                .into_iter()
                .any(|kind| host(Service::Sts, &region, kind).as_deref() == Some(name))
                .then(|| Destination::Sts(region, name.to_owned()))
        }
        // STS is asked by POST and nothing else is: an STS that the environment puts on this
        // machine is not one of its metadata services.
        "http" if method != "POST" && is_of_this_machine(name) => Some(Destination::Machine),
        _ => None,
    }
}

/// Loopback, and the link-local addresses of the metadata services of EC2, ECS and EKS.
fn is_of_this_machine(name: &str) -> bool {
    match name.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.segments().starts_with(&[0xfd00, 0xec2])
        }
        Err(_) => name == "localhost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // T75: what an environment can make of the SDK's addresses.
    #[test]
    fn nothing_but_sts_and_the_machine_is_reached() {
        for (uri, is_sts) in [
            ("https://sts.eu-west-1.amazonaws.com/", true),
            ("https://sts-fips.us-west-2.amazonaws.com/", true),
            ("https://sts.cn-north-1.amazonaws.com.cn/", true),
            ("http://169.254.169.254/latest/", false),
            ("http://169.254.170.23/v1/credentials", false),
            ("http://[fd00:ec2::254]/latest/", false),
            ("http://127.0.0.1:1338/latest/", false),
            ("http://localhost:9911/", false),
        ] {
            let method = if is_sts { "POST" } else { "GET" };
            let found = destination(method, uri).unwrap_or_else(|| panic!("{uri}"));
            assert_eq!(matches!(found, Destination::Sts(..)), is_sts, "{uri}");
        }
        for uri in [
            "http://sts.eu-west-1.amazonaws.com/",
            "https://sts.eu-west-1.amazonaws.com:8443/",
            "https://sts.eu-west-1.amazonaws.com.evil.example/",
            "https://sts-fips.eu-west-1.amazonaws.com/",
            "https://sts.amazonaws.com/",
            "https://ec2.eu-west-1.amazonaws.com/",
            "https://evil.example/",
            "http://evil.example/",
            "http://10.0.0.1/",
            "http://127.0.0.1.evil.example/",
            "https://127.0.0.1/",
            "https://u:p@sts.eu-west-1.amazonaws.com.evil/",
        ] {
            assert!(destination("GET", uri).is_none(), "{uri}");
        }
        assert!(destination("POST", "http://127.0.0.1:1338/").is_none());
    }
}
