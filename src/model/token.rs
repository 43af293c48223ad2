//! Self-authenticating opaque tokens.
//!
//! A token is `<prefix>` and 48 base64url characters for 36 bytes: version 1, key id 1, shard 2,
//! expiry in Unix seconds 4, random 20, MAC 8. One HMAC-SHA256 over the first 28 bytes gives both
//! the MAC, so that garbage is refused without I/O, and the token id, the only thing that stores
//! and caches see. The kind is part of the MAC's input and not of the token: a refresh token can
//! never pass for an access token.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SecureRandom;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::secret::{NoEntropy, Secret, random_bytes};
use crate::time::Timestamp;

const VERSION: u8 = 1;
const SIGNED: usize = 28;
const MAC: usize = 8;
const RAW: usize = SIGNED + MAC;
const TEXT: usize = RAW / 3 * 4;

/// How many slots sessions are spread over, so that one principal's data shares a Redis slot.
pub const SHARDS: u16 = 64;

/// The secret that a caller holds. Wiped on drop; `Debug` shows nothing.
#[derive(Clone)]
pub struct SessionToken(Secret);

/// The keyed hash under which stores and caches know a token. Not a credential.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub [u8; 24]);

/// Which slot a principal's sessions live in: 0 to [`SHARDS`] - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shard(u16);

/// What a token may be used for. Each kind has its own MAC domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// Opens guarded routes.
    Access,
    /// Obtains the next access token, and nothing else.
    Refresh,
}

/// A token whose MAC was right: it was minted here, which does not yet make it valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedToken {
    /// What the store files its session under.
    pub id: TokenId,
    /// Which slot the session lives in.
    pub shard: Shard,
    /// When it was to end as minted, rounded up to the second; the record's own end wins.
    pub nominal_expiry: Timestamp,
}

/// Why a text is not one of our tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Wrong prefix, length or alphabet, or an unknown version.
    #[error("not a session token")]
    Malformed,
    /// The shape is right but no key of ours made it for this kind.
    #[error("not minted here")]
    Forged,
}

/// One MAC key and the id that tokens name it by.
#[derive(Clone)]
pub struct TokenKey {
    id: u8,
    key: hmac::Key,
}

/// The keys of a deployment: the first mints, all verify.
#[derive(Clone)]
pub struct TokenKeys {
    prefix: String,
    minting: TokenKey,
    retired: Vec<TokenKey>,
}

impl SessionToken {
    /// Returns the token's text, to be shown to its holder once.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SessionToken")
    }
}

// Eight characters tell two sessions apart in a log; the whole id is nobody's business there.
impl fmt::Debug for TokenId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_text();
        write!(formatter, "TokenId({}…)", text.get(..8).unwrap_or_default())
    }
}

impl TokenId {
    /// Returns the id as 32 base64url characters: a store key.
    pub fn to_text(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// Returns the id that [`to_text`](Self::to_text) wrote, or `None` for any other text.
    pub fn from_text(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }
}

impl Shard {
    /// Returns the slot of a principal's sessions, from any stable hash of the principal.
    pub fn of(hash: u64) -> Self {
        Self(u16::try_from(hash % u64::from(SHARDS)).unwrap_or_default())
    }

    /// Returns the slot's number, 0 to [`SHARDS`] - 1.
    pub fn index(self) -> u16 {
        self.0
    }
}

impl TokenKind {
    fn domain(self) -> u8 {
        match self {
            Self::Access => b'a',
            Self::Refresh => b'r',
        }
    }
}

impl TokenKey {
    /// Returns a key named `id` with `secret` as its material, which must be at least 32 bytes.
    pub fn new(id: u8, secret: &[u8]) -> Option<Self> {
        (secret.len() >= 32).then(|| Self { id, key: hmac::Key::new(hmac::HMAC_SHA256, secret) })
    }

    /// Returns a digest that only holders of this key can compute, separated by `domain`.
    ///
    /// Each part is preceded by its length: bytes moved across a part's border change the digest
    /// (the lesson of CVE-2023-35941).
    pub fn digest(&self, domain: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in std::iter::once(&domain.as_bytes()).chain(parts) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        tag_bytes(&context.sign())
    }

