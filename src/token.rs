//! Credentials that cannot be printed.
//!
//! Knows: a token's bytes, its `Authorization` value and a keyed digest of it; other secrets; registering
//! them to be masked. Does not know: where they came from (`config`) or what they open (`partition`, `share`).

use std::fmt;

use data_encoding::HEXLOWER;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::mask::Masker;

/// The longest token. GitHub's are up to about 520 characters long; servers take header fields of 8 to 16 KiB.
const MAX_BYTES: usize = 16 << 10;

/// A GitHub token. `Debug` is redacted, there is no `Display`, and memory is wiped on drop.
#[derive(Clone)]
pub struct Token(SecretString);

impl Token {
    /// Wraps the text of a token; surrounding white space is dropped.
    ///
    /// Errors when it is empty or holds anything that an HTTP header cannot carry; the error
    /// does not repeat the text.
    pub fn new(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.len() > MAX_BYTES {
            return Err(Error::usage(format!("the token has {} characters, more than {MAX_BYTES}", text.len()))
                .hint("give the token alone"));
        }
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::usage("the token is empty or holds characters that a header cannot carry"));
        }
        Ok(Self(SecretString::from(text)))
    }

    /// The value of the `Authorization` header, scheme included. Mark it sensitive.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.0.expose_secret())
    }

    /// The workflow command that makes a runner mask this token wherever it is said. It must go to
    /// the runner only, which takes it out of the log.
    pub fn write_mask_command(&self, out: &mut impl std::io::Write) -> std::io::Result<()> {
        writeln!(out, "::add-mask::{}", self.0.expose_secret())
    }

    /// Registers the token, so that it is masked in whatever is written.
    pub fn register(&self, masker: &Masker) {
        masker.add(self.0.expose_secret());
    }

    /// Registers a token that is replaced by others, as an installation's.
    pub fn register_passing(&self, masker: &Masker) {
        masker.add_passing(self.0.expose_secret());
    }

    /// The token as what a group shares, where somebody asks for that: whoever can open what is sealed with
    /// it has a credential, and the other way round.
    pub fn as_passphrase(&self) -> Secret {
        Secret::new(self.0.expose_secret())
    }

    /// 16 hex digits that name this token without giving it away: a digest under a fixed domain.
    /// Tokens carry over 100 bits of randomness, so the digest cannot be searched backwards.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"octocache token v1\0");
        hash.update(self.0.expose_secret());
        HEXLOWER.encode(&hash.finalize()[..8])
    }
}

/// Another secret: a password, an address with one in it. `Debug` shows nothing, there is no `Display`,
/// and memory is wiped on drop.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// Registers the secret, so that it is masked in whatever is written: of an address the password, of
    /// several words each.
    pub fn register(&self, masker: &Masker) {
        let text = self.0.expose_secret();
        if text.contains("://") {
            masker.add_password_of(text);
        } else {
            masker.add(text);
            text.split_whitespace().for_each(|word| masker.add(word));
        }
    }

    /// The text, for the one who opens something with it.
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}…)", &self.digest()[..6])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_prints_itself() {
        let token = Token::new(" ghp_verysecretverysecret\n").unwrap();
        assert!(!format!("{token:?}").contains("secret"));
        assert_eq!(token.authorization(), "Bearer ghp_verysecretverysecret");
        let error = Token::new("ghp_two\nlines").unwrap_err().to_string();
        assert!(!error.contains("ghp_two"));
        assert!(Token::new(&"x".repeat(MAX_BYTES)).is_ok());
        let error = Token::new(&"x".repeat(MAX_BYTES + 1)).unwrap_err().to_string();
        assert!(error.contains("more than 16384"), "{error}");
        let secret = Secret::new("redis://:hunter2@host");
        assert_eq!((format!("{secret:?}"), secret.reveal()), ("Secret(…)".to_owned(), "redis://:hunter2@host"));
    }
}
