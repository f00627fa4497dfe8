//! The steps of a publication: make a token, write it, read it back, and only then count it as
//! published.
//!
//! A step may end anywhere, with the process or without. What it leaves is on record, and the next
//! step begins by looking.

use std::collections::BTreeMap;

use aws_lc_rs::rand;
use tracing::warn;
use zeroize::Zeroizing;

use super::failure::Failure;
use super::records::record;
use super::spec::{Spec, access};
use super::target::Target;
use crate::audit::Record;
use crate::aws::{Parameter, PutParameter};
use crate::domain::{Code, Timestamp, Token, TokenKey, TokenName, TokenOrigin, TokenSecret};
use crate::registry::{
    CreatingToken, OutgoingToken, Publication, PublicationChange, PublicationOnRecord,
    PublishedToken,
};
use crate::server::tokens::faults::fits;

impl Target {
    /// Publishes a new token.
    pub(super) async fn rotate(
        &self,
        spec: &Spec,
        known: Option<&PublicationOnRecord>,
    ) -> Result<(), Failure> {
        // First what nodes need beside it: whoever sees the token sees them too.
        self.write_beside(spec, known.map(|known| &known.publication)).await?;
        let now = self.now()?;
        let secret = self.new_secret()?;
        let token = self.token(spec, &secret, now);
        self.check_fits(&token, now)?;
        let creating = CreatingToken {
            token: token.name.clone(),
            key: token.public_key,
            expires_at: now.plus(spec.tokens.life),
        };
        let (name, target) = self.key.clone();
        let (policy, place) = (spec.wanted.policy.clone(), spec.wanted.place.clone());
        let current = known.and_then(|known| known.publication.current.clone());
        let previous = known.and_then(|known| known.publication.previous.clone());
        let next = Publication {
            name,
            target,
            policy,
            place,
            creating: Some(creating),
            current,
            previous,
        };
        let record = record("publication-create", &next, Some(&token.name), now)
            .with("expires_at", token.expires_at.map(|end| end.to_string()))
            .with("max_uses", token.max_uses);
        let change = PublicationChange {
            next: Some(next),
            add: Some(token),
            ..PublicationChange::default()
        };
        self.change(known, change, &record).await?;

        let text = secret.to_text();
        let put = PutParameter {
            name: &spec.names.token,
            value: &text,
            is_secure: true,
            kms_key: spec.kms_key.as_deref(),
            tags: &spec.tags,
            description: "join token of muster",
        };
        self.shared.ssm.put(&access(spec.place(), spec.names.all()), &put).await?;
        let known = self.on_record().await?;
        let known = known.ok_or_else(|| overtaken("it is not on record any more"))?;
        match self.read_back(spec, &secret.public_key(), secret.name()).await? {
            Some(parameter) => self.confirm(spec, &known, &parameter, "publication-publish").await,
            None => Err(Failure::new(
                Code::SsmUnavailable,
                "SSM: what was read back is not the token that was written",
            )),
        }
    }

    /// Looks whether a token that was made is published, and takes it or removes it.
    pub(super) async fn recover(
        &self,
        spec: &Spec,
        known: &PublicationOnRecord,
    ) -> Result<(), Failure> {
        let Some(creating) = &known.publication.creating else { return Ok(()) };
        let now = self.now()?;
        let on_record = self.shared.joins.registry.find_token(&creating.token).await?;
        let is_good = |token: &Token| !token.has_expired(now) && self.is_wanted(token);
        let is_alive = on_record.as_ref().is_some_and(is_good);
        if let Some(parameter) = self.read_back(spec, &creating.key, &creating.token).await?
            && is_alive
        {
            return self.confirm(spec, known, &parameter, "publication-adopt").await;
        }
        let next = Publication { creating: None, ..known.publication.clone() };
        let record = record("publication-leftover", &next, Some(&creating.token), now)
            .with("what", "it was made and not published; it is revoked");
        let revoke = vec![creating.token.clone()];
        let change = PublicationChange { next: Some(next), revoke, ..PublicationChange::default() };
        self.change(Some(known), change, &record).await
    }

