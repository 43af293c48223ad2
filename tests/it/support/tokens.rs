//! Tokens that no endpoint hands out.

use aws_lc_rs::rand::SystemRandom;
use doorward::model::{SessionId, SessionSecret, TokenKeys, TokenKind};
use doorward::time::Timestamp;
use uuid::Uuid;

/// Returns a token with a good MAC under `keys` behind which no session stands.
pub fn stray(keys: &TokenKeys, kind: TokenKind, expires_at: Timestamp) -> String {
    let secret = SessionSecret::new(&SystemRandom::new()).expect("the system has entropy");
    keys.mint(kind, SessionId::from(Uuid::now_v7()), &secret, expires_at, 0).expose().to_owned()
}