    fn sign(&self, kind: TokenKind, signed: &[u8; SIGNED]) -> [u8; 32] {
        let mut input = [0; SIGNED + 1];
        let (body, domain) = input.split_at_mut(SIGNED);
        body.copy_from_slice(signed);
        domain.fill(kind.domain());
        tag_bytes(&hmac::sign(&self.key, &input))
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TokenKey({})", self.id)
    }
}

impl TokenKeys {
    /// Returns a key ring that mints with `minting` and still accepts what `retired` minted.
    pub fn new(prefix: String, minting: TokenKey, retired: Vec<TokenKey>) -> Self {
        Self { prefix, minting, retired }
    }

    /// Returns the key that mints.
    pub fn minting(&self) -> &TokenKey {
        &self.minting
    }

    /// Returns every key, the minting one first.
    pub fn iter(&self) -> impl Iterator<Item = &TokenKey> {
        std::iter::once(&self.minting).chain(&self.retired)
    }

    /// Returns whether `text` begins like one of our tokens.
    pub fn has_prefix(&self, text: &str) -> bool {
        text.starts_with(&self.prefix)
    }

    /// Returns a new token of `kind` and what the store will file it under.
    pub fn mint(
        &self,
        kind: TokenKind,
        shard: Shard,
        expires_at: Timestamp,
        random: &dyn SecureRandom,
    ) -> Result<(SessionToken, ParsedToken), NoEntropy> {
        let seconds = expiry_seconds(expires_at);
        let mut signed = Zeroizing::new([0; SIGNED]);
        let (head, tail) = signed.split_at_mut(8);
        tail.copy_from_slice(random_bytes::<20>(random)?.as_slice());
        let [version, key_id, shard_high, shard_low, expiry @ ..] = head else { unreachable!("split at 8") };
        *version = VERSION;
        *key_id = self.minting.id;
        [*shard_high, *shard_low] = shard.0.to_be_bytes();
        expiry.copy_from_slice(&seconds.to_be_bytes());
        let digest = self.minting.sign(kind, &signed);
        let mut raw = Zeroizing::new([0; RAW]);
        let (body, mac) = raw.split_at_mut(SIGNED);
        body.copy_from_slice(signed.as_slice());
        let (expected, id) = split_digest(&digest);
        mac.copy_from_slice(&expected);
        let text = format!("{}{}", self.prefix, URL_SAFE_NO_PAD.encode(raw.as_slice()));
        let parsed = ParsedToken { id, shard, nominal_expiry: from_seconds(seconds) };
        Ok((SessionToken(Secret::new(text)), parsed))
    }

