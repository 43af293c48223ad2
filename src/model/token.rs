//! Split tokens: the texts that lead to a session and carry its secret.
//!
//! A token is `<prefix>` and 72 base64url characters for 54 bytes: version and kind 1, key id 1,
//! session id 16, expiry in Unix seconds 4, turn 4, secret 16, MAC 12. The session id says where the
//! record is filed, the record says which secret it takes ([`Verifier`]), and one HMAC-SHA256 over
//! everything before the MAC refuses garbage without I/O. The kind is one of the bytes under the MAC:
//! a refresh token or a cookie can never pass for an opaque token. A leaked store makes no token,
//! since it holds digests only; a leaked key makes none either, since it knows no secret.

use std::fmt;

use aws_lc_rs::rand::SecureRandom;
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::model::session::{SessionId, Verifier};
use crate::secret::{NoEntropy, Secret, random_bytes};
use crate::time::Timestamp;

const VERSION: u8 = 1;
const SIGNED: usize = 42;
const MAC: usize = 12;
const RAW: usize = SIGNED + MAC;
const TEXT: usize = RAW / 3 * 4;

/// The text that a caller holds. Wiped on drop; `Debug` shows nothing.
#[derive(Clone)]
pub struct SessionToken(Secret);

/// What a token may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// Opens guarded routes, as a bearer or in the cookie slot: an opaque token.
    Access,
    /// Opens guarded routes, in the cookie slot only.
    Cookie,
    /// Obtains the next refresh token, and nothing else.
    Refresh,
}

/// The secret that all tokens of one session share. Wiped on drop; `Debug` shows nothing.
#[derive(Clone)]
pub struct SessionSecret(Zeroizing<[u8; 16]>);

/// What a token says, once its MAC was right: it was minted here, which does not yet make it valid.
#[derive(Clone, Debug)]
pub struct ParsedToken {
    /// What it may be used for.
    pub kind: TokenKind,
    /// The session that it leads to.
    pub session: SessionId,
    /// When it was to end as minted, rounded up to the second.
    pub nominal_expiry: Timestamp,
    /// Which refresh token it is; 0 for other kinds.
    pub turn: u32,
    /// The session's secret, as the caller presents it.
    pub secret: SessionSecret,
    key_id: u8,
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

impl SessionSecret {
    /// Returns a new secret.
    pub fn new(random: &dyn SecureRandom) -> Result<Self, NoEntropy> {
        random_bytes::<16>(random).map(Self)
    }

    /// Returns what the record of `session` holds in the secret's place: 24 bytes of SHA-256 over both.
    /// It depends on nothing else: tokens of one session that differ in kind, turn, expiry or key have the
    /// same one.
    pub fn verifier(&self, session: SessionId) -> Verifier {
        let mut input = Zeroizing::new([0; 32]);
        let (id, secret) = input.split_at_mut(16);
        id.copy_from_slice(session.as_bytes());
        secret.copy_from_slice(self.0.as_slice());
        let digest = digest::digest(&digest::SHA256, input.as_slice());
        let mut verifier = [0; 24];
        verifier.iter_mut().zip(digest.as_ref()).for_each(|(into, from)| *into = *from);
        Verifier(verifier)
    }
}

impl fmt::Debug for SessionSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SessionSecret")
    }
}

impl TokenKind {
    // The low half of the first byte.
    fn code(self) -> u8 {
        match self {
            Self::Access => 1,
            Self::Cookie => 2,
            Self::Refresh => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [Self::Access, Self::Cookie, Self::Refresh].into_iter().find(|kind| kind.code() == code)
    }
}

impl ParsedToken {
    /// Returns what the record must hold for this token to open it.
    pub fn verifier(&self) -> Verifier {
        self.secret.verifier(self.session)
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
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.sign().as_ref());
        bytes
    }