    /// Revokes the token before.
    pub(super) async fn revoke_previous(&self, known: &PublicationOnRecord) -> Result<(), Failure> {
        let now = self.now()?;
        let previous = known.publication.previous.as_ref().map(|previous| previous.token.clone());
        let next = Publication { previous: None, ..known.publication.clone() };
        let record = record("publication-revoke", &next, previous.as_ref(), now);
        let revoke = previous.into_iter().collect();
        let change = PublicationChange { next: Some(next), revoke, ..PublicationChange::default() };
        self.change(Some(known), change, &record).await
    }

    /// Ends a publication that nobody wants there any more: its tokens in any case, and the parameter
    /// if it still holds one of them.
    pub(super) async fn retire(&self, known: &PublicationOnRecord) -> Result<(), Failure> {
        let publication = &known.publication;
        let parameter = self.delete_own(publication).await;
        let revoke = publication.tokens();
        let names: Vec<String> = revoke.iter().map(ToString::to_string).collect();
        let record = record("publication-retire", publication, None, self.now()?)
            .with("tokens", names)
            .with("parameter_is", parameter);
        let change = PublicationChange { revoke, ..PublicationChange::default() };
        self.change(Some(known), change, &record).await
    }

    /// What became of the parameter, for the record.
    async fn delete_own(&self, publication: &Publication) -> String {
        let name = publication.place.parameter.as_str();
        let access = access(&publication.place, vec![name.to_owned()]);
        let found = match self.shared.ssm.get(&access, &[name], true).await {
            Ok(found) => found,
            Err(error) => return format!("left: SSM did not answer ({error})"),
        };
        let Some(parameter) = found.into_iter().next() else { return "gone already".to_owned() };
        let holds = TokenSecret::parse(&parameter.value).ok();
        if !holds.is_some_and(|secret| publication.tokens().contains(secret.name())) {
            return "left: it holds something else".to_owned();
        }
        match self.shared.ssm.delete(&access, name).await {
            Ok(_) => "deleted".to_owned(),
            Err(error) => format!("left: SSM did not answer ({error})"),
        }
    }

    /// A token that was read back is the published one; the one before has its overlap.
    async fn confirm(
        &self,
        spec: &Spec,
        known: &PublicationOnRecord,
        parameter: &Parameter,
        kind: &str,
    ) -> Result<(), Failure> {
        let now = self.now()?;
        let publication = &known.publication;
        let Some(creating) = publication.creating.clone() else {
            return Err(overtaken("no token of it is in the making"));
        };
        let CreatingToken { token, key, expires_at } = creating;
        let previous = publication.current.as_ref().map(|current| OutgoingToken {
            token: current.token.clone(),
            ends_at: current.expires_at.min(now.plus(spec.overlap)),
        });
        let current = PublishedToken {
            token: token.clone(),
            key,
            expires_at,
            published_at: now,
            arn: parameter.arn.clone(),
            version: parameter.version,
        };
        let next = Publication {
            creating: None,
            current: Some(current),
            previous: previous.clone(),
            ..publication.clone()
        };
        let record = record(kind, &next, Some(&token), now)
            .with("arn", parameter.arn.as_str())
            .with("version", parameter.version)
            .with("previous", previous.as_ref().map(|previous| previous.token.to_string()))
            .with("previous_ends_at", previous.as_ref().map(|out| out.ends_at.to_string()));
        let revoke = publication.previous.iter().map(|out| out.token.clone()).collect();
        let change = PublicationChange { next: Some(next), shorten: previous, revoke, add: None };
        self.change(Some(known), change, &record).await
    }

    /// The parameter, if it holds the token of this name and key.
    pub(super) async fn read_back(
        &self,
        spec: &Spec,
        key: &TokenKey,
        name: &TokenName,
    ) -> Result<Option<Parameter>, Failure> {
        let access = access(spec.place(), spec.names.all());
        let found = self.shared.ssm.get(&access, &[&spec.names.token], true).await?;
        Ok(found.into_iter().next().filter(|parameter| {
            TokenSecret::parse(&parameter.value)
                .is_ok_and(|secret| secret.name() == name && secret.public_key() == *key)
        }))
    }

