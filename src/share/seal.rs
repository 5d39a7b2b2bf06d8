//! Sealing what leaves our hands: a group's secret, and the keys that follow from it.
//!
//! Knows: which keys there are, how bytes are sealed and opened again. Does not know: who carries them.
//! Whoever does not have the secret learns sizes, which sealed bytes are equal, and which belong to the
//! same partition, no more.
//!
//! ```text
//! secret ── 32 random bytes, or Argon2id of a passphrase
//!   └ HKDF-SHA256 ── kid (4 bytes, not secret) · names · body
//! sealed = "OCS1" ‖ kid ‖ HMAC(names, partition)[..8] ‖ nonce (24) ‖ XChaCha20-Poly1305(plain)
//!          nonce = HMAC(nonces, partition ‖ plain)[..24]: equal bytes are sealed equally, so they have one CID
//!          additional data: everything before the nonce
//! ```

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use data_encoding::BASE32_NOPAD;
use ring::{hkdf, hmac};
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};
use crate::key::CacheKey;
use crate::token::Secret;

/// What a made secret begins with.
const MADE: &str = "octo1-";

/// Shorter passphrases are refused.
const MIN_PASSPHRASE_BYTES: usize = 16;

/// The largest text with secrets.
const MAX_SECRET_BYTES: usize = 4 << 10;

/// Secrets that may be in force at once, while one is replaced by another.
const MAX_SECRETS: usize = 4;

/// What sealed bytes begin with; another version begins otherwise.
const MAGIC: &[u8; 4] = b"OCS1";
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 8;
const PREFIX_BYTES: usize = MAGIC.len() + 4 + TAG_BYTES;
const HEAD_BYTES: usize = PREFIX_BYTES + NONCE_BYTES;

/// Bytes that sealing adds.
pub const OVERHEAD_BYTES: usize = HEAD_BYTES + 16;

/// Those who share: whoever has one of its secrets. `Debug` shows no key.
pub struct Group {
    /// The first one seals; all of them open.
    keys: Vec<Keys>,
}

struct Keys {
    kid: [u8; 4],
    names: hmac::Key,
    derived: hmac::Key,
    nonces: hmac::Key,
    body: XChaCha20Poly1305,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("id", &self.id()).finish_non_exhaustive()
    }
}

/// How long a key is, for HKDF.
struct Bytes32;

impl hkdf::KeyType for Bytes32 {
    fn len(&self) -> usize {
        32
    }
}

impl Group {
    /// Reads secrets, separated by white space: the first one seals, all of them open, so that one can be
    /// replaced by another without a gap. One that [`Group::generate`] made is taken as it is, anything
    /// else as a passphrase, which takes a while.
    ///
    /// Errors when there is none, one is too short, or a made one was mistyped; they do not repeat it.
    pub fn read(secrets: &Secret) -> Result<Self> {
        let text = secrets.reveal();
        if text.len() > MAX_SECRET_BYTES {
            return Err(Error::usage("the shared secret is longer than 4 KiB"));
        }
        let keys = text.split_whitespace().take(MAX_SECRETS + 1).map(Keys::read).collect::<Result<Vec<_>>>()?;
        match keys.len() {
            0 => Err(Error::usage("the shared secret is empty").hint("make one with `octocache p2p keygen`")),
            1..=MAX_SECRETS => Ok(Self { keys }),
            _ => Err(Error::usage(format!("there are more than {MAX_SECRETS} shared secrets"))),
        }
    }

