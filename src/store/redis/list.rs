//! Reads a principal's sessions for the operations that show them, a page at a time.
//!
//! A page costs what it returns, however deep it lies: indexes are sorted, and a page begins behind the
//! last session of the one before. An index may name sessions that are gone; they are passed over.

use super::RedisStore;
use super::keys::{id_text, parse_id};
use super::link::{Link, StoreOp};
use crate::model::{End, EndReason, PrincipalId, SessionId, TenantId};
use crate::store::{Listed, Page, StoreError, Which, record};
use crate::time::Timestamp;

/// Records that one command reads at most.
const BATCH: usize = 500;

/// The two places where sessions are filed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IndexKind {
    /// While they live, and until their record lapses.
    Sessions,
    /// Once they were ended.
    Ended,
}

impl RedisStore {
    pub(super) async fn list_page(
        &self,
        tenant: &TenantId,
        principal: &PrincipalId,
        page: Page,
        now: Timestamp,
    ) -> Result<Vec<Listed>, StoreError> {
        let link = self.linked(StoreOp::List)?;
        let sessions = self.keys.index(tenant, principal);
        let mut listed = self.collect(&link, IndexKind::Sessions, &sessions, page, now).await?;
        if page.which == Which::Ended {
            let ended = self.keys.ended_index(tenant, principal);
            listed.extend(self.collect(&link, IndexKind::Ended, &ended, page, now).await?);
            listed.sort_unstable_by_key(|listed| std::cmp::Reverse(listed.session.id));
            listed.truncate(page.limit);
        }
        Ok(listed)
    }

    async fn collect(
        &self,
        link: &Link,
        place: IndexKind,
        index: &str,
        page: Page,
        now: Timestamp,
    ) -> Result<Vec<Listed>, StoreError> {
        let (mut listed, mut after) = (Vec::new(), page.after);
        while listed.len() < page.limit {
            let wanted = (page.limit - listed.len()).min(BATCH);
            let ids = self.ids(link, index, after, wanted).await?;
            after = ids.last().copied();
            let records = self.records(link, place, &ids).await?;
            for (id, bytes) in ids.iter().zip(records) {
                let Some(bytes) = bytes else { continue };
                let found = self.listed(place, *id, &bytes, now)?;
                listed.extend(found.filter(|found| found.ended.is_some() == (page.which == Which::Ended)));
            }
            if ids.len() < wanted {
                break;
            }
        }
        Ok(listed)
    }

    fn listed(
        &self,
        place: IndexKind,
        id: SessionId,
        bytes: &[u8],
        now: Timestamp,
    ) -> Result<Option<Listed>, StoreError> {
        if place == IndexKind::Ended {
            let (end, record) = record::decode_end(bytes)?;
            return Ok(Some(Listed { session: record::decode(id, record)?, ended: Some(end) }));
        }
        let session = record::decode(id, bytes)?;
        let ended = session.is_expired(now).then_some(End { reason: EndReason::Expired, at: session.expires_at });
        // What this replica refuses has ended, also while Redis could not be told.
        Ok((!self.revocations.is_revoked(&id)).then_some(Listed { session, ended }))
    }

    async fn ids(
        &self,
        link: &Link,
        index: &str,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionId>, StoreError> {
        let mut command = redis::cmd("ZREVRANGEBYLEX");
        let from = after.map_or_else(|| "+".to_owned(), |id| format!("({}", id_text(id)));
        command.arg(index).arg(from).arg("-").arg("LIMIT").arg(0).arg(limit);
        let mut connection = link.write.connection();
        let sending = async move { command.query_async::<Vec<String>>(&mut connection).await };
        let ids = self.sender.send(StoreOp::List, link, &link.write, sending).await?;
        Ok(ids.iter().filter_map(|id| parse_id(id)).collect())
    }

    async fn records(
        &self,
        link: &Link,
        place: IndexKind,
        ids: &[SessionId],
    ) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("MGET");
        for id in ids {
            command.arg(match place {
                IndexKind::Sessions => self.keys.session(*id),
                IndexKind::Ended => self.keys.ended(*id),
            });
        }
        let mut connection = link.write.connection();
        let sending = async move { command.query_async::<Vec<Option<Vec<u8>>>>(&mut connection).await };
        self.sender.send(StoreOp::List, link, &link.write, sending).await
    }
}