    /// Writes what stands beside the token, where it differs from what is there. Where a token is
    /// published already it should not differ: by these parameters nodes choose whom to trust.
    pub(super) async fn write_beside(
        &self,
        spec: &Spec,
        known: Option<&Publication>,
    ) -> Result<(), Failure> {
        let anchors = self.shared.joins.authority.trust_anchors().await;
        let anchors = anchors.map_err(|error| {
            Failure::new(Code::CaUnavailable, format!("the node CA's bundle: {error}"))
        })?;
        let mut wanted = BTreeMap::from([(spec.names.pin.as_str(), self.shared.pins.clone())]);
        if let Some(name) = &spec.names.server {
            wanted.insert(name, self.shared.join_address.clone().ok_or_else(no_address)?);
        }
        if let Some(name) = &spec.names.policy {
            wanted.insert(name, spec.policy().to_owned());
        }
        if let Some(name) = &spec.names.bundle {
            wanted.insert(name, anchors.to_pem());
        }
        let access = access(spec.place(), spec.names.all());
        let names: Vec<&str> = wanted.keys().copied().collect();
        let found = self.shared.ssm.get(&access, &names, false).await?;
        wanted.retain(|name, value| {
            let there = found.iter().find(|parameter| parameter.name == **name);
            there.is_none_or(|parameter| *parameter.value != *value)
        });
        if let Some(published) = known.filter(|known| known.current.is_some())
            && !wanted.is_empty()
        {
            let names: Vec<&str> = wanted.keys().copied().collect();
            warn!(publication = %self.key.0, target = self.key.1, parameters = ?names,
                "what stands beside the token is not what was written, and is written anew");
            let record = record("publication-mended", published, None, self.now()?);
            self.shared.joins.audit.write(&record.with("parameters", names.join(" "))).await?;
        }
        let no_tags = BTreeMap::new();
        for (name, value) in wanted {
            let put = PutParameter {
                name,
                value: &value,
                is_secure: false,
                kms_key: None,
                tags: &no_tags,
                description: "for nodes of muster",
            };
            self.shared.ssm.put(&access, &put).await?;
        }
        Ok(())
    }

    /// `<publication>-<8 digits>`, and a random seed.
    fn new_secret(&self) -> Result<TokenSecret, Failure> {
        let no_luck = || Failure::new(Code::Internal, "no token could be made");
        let mut seed = Zeroizing::new([0; 32]);
        let mut digits = [0; 4];
        rand::fill(seed.as_mut_slice()).map_err(|_| no_luck())?;
        rand::fill(&mut digits).map_err(|_| no_luck())?;
        let name = format!("{}-{}", self.key.0, hex::encode(digits));
        let name: TokenName = name.parse().map_err(|_| no_luck())?;
        TokenSecret::from_seed(name, seed).map_err(|_| no_luck())
    }

    fn token(&self, spec: &Spec, secret: &TokenSecret, now: Timestamp) -> Token {
        let (publication, target) = self.key.clone();
        Token {
            name: secret.name().clone(),
            public_key: secret.public_key(),
            policy: spec.wanted.policy.clone(),
            node: None,
            cidrs: spec.tokens.cidrs.clone(),
            labels: spec.tokens.labels.clone(),
            description: None,
            created_at: now,
            expires_at: Some(now.plus(spec.tokens.life)),
            max_uses: spec.tokens.max_uses,
            origin: TokenOrigin::Publication { publication, target },
        }
    }

    /// A token that its policy would never admit is a secret without a use.
    fn check_fits(&self, token: &Token, now: Timestamp) -> Result<(), Failure> {
        let policies = self.shared.joins.policies();
        let policy = policies.policy(token.policy.as_str()).filter(|policy| policy.uses_tokens());
        if policy.is_some_and(|policy| fits(token, policy, now)) {
            return Ok(());
        }
        let message = format!("no rule of policy `{}` admits who comes with it", token.policy);
        Err(Failure::new(Code::TokenTooWide, message))
    }

    async fn change(
        &self,
        known: Option<&PublicationOnRecord>,
        change: PublicationChange,
        record: &Record,
    ) -> Result<(), Failure> {
        let joins = &self.shared.joins;
        let audit = vec![joins.audit.append(record)?];
        let key = (&self.key.0, self.key.1.as_str());
        joins.registry.change_publication(&self.lease, key, known, change, audit).await?;
        Ok(())
    }
}

fn overtaken(message: &str) -> Failure {
    Failure::new(Code::PublisherNotReady, message)
}

fn no_address() -> Failure {
    Failure::new(
        Code::PublisherNotReady,
        "publisher.join_address is not in the server's configuration: write there where nodes reach \
         the join listener, HOST:PORT, and start the server anew",
    )
}
