//! What the local commands show of the audit log.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;

use super::commands::{Done, Local};
use super::protocol::{LocalError, RecordFilter, Reply};
use crate::audit::{self, Class, Entry, Outcome, Query};
use crate::domain::{Code, CorrelationId, Timestamp};

/// The most records of one correlation id that are shown.
const RECORDS_SHOWN: usize = 100;
/// The most records that a tail begins with.
const TAIL_MAX: usize = 1000;
/// How often new records are looked for.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// Records of one read.
const BATCH: usize = 128;

/// What the words of a command ask for.
pub(super) fn query(since: Option<Timestamp>, filter: RecordFilter) -> Result<Query, LocalError> {
    Ok(Query {
        since,
        class: parsed(filter.class, "class", Class::parse)?,
        account: filter.account,
        outcome: parsed(filter.outcome, "outcome", Outcome::parse)?,
        correlation_id: None,
    })
}

impl Local {
    /// The newest records, and what comes after them until somebody has enough.
    pub(super) async fn audit_tail(
        &self,
        count: usize,
        follow: bool,
        query: Query,
        replies: &Sender<Reply>,
    ) -> Done {
        if count > TAIL_MAX {
            let message = format!("a tail begins with at most {TAIL_MAX} records");
            return Err(LocalError::new(Code::MalformedRequest, message));
        }
        let store = self.store.as_ref();
        let heads = store.heads().await?;
        for entry in audit::last(store, &heads, &query, count).await? {
            if send(replies, &entry).await.is_none() {
                return Ok(());
            }
        }
        if !follow {
            return Ok(());
        }
        let seen = heads.into_iter().map(|head| (head.log, head.sequence)).collect();
        self.follow(seen, &query, replies).await
    }

    async fn follow(
        &self,
        mut seen: HashMap<String, u64>,
        query: &Query,
        replies: &Sender<Reply>,
    ) -> Done {
        let store = self.store.as_ref();
        let mut stopped = self.stopped.clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
                _ = stopped.wait_for(|stopped| *stopped) => {
                    return Err(LocalError::new(Code::ServerNotRunning, "the server stops"));
                }
            }
            for head in store.heads().await?.into_iter().filter(audit::is_chain) {
                let after = seen.entry(head.log.clone()).or_default();
                while *after < head.sequence {
                    let entries = store.read_log(&head.log, *after, BATCH).await?;
                    let Some(last) = entries.last() else { break };
                    *after = last.sequence;
                    for entry in &entries {
                        let Ok(entry) = Entry::from_log(&head.log, entry) else { continue };
                        if query.wants(&entry.record) && send(replies, &entry).await.is_none() {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }

    pub(super) async fn audit_records(&self, query: Query, replies: &Sender<Reply>) -> Done {
        let (found, mut queue) = tokio::sync::mpsc::channel(64);
        let sending = async {
            while let Some(entry) = queue.recv().await {
                if send(replies, &entry).await.is_none() {
                    break;
                }
            }
            drop(queue);
        };
        let (read, ()) = tokio::join!(audit::read(self.store.as_ref(), &query, found), sending);
        Ok(read?)
    }

    pub(super) async fn explain(&self, id: &str) -> Result<Value, LocalError> {
        let id: CorrelationId = id
            .parse()
            .map_err(|error| LocalError::new(Code::NotFound, format!("`{id}`: {error}")))?;
        let query = Query { correlation_id: Some(id.clone()), ..Query::default() };
        let entries = audit::first(self.store.as_ref(), &query, RECORDS_SHOWN).await?;
        let recalled = self.audit.recall(&id);
        let record = entries.first().map(|entry| entry.record.clone()).or(recalled.clone());
        let record = record.ok_or_else(|| {
            LocalError::new(Code::NotFound, "no record of this id; noise is kept in memory only")
        })?;
        let explanation = self.explainer.explain(&record).await?;
        let records: Vec<Value> = if entries.is_empty() {
            recalled.iter().map(|record| json!(record)).collect()
        } else {
            entries.iter().map(|entry| json!(entry)).collect()
        };
        Ok(json!({
            "correlation_id": id,
            "records": records,
            "code": record.code,
            "what_to_do": record.code.map(Code::remedy),
            "explanation": explanation,
        }))
    }
}

/// Nothing once nobody listens any more.
async fn send(replies: &Sender<Reply>, entry: &Entry) -> Option<()> {
    let value = serde_json::to_value(entry).unwrap_or_default();
    replies.send(Reply::Item(value)).await.ok()
}

fn parsed<T>(
    text: Option<String>,
    name: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, LocalError> {
    let Some(text) = text else { return Ok(None) };
    let unknown =
        || LocalError::new(Code::MalformedRequest, format!("`{text}` is no {name} of a record"));
    parse(&text).map(Some).ok_or_else(unknown)
}
