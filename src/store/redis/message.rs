//! What travels on the revocation channel.
//!
//! `1 <sequence> <nonce> <sent ms> <expiry ms> <id>,<id>…`, all ids of one shard. A replica that cannot
//! read a message must assume that it ends any session: see `subscriber`. Sequence 0 is a message that
//! the store could not record, published so that replicas refuse at once all the same.

use super::keys::{id_text, parse_id};
use crate::model::{SessionId, Shard};
use crate::time::Timestamp;

/// A received revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// Its place among the revocations of its control key; `None` outside the sequence.
    pub(super) sequence: Option<u64>,
    /// Names the script run that published it.
    pub(super) nonce: String,
    /// The publisher's wall clock.
    pub(super) sent_at: Timestamp,
    /// Where the sessions were filed.
    pub(super) shard: Shard,
    /// When their credentials have ended by themselves.
    pub(super) expires_at: Timestamp,
    /// What was revoked: at least one session.
    pub(super) ids: Vec<SessionId>,
}

impl Message {
    /// Returns the message in `text`, or `None` if this build cannot read it.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut words = text.split(' ');
        if words.next()? != "1" {
            return None;
        }
        let sequence: u64 = words.next()?.parse().ok()?;
        let nonce = words.next()?.to_owned();
        let sent_at = Timestamp(words.next()?.parse().ok()?);
        let expires_at = Timestamp(words.next()?.parse().ok()?);
        let ids = words.next()?.split(',').map(parse_id).collect::<Option<Vec<_>>>()?;
        let shard = ids.first()?.shard();
        if words.next().is_some() || ids.iter().any(|id| id.shard() != shard) {
            return None;
        }
        Some(Self { sequence: (sequence > 0).then_some(sequence), nonce, sent_at, shard, expires_at, ids })
    }

    /// Returns the text of a message outside the sequence.
    pub(super) fn unrecorded(nonce: &str, head: &str, ids: &[SessionId]) -> String {
        let ids: Vec<String> = ids.iter().map(|id| id_text(*id)).collect();
        format!("1 0 {nonce} {head} {}", ids.join(","))
    }

    /// Returns the part between nonce and ids, which scripts take as one argument.
    pub(super) fn head(sent_at: Timestamp, expires_at: Timestamp) -> String {
        format!("{} {}", sent_at.0, expires_at.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(shard: u64, seed: u8) -> SessionId {
        SessionId::new(Timestamp(5), Shard::of(shard), &[seed; 10])
    }

    #[test]
    fn a_message_reads_back() {
        let ids = vec![id(63, 1), id(63, 2)];
        let head = Message::head(Timestamp(5), Timestamp(9));
        let text = Message::unrecorded("n-1", &head, &ids);
        let message = Message::parse(text.as_bytes()).unwrap();
        assert_eq!(message.sequence, None);
        assert_eq!((message.nonce.as_str(), message.sent_at, message.expires_at), ("n-1", Timestamp(5), Timestamp(9)));
        assert_eq!((message.shard, message.ids), (Shard::of(63), ids));
        let recorded = text.replacen("1 0", "1 7", 1);
        assert_eq!(Message::parse(recorded.as_bytes()).unwrap().sequence, Some(7));
    }

    #[test]
    fn anything_else_is_not_understood() {
        let (one, other) = (id_text(id(3, 1)), id_text(id(4, 1)));
        let good = format!("1 7 n 5 9 {one}");
        assert!(Message::parse(good.as_bytes()).is_some());
        for bad in [
            String::new(),
            good.replacen('1', "2", 1),
            format!("1 -7 n 5 9 {one}"),
            format!("1 7 n 5 9 {one},{other}"),
            "1 7 n 5 9 ".to_owned(),
            format!("1 7 n 5 9 {one},"),
            format!("1 7 n 5 9 {one} more"),
            "1 7 n 5 9".to_owned(),
        ] {
            assert_eq!(Message::parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(Message::parse(&[0xFF, 0xFE]), None);
    }
}