    /// Returns what a caller's text names, refusing without I/O whatever was not minted here.
    pub fn parse(&self, kind: TokenKind, text: &str) -> Result<ParsedToken, TokenError> {
        let encoded = text.strip_prefix(&self.prefix).ok_or(TokenError::Malformed)?;
        if encoded.len() != TEXT {
            return Err(TokenError::Malformed);
        }
        let mut raw = Zeroizing::new([0; RAW]);
        URL_SAFE_NO_PAD.decode_slice(encoded, raw.as_mut_slice()).map_err(|_| TokenError::Malformed)?;
        let (signed, mac) = raw.split_first_chunk::<SIGNED>().ok_or(TokenError::Malformed)?;
        let [VERSION, key_id, shard_high, shard_low, e0, e1, e2, e3, ..] = *signed else {
            return Err(TokenError::Malformed);
        };
        let key = self.iter().find(|key| key.id == key_id).ok_or(TokenError::Forged)?;
        let (expected, id) = split_digest(&key.sign(kind, signed));
        if !bool::from(expected.ct_eq(mac)) {
            return Err(TokenError::Forged);
        }
        Ok(ParsedToken {
            id,
            shard: Shard(u16::from_be_bytes([shard_high, shard_low])),
            nominal_expiry: from_seconds(u32::from_be_bytes([e0, e1, e2, e3])),
        })
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

fn split_digest(digest: &[u8; 32]) -> ([u8; MAC], TokenId) {
    let mut mac = [0; MAC];
    let mut id = [0; 24];
    let (head, tail) = digest.split_at(MAC);
    mac.copy_from_slice(head);
    id.copy_from_slice(tail);
    (mac, TokenId(id))
}

fn tag_bytes(tag: &hmac::Tag) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

// Rounded up: a token must never claim to end before its record does.
fn expiry_seconds(at: Timestamp) -> u32 {
    u32::try_from(at.0.div_ceil(1000)).unwrap_or(u32::MAX)
}

fn from_seconds(seconds: u32) -> Timestamp {
    Timestamp(u64::from(seconds) * 1000)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;

    use super::*;

    fn keys() -> TokenKeys {
        TokenKeys::new("dw_".to_owned(), TokenKey::new(1, &[7; 32]).unwrap(), Vec::new())
    }

    fn mint(keys: &TokenKeys, kind: TokenKind) -> (String, ParsedToken) {
        let (token, parsed) =
            keys.mint(kind, Shard::of(99), Timestamp(1_800_000_000_001), &SystemRandom::new()).unwrap();
        (token.expose().to_owned(), parsed)
    }

    #[test]
    fn a_minted_token_parses_to_what_was_minted() {
        let keys = keys();
        let (text, minted) = mint(&keys, TokenKind::Access);
        assert_eq!(text.len(), "dw_".len() + 48);
        assert_eq!(keys.parse(TokenKind::Access, &text), Ok(minted));
        assert_eq!(minted.shard.index(), 99 % SHARDS);
        assert_eq!(minted.nominal_expiry, Timestamp(1_800_000_001_000), "rounded up to the second");
    }

    #[test]
    fn kinds_are_separated_by_the_mac() {
        let keys = keys();
        let (refresh, _) = mint(&keys, TokenKind::Refresh);
        assert_eq!(keys.parse(TokenKind::Access, &refresh), Err(TokenError::Forged));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let keys = keys();
        let (text, _) = mint(&keys, TokenKind::Access);
        let raw = URL_SAFE_NO_PAD.decode(&text[3..]).unwrap();
        for bit in 0..raw.len() * 8 {
            let mut flipped = raw.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let text = format!("dw_{}", URL_SAFE_NO_PAD.encode(flipped));
            assert!(keys.parse(TokenKind::Access, &text).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn shapes_that_are_not_ours_are_malformed() {
        let keys = keys();
        let (text, _) = mint(&keys, TokenKind::Access);
        for bad in ["", "dw_", "xx_", &text[1..], &format!("{text}A"), &text[..50], "dw_é", &text.replace("dw_", "DW_")]
        {
            assert_eq!(keys.parse(TokenKind::Access, bad), Err(TokenError::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_retired_key_still_verifies_and_an_unknown_one_does_not() {
        let old = keys();
        let (text, minted) = mint(&old, TokenKind::Access);
        let new = TokenKey::new(2, &[9; 32]).unwrap();
        let rotated = TokenKeys::new("dw_".to_owned(), new.clone(), vec![old.minting().clone()]);
        assert_eq!(rotated.parse(TokenKind::Access, &text), Ok(minted));
        let without = TokenKeys::new("dw_".to_owned(), new, Vec::new());
        assert_eq!(without.parse(TokenKind::Access, &text), Err(TokenError::Forged));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let keys = keys();
        let (token, parsed) = keys.mint(TokenKind::Access, Shard::of(1), Timestamp(0), &SystemRandom::new()).unwrap();
        let shown = format!("{token:?} {parsed:?} {keys:?}");
        assert!(!shown.contains(token.expose()), "{shown}");
        assert!(!shown.contains(&parsed.id.to_text()), "{shown}");
    }

    #[test]
    fn digest_parts_cannot_flow_into_each_other() {
        let key = TokenKey::new(1, &[7; 32]).unwrap();
        assert_ne!(key.digest("device", &[b"ab", b"c"]), key.digest("device", &[b"a", b"bc"]));
        assert_ne!(key.digest("device", &[b"a"]), key.digest("principal", &[b"a"]));
    }

    #[test]
    fn short_keys_are_refused() {
        assert!(TokenKey::new(1, &[0; 31]).is_none());
    }
}