    /// A new secret, with a checksum so that a typing error is noticed.
    pub fn generate() -> Result<String> {
        use ring::rand::SecureRandom;
        let mut bytes = [0; 32];
        ring::rand::SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| Error::new(Kind::Internal, "this system has no random bytes"))?;
        let check = Sha256::digest([MADE.as_bytes(), &bytes].concat());
        Ok(format!("{MADE}{}", BASE32_NOPAD.encode(&[&bytes[..], &check[..3]].concat()).to_ascii_lowercase()))
    }

    /// A key for something else than sealing, told apart by `use_of`; of the secret that seals.
    pub fn derive(&self, use_of: &str) -> [u8; 32] {
        let tag = self.keys.first().map(|keys| hmac::sign(&keys.derived, use_of.as_bytes()));
        tag.and_then(|tag| tag.as_ref().try_into().ok()).unwrap_or_default()
    }

    /// A short name of the secret that seals, which gives nothing away.
    pub fn id(&self) -> String {
        self.keys.first().map_or_else(String::new, |keys| data_encoding::HEXLOWER.encode(&keys.kid))
    }

    /// The ids of all secrets, the one that seals first.
    pub fn ids(&self) -> Vec<String> {
        self.keys.iter().map(|keys| data_encoding::HEXLOWER.encode(&keys.kid)).collect()
    }

    /// The same by the secret that seals, as bytes.
    pub fn short_name(&self, key: &CacheKey) -> [u8; 16] {
        let tag = self.keys.first().map(|keys| hmac::sign(&keys.names, key.as_bytes()));
        tag.and_then(|tag| tag.as_ref()[..16].try_into().ok()).unwrap_or_default()
    }

    /// A name for a key that only the group can make, by the secret called `id`: nobody else can try
    /// whether a path is among them.
    pub fn name(&self, id: &str, key: &CacheKey) -> Option<String> {
        let keys = self.keys.iter().find(|keys| data_encoding::HEXLOWER.encode(&keys.kid) == id)?;
        Some(data_encoding::HEXLOWER.encode(&hmac::sign(&keys.names, key.as_bytes()).as_ref()[..16]))
    }

    /// Seals bytes that are about something: a partition, as a rule.
    pub fn seal(&self, about: &str, plain: &[u8]) -> Result<Vec<u8>> {
        let keys = self.keys.first().ok_or_else(|| Error::new(Kind::Internal, "a group without a secret"))?;
        let mut nonce = hmac::Context::with_key(&keys.nonces);
        nonce.update(about.as_bytes());
        nonce.update(b"\0");
        nonce.update(plain);
        let nonce = nonce.sign();
        let nonce = XNonce::from_slice(&nonce.as_ref()[..NONCE_BYTES]);
        let prefix = keys.prefix(about);
        let text = keys
            .body
            .encrypt(nonce, Payload { msg: plain, aad: &prefix })
            .map_err(|_| Error::new(Kind::TooLarge, "too large to be sealed"))?;
        Ok([&prefix, nonce.as_slice(), &text].concat())
    }

    /// Opens what a member sealed about the same. Errors for anything else.
    pub fn open(&self, about: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        let keys = self.keys_of(sealed)?;
        if sealed[..PREFIX_BYTES] == keys.prefix(about) { keys.open(sealed) } else { Err(not_ours()) }
    }

    /// Opens what a member sealed about whatever.
    pub fn open_any(&self, sealed: &[u8]) -> Result<Vec<u8>> {
        self.keys_of(sealed)?.open(sealed)
    }

    fn keys_of(&self, sealed: &[u8]) -> Result<&Keys> {
        let kid = sealed.get(..HEAD_BYTES).and_then(|head| head.strip_prefix(MAGIC)).ok_or_else(not_ours)?;
        self.keys.iter().find(|keys| kid.starts_with(&keys.kid)).ok_or_else(not_ours)
    }
}

fn not_ours() -> Error {
    Error::corrupt("it is not sealed by this group about this")
}

impl Keys {
    fn read(text: &str) -> Result<Self> {
        let Some(made) = text.strip_prefix(MADE) else { return Self::of_passphrase(text) };
        let mistyped = || {
            Error::usage("the shared secret was mistyped or cut short: its checksum does not hold")
                .hint("copy all of what `octocache p2p keygen` printed")
        };
        let bytes = BASE32_NOPAD.decode(made.to_ascii_uppercase().as_bytes()).map_err(|_| mistyped())?;
        let (secret, check) = bytes.split_at_checked(32).ok_or_else(mistyped)?;
        if check != &Sha256::digest([MADE.as_bytes(), secret].concat())[..3] {
            return Err(mistyped());
        }
        Self::of_root(secret)
    }

    /// Guessing has to be expensive: 64 MiB and three passes (RFC 9106 section 4, second choice).
    fn of_passphrase(text: &str) -> Result<Self> {
        if text.len() < MIN_PASSPHRASE_BYTES {
            return Err(Error::usage(format!("the shared secret is shorter than {MIN_PASSPHRASE_BYTES} bytes"))
                .hint("make one with `octocache p2p keygen`"));
        }
        let failed = || Error::new(Kind::Internal, "Argon2 does not start");
        let params = Params::new(64 << 10, 3, 1, Some(32)).map_err(|_| failed())?;
        let mut root = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(text.as_bytes(), &Sha256::digest(b"octocache group v1"), &mut root)
            .map_err(|_| failed())?;
        Self::of_root(&root)
    }

    /// What sealed bytes begin with.
    fn prefix(&self, about: &str) -> Vec<u8> {
        let tag = hmac::sign(&self.names, about.as_bytes());
        [&MAGIC[..], &self.kid, &tag.as_ref()[..TAG_BYTES]].concat()
    }

