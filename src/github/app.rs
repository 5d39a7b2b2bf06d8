//! A GitHub App's installation as an identity: it signs for a token of an hour's life, and signs
//! again before that ends (GitHub, "Authenticating as a GitHub App installation").
//!
//! Knows: the claim that GitHub wants, RS256, when to mint anew. Does not know: how anything is sent.

use std::fmt;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::json;

use crate::clock::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::token::Token;

/// GitHub's clock may be behind ours by so much.
const SKEW_SECS: u64 = 60;

/// A claim lives ten minutes at most.
const CLAIM_SECS: u64 = 540;

/// A token is used until so many seconds before its end.
const MARGIN_SECS: u64 = 60;

/// An App and one of its installations. Its key cannot be printed.
#[derive(Clone)]
pub struct App {
    id: String,
    /// The installation's number.
    pub installation: u64,
    key: Arc<RsaKeyPair>,
}

/// An installation's token and its end.
#[derive(Debug, Clone)]
pub(super) struct Minted {
    pub(super) token: Token,
    until: Timestamp,
}

impl App {
    /// An App by its ID (or client ID) and the PEM text of its private key.
    pub fn new(id: &str, installation: u64, pem: &[u8]) -> Result<Self> {
        let bad = |why: &str| {
            Error::usage(format!("the App's private key cannot be used: {why}"))
                .hint("give the PEM file that GitHub made")
        };
        let key = match PrivateKeyDer::from_pem_slice(pem) {
            Ok(PrivateKeyDer::Pkcs1(der)) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            Ok(PrivateKeyDer::Pkcs8(der)) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            _ => return Err(bad("it is no RSA key in PEM")),
        };
        let key = key.map_err(|rejected| bad(&rejected.to_string()))?;
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.') {
            return Err(Error::usage("the App's ID is none"));
        }
        Ok(Self { id: id.to_owned(), installation, key: Arc::new(key) })
    }

    /// Path of the request that mints a token.
    pub(super) fn path(&self) -> String {
        format!("/app/installations/{}/access_tokens", self.installation)
    }

    /// The signed claim that this is the App, to be sent as a bearer token.
    pub(super) fn claim(&self, now: Timestamp) -> Result<Token> {
        let header = json!({ "alg": "RS256", "typ": "JWT" });
        let claim = json!({ "iat": now.minus(SKEW_SECS).secs(), "exp": now.plus(CLAIM_SECS).secs(), "iss": self.id });
        let part = |json: &serde_json::Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
        let signed = format!("{}.{}", part(&header), part(&claim));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| Error::new(Kind::Internal, "the App's key does not sign"))?;
        Token::new(&format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
    }
}

impl Minted {
    /// Reads GitHub's answer.
    pub(super) fn read(body: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Answer {
            token: String,
            expires_at: Timestamp,
        }
        let answer: Answer = serde_json::from_slice(body)
            .map_err(|cause| Error::new(Kind::Corrupt, "GitHub's answer holds no installation token").because(cause))?;
        Ok(Self { token: Token::new(&answer.token)?, until: answer.expires_at })
    }

    /// Whether it may still be used.
    pub(super) fn is_usable(&self, now: Timestamp) -> bool {
        now.plus(MARGIN_SECS) < self.until
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "App({}, installation {})", self.id, self.installation)
    }
}