    fn mac(&self, signed: &[u8; SIGNED]) -> [u8; MAC] {
        let tag = hmac::sign(&self.key, signed);
        let mut mac = [0; MAC];
        mac.iter_mut().zip(tag.as_ref()).for_each(|(into, from)| *into = *from);
        mac
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

    /// Returns the text of a token of `session`; its expiry is rounded up to the second, as a token
    /// must never claim to end before its record does.
    pub fn mint(
        &self,
        kind: TokenKind,
        session: SessionId,
        secret: &SessionSecret,
        expires_at: Timestamp,
        turn: u32,
    ) -> SessionToken {
        self.write(&self.minting, kind, session, secret, expires_at, turn)
    }

    /// Returns the refresh token that follows `presented`. It is computed from the session's secret
    /// under the key that made `presented`: a repeated answer needs no stored secret and is the same on
    /// every replica, also while the minting key is being rotated.
    pub fn successor(&self, presented: &ParsedToken, turn: u32) -> Result<SessionToken, TokenError> {
        let ParsedToken { session, nominal_expiry, secret, key_id, .. } = presented;
        let key = self.key(*key_id)?;
        Ok(self.write(key, TokenKind::Refresh, *session, secret, *nominal_expiry, turn))
    }

    /// Returns what a caller's text says, refusing without I/O what was not minted here as one of `kinds`.
    pub fn parse(&self, kinds: &[TokenKind], text: &str) -> Result<ParsedToken, TokenError> {
        let encoded = text.strip_prefix(&self.prefix).ok_or(TokenError::Malformed)?;
        if encoded.len() != TEXT {
            return Err(TokenError::Malformed);
        }
        let mut raw = Zeroizing::new([0; RAW]);
        URL_SAFE_NO_PAD.decode_slice(encoded, raw.as_mut_slice()).map_err(|_| TokenError::Malformed)?;
        let (signed, mac) = raw.split_first_chunk::<SIGNED>().ok_or(TokenError::Malformed)?;
        let ([first, key_id], rest) = signed.split_first_chunk().ok_or(TokenError::Malformed)?;
        let (session, rest) = rest.split_first_chunk::<16>().ok_or(TokenError::Malformed)?;
        let (expiry, rest) = rest.split_first_chunk::<4>().ok_or(TokenError::Malformed)?;
        let (turn, secret) = rest.split_first_chunk::<4>().ok_or(TokenError::Malformed)?;
        if first >> 4 != VERSION {
            return Err(TokenError::Malformed);
        }
        let expected = self.key(*key_id)?.mac(signed);
        let genuine = bool::from(expected.ct_eq(mac));
        let kind = TokenKind::from_code(first & 0x0F).filter(|kind| genuine && kinds.contains(kind));
        let kind = kind.ok_or(TokenError::Forged)?;
        let secret = <[u8; 16]>::try_from(secret).map_err(|_| TokenError::Malformed)?;
        Ok(ParsedToken {
            kind,
            session: SessionId::from_bytes(*session),
            nominal_expiry: Timestamp(u64::from(u32::from_be_bytes(*expiry)) * 1000),
            turn: u32::from_be_bytes(*turn),
            secret: SessionSecret(Zeroizing::new(secret)),
            key_id: *key_id,
        })
    }

    fn key(&self, id: u8) -> Result<&TokenKey, TokenError> {
        self.iter().find(|key| key.id == id).ok_or(TokenError::Forged)
    }

    fn write(
        &self,
        key: &TokenKey,
        kind: TokenKind,
        session: SessionId,
        secret: &SessionSecret,
        expires_at: Timestamp,
        turn: u32,
    ) -> SessionToken {
        let expiry = u32::try_from(expires_at.0.div_ceil(1000)).unwrap_or(u32::MAX);
        let head = [VERSION << 4 | kind.code(), key.id];
        let parts: [&[u8]; 5] =
            [&head, session.as_bytes(), &expiry.to_be_bytes(), &turn.to_be_bytes(), secret.0.as_slice()];
        let mut signed = Zeroizing::new([0; SIGNED]);
        signed.iter_mut().zip(parts.into_iter().flatten()).for_each(|(into, from)| *into = *from);
        let mac = key.mac(&signed);
        let mut raw = Zeroizing::new([0; RAW]);
        raw.iter_mut().zip(signed.iter().chain(&mac)).for_each(|(into, from)| *into = *from);
        SessionToken(Secret::new(format!("{}{}", self.prefix, URL_SAFE_NO_PAD.encode(raw.as_slice()))))
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;

    use super::*;
    use crate::model::session::Shard;

    const ALL: [TokenKind; 3] = [TokenKind::Access, TokenKind::Cookie, TokenKind::Refresh];
    const END: Timestamp = Timestamp(1_800_000_000_001);

    fn keys() -> TokenKeys {
        TokenKeys::new("dw_".to_owned(), TokenKey::new(1, &[7; 32]).unwrap(), Vec::new())
    }

    fn session() -> SessionId {
        SessionId::new(Timestamp(1_700_000_000_000), Shard::of(35), &[0xA5; 10])
    }

    fn secret() -> SessionSecret {
        SessionSecret::new(&SystemRandom::new()).unwrap()
    }

    fn mint(keys: &TokenKeys, kind: TokenKind) -> String {
        keys.mint(kind, session(), &secret(), END, 0).expose().to_owned()
    }

    #[test]
    fn a_minted_token_parses_to_what_was_minted() {
        let (keys, secret) = (keys(), secret());
        let text = keys.mint(TokenKind::Refresh, session(), &secret, END, 77).expose().to_owned();
        assert_eq!(text.len(), "dw_".len() + 72);
        let parsed = keys.parse(&[TokenKind::Refresh], &text).unwrap();
        assert_eq!((parsed.session, parsed.turn), (session(), 77));
        assert_eq!(parsed.session.shard().index(), 35);
        assert_eq!(parsed.nominal_expiry, Timestamp(1_800_000_001_000), "rounded up to the second");
        assert_eq!(parsed.verifier(), secret.verifier(session()));
    }

    #[test]
    fn kinds_are_separated_by_the_mac() {
        let keys = keys();
        for minted in ALL {
            let text = mint(&keys, minted);
            for wanted in ALL {
                let parsed = keys.parse(&[wanted], &text).map(|parsed| parsed.session);
                let expected = if minted == wanted { Ok(session()) } else { Err(TokenError::Forged) };
                assert_eq!(parsed, expected, "{minted:?} as {wanted:?}");
            }
            // Renaming the kind in the text breaks the MAC.
            let mut raw = URL_SAFE_NO_PAD.decode(&text[3..]).unwrap();
            for wanted in ALL.into_iter().filter(|wanted| *wanted != minted) {
                raw[0] = raw[0] & 0xF0 | wanted.code();
                let renamed = format!("dw_{}", URL_SAFE_NO_PAD.encode(&raw));
                assert_eq!(keys.parse(&[wanted], &renamed).unwrap_err(), TokenError::Forged);
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let keys = keys();
        let text = mint(&keys, TokenKind::Access);
        let raw = URL_SAFE_NO_PAD.decode(&text[3..]).unwrap();
        for bit in 0..raw.len() * 8 {
            let mut flipped = raw.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let text = format!("dw_{}", URL_SAFE_NO_PAD.encode(flipped));
            assert!(keys.parse(&ALL, &text).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn shapes_that_are_not_ours_are_malformed() {
        let keys = keys();
        let text = mint(&keys, TokenKind::Access);
        for bad in ["", "dw_", "xx_", &text[1..], &format!("{text}A"), &text[..50], "dw_é", &text.replace("dw_", "DW_")]
        {
            assert_eq!(keys.parse(&[TokenKind::Access], bad).unwrap_err(), TokenError::Malformed, "{bad}");
        }
    }

    #[test]
    fn a_retired_key_still_verifies_and_an_unknown_one_does_not() {
        let old = keys();
        let text = mint(&old, TokenKind::Access);
        let new = TokenKey::new(2, &[9; 32]).unwrap();
        let rotated = TokenKeys::new("dw_".to_owned(), new.clone(), vec![old.minting().clone()]);
        assert_eq!(rotated.parse(&[TokenKind::Access], &text).unwrap().session, session());
        let without = TokenKeys::new("dw_".to_owned(), new, Vec::new());
        assert_eq!(without.parse(&[TokenKind::Access], &text).unwrap_err(), TokenError::Forged);
    }

    #[test]
    fn a_successor_is_the_same_on_every_replica_also_while_keys_are_rotated() {
        let old = keys();
        let new = TokenKey::new(2, &[9; 32]).unwrap();
        let rotated = TokenKeys::new("dw_".to_owned(), new, vec![old.minting().clone()]);
        let text = old.mint(TokenKind::Refresh, session(), &secret(), END, 4).expose().to_owned();
        let presented = old.parse(&[TokenKind::Refresh], &text).unwrap();
        let next = old.successor(&presented, 5).unwrap();
        assert_eq!(rotated.successor(&presented, 5).unwrap().expose(), next.expose());
        let parsed = rotated.parse(&[TokenKind::Refresh], next.expose()).unwrap();
        assert_eq!((parsed.turn, parsed.nominal_expiry), (5, presented.nominal_expiry));
        assert_eq!(parsed.verifier(), presented.verifier());
    }

    #[test]
    fn the_verifier_depends_on_session_and_secret_only() {
        let (keys, secret) = (keys(), secret());
        let other = SessionId::new(Timestamp(1), Shard::of(35), &[0xA5; 10]);
        assert_ne!(secret.verifier(session()), secret.verifier(other));
        assert_ne!(secret.verifier(session()), self::secret().verifier(session()));
        for (kind, turn, end) in [(TokenKind::Access, 0, Timestamp(9)), (TokenKind::Refresh, 9, END)] {
            let text = keys.mint(kind, session(), &secret, end, turn).expose().to_owned();
            assert_eq!(keys.parse(&[kind], &text).unwrap().verifier(), secret.verifier(session()));
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        let (keys, secret) = (keys(), secret());
        let token = keys.mint(TokenKind::Access, session(), &secret, Timestamp(0), 0);
        let parsed = keys.parse(&[TokenKind::Access], token.expose()).unwrap();
        let shown = format!("{token:?} {parsed:?} {keys:?} {secret:?}");
        assert!(!shown.contains(token.expose()), "{shown}");
        assert!(!shown.contains(&format!("{:?}", &secret.0[..2])[1..5]), "{shown}");
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