    /// Opens bytes that are long enough and begin with this secret's id.
    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>> {
        let (prefix, rest) = sealed.split_at(PREFIX_BYTES);
        let (nonce, text) = rest.split_at(NONCE_BYTES);
        let payload = Payload { msg: text, aad: prefix };
        self.body.decrypt(XNonce::from_slice(nonce), payload).map_err(|_| not_ours())
    }

    fn of_root(root: &[u8]) -> Result<Self> {
        let failed = || Error::new(Kind::Internal, "a key cannot be derived");
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, b"octocache group v1").extract(root);
        let derive = |info: &str| -> Result<[u8; 32]> {
            let mut key = [0; 32];
            let info = [info.as_bytes()];
            prk.expand(&info, Bytes32).and_then(|okm| okm.fill(&mut key)).map_err(|_| failed())?;
            Ok(key)
        };
        let [a, b, c, d, ..] = derive("kid")?;
        Ok(Self {
            kid: [a, b, c, d],
            names: hmac::Key::new(hmac::HMAC_SHA256, &derive("names")?),
            derived: hmac::Key::new(hmac::HMAC_SHA256, &derive("derived")?),
            nonces: hmac::Key::new(hmac::HMAC_SHA256, &derive("nonces")?),
            body: XChaCha20Poly1305::new(&derive("body")?.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(text: &str) -> Result<Group> {
        Group::read(&Secret::new(text))
    }

    #[test]
    fn only_the_group_opens_what_it_sealed_and_only_for_its_partition() {
        let [one, other] = [(), ()].map(|()| Group::generate().unwrap());
        let (group, others) = (group(&one).unwrap(), group(&other).unwrap());
        let (public, team) = ("public", "name:team");
        let plain = b"{\"private\":\"acme/secret\"}";
        let sealed = group.seal(public, plain).unwrap();
        assert_eq!(sealed.len(), plain.len() + OVERHEAD_BYTES);
        assert_eq!(group.open(public, &sealed).unwrap(), plain);
        assert!(others.open(public, &sealed).is_err() && group.open(team, &sealed).is_err());
        assert_eq!(sealed, group.seal(public, plain).unwrap(), "equal bytes have one CID");
        assert_ne!(sealed[40..], group.seal(team, plain).unwrap()[40..], "but not across partitions");
        assert_eq!(group.open_any(&sealed).unwrap(), plain);
        assert!(!sealed.windows(6).any(|part| part == b"secret"));
        for at in 0..sealed.len() {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1;
            assert!(group.open(public, &flipped).is_err() && group.open_any(&flipped).is_err(), "byte {at}");
            assert!(group.open(public, &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn secrets_are_replaced_without_a_gap() {
        let (old, new) = (Group::generate().unwrap(), Group::generate().unwrap());
        let (before, between, after) =
            (group(&old).unwrap(), group(&format!("{new}\n{old}\n")).unwrap(), group(&new).unwrap());
        let public = "public";
        assert_eq!(between.open(public, &before.seal(public, b"x").unwrap()).unwrap(), b"x");
        assert_eq!(after.open(public, &between.seal(public, b"y").unwrap()).unwrap(), b"y");
        assert!(before.open(public, &after.seal(public, b"z").unwrap()).is_err());
        let key = crate::entry::tests::entry("/x", b"{}").key();
        assert_eq!(between.ids(), [after.id(), before.id()]);
        assert_eq!(between.name(&before.id(), &key), before.name(&before.id(), &key));
        assert_ne!(between.name(&before.id(), &key), between.name(&after.id(), &key));
        assert!(before.name(&after.id(), &key).is_none());
    }

    #[test]
    fn bad_secrets_are_refused_and_not_repeated() {
        let made = Group::generate().unwrap();
        let mut mistyped = made.clone().into_bytes();
        mistyped[20] = if mistyped[20] == b'a' { b'b' } else { b'a' };
        let mistyped = String::from_utf8(mistyped).unwrap();
        for text in ["", " \n", "tiny pw", &mistyped, &made[..made.len() - 4], &"x ".repeat(3_000)] {
            let error = group(text).unwrap_err().to_string();
            assert!(text.trim().is_empty() || !error.contains(text.trim()), "{error}");
        }
        let passphrase = group("correct-horse-battery-staple").unwrap();
        assert_eq!(passphrase.id(), group("correct-horse-battery-staple").unwrap().id());
        assert!(!format!("{passphrase:?}").contains("horse"));
    }
}
