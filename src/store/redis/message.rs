//! What travels on the revocation channel.
//!
//! `1 <sequence> <nonce> <sent ms> <shard> <expiry ms> <id>,<id>…`. Whoever cannot read a message
//! must assume that it revokes anything: see `hearing`. Sequence 0 is a message that the store
//! could not record, published so that replicas refuse at once all the same.

use crate::model::token::SHARDS;
use crate::model::{Shard, TokenId};
use crate::time::Timestamp;

/// A heard revocation.
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
    /// When their tokens have ended by themselves.
    pub(super) expires_at: Timestamp,
    /// What was revoked.
    pub(super) ids: Vec<TokenId>,
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
        let shard: u16 = words.next()?.parse().ok().filter(|shard| *shard < SHARDS)?;
        let expires_at = Timestamp(words.next()?.parse().ok()?);
        let ids = words.next()?.split(',').map(TokenId::from_text).collect::<Option<Vec<_>>>()?;
        let shard = Shard::of(u64::from(shard));
        Some(Self { sequence: (sequence > 0).then_some(sequence), nonce, sent_at, shard, expires_at, ids })
    }

    /// Returns the text of a message outside the sequence.
    pub(super) fn unrecorded(nonce: &str, head: &str, ids: &[TokenId]) -> String {
        let ids: Vec<String> = ids.iter().map(|id| id.to_text()).collect();
        format!("1 0 {nonce} {head} {}", ids.join(","))
    }

    /// Returns the part between nonce and ids, which scripts take as one argument.
    pub(super) fn head(sent_at: Timestamp, shard: Shard, expires_at: Timestamp) -> String {
        format!("{} {} {}", sent_at.0, shard.index(), expires_at.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back() {
        let ids = vec![TokenId([1; 24]), TokenId([2; 24])];
        let head = Message::head(Timestamp(5), Shard::of(63), Timestamp(9));
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
        let id = TokenId([1; 24]).to_text();
        let good = format!("1 7 n 5 3 9 {id}");
        assert!(Message::parse(good.as_bytes()).is_some());
        for bad in [
            String::new(),
            good.replacen('1', "2", 1),
            format!("1 -7 n 5 3 9 {id}"),
            format!("1 7 n 5 64 9 {id}"),
            "1 7 n 5 3 9 ".to_owned(),
            format!("1 7 n 5 3 9 {id},"),
            "1 7 n 5 3 9".to_owned(),
        ] {
            assert_eq!(Message::parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(Message::parse(&[0xFF, 0xFE]), None);
    }
}
