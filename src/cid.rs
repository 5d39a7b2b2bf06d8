//! The content address of a body (A10): CIDv1, raw codec, sha2-256, base32.
//!
//! Knows: digest and text form. Does not know: what the bytes mean or where they are kept.

use std::fmt;

use data_encoding::{BASE32_NOPAD, Encoding, HEXLOWER, Specification};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// CIDv1 (1), raw (0x55), sha2-256 (0x12), 32 bytes (0x20); see the multiformats table.
const HEAD: [u8; 4] = [0x01, 0x55, 0x12, 0x20];

/// RFC 4648 base32, lower case, no padding: multibase `b`.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    spec.encoding().unwrap_or(BASE32_NOPAD)
});

/// The address of some bytes: equal bytes have equal addresses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cid([u8; 32]);

impl Cid {
    /// The address of `body`.
    pub fn of(body: &[u8]) -> Self {
        Self(Sha256::digest(body).into())
    }

    /// The address of bytes whose SHA-256 this is.
    pub fn of_sha256(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The SHA-256 inside.
    pub fn sha256(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads the text form; `None` when it is not a raw sha2-256 CIDv1 in base32.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE32.decode(text.strip_prefix('b')?.as_bytes()).ok()?;
        Some(Self(bytes.strip_prefix(&HEAD)?.try_into().ok()?))
    }

    /// The same in whatever base others write it: base32, base16 or base58btc, as the first letter says
    /// (<https://github.com/multiformats/multibase>).
    pub fn parse_any_base(text: &str) -> Option<Self> {
        let rest = text.get(1..)?;
        let bytes = match text.as_bytes().first()? {
            b'b' | b'B' => BASE32.decode(rest.to_ascii_lowercase().as_bytes()).ok()?,
            b'f' | b'F' => HEXLOWER.decode(rest.to_ascii_lowercase().as_bytes()).ok()?,
            b'z' => bs58::decode(rest).into_vec().ok()?,
            _ => return None,
        };
        Some(Self(bytes.strip_prefix(&HEAD)?.try_into().ok()?))
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; 36];
        bytes[..4].copy_from_slice(&HEAD);
        bytes[4..].copy_from_slice(&self.0);
        write!(f, "b{}", BASE32.encode_display(&bytes))
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Cid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Cid::parse(&text).ok_or_else(|| serde::de::Error::custom("not a raw sha2-256 CIDv1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_published_address_of_hello_world() {
        // `ipfs add --raw-leaves --cid-version 1` of "hello world", as in the IPFS documentation.
        let text = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
        assert_eq!(Cid::of(b"hello world").to_string(), text);
        assert_eq!(Cid::parse(text), Some(Cid::of(b"hello world")));
        // The same as other programs write it.
        let digits = "f01551220b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9";
        for other in [text, &text.to_uppercase(), digits, "zb2rhj7crUKTQYRGCRATFaQ6YFLTde2YzdqbbhAASkL9uRDXn"] {
            assert_eq!(Cid::parse_any_base(other), Some(Cid::of(b"hello world")), "{other}");
        }
        for other in ["", "b", "zQm", "u", "éa"] {
            assert_eq!(Cid::parse_any_base(other), None);
        }
        assert_eq!(Cid::parse("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"), None);
    }
}
