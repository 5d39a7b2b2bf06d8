//! Whose view of GitHub an entry shows (A2).
//!
//! Knows: how an identity is named inside a key. Does not know: how requests are signed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::token::Token;

/// The identity scope of an entry. What one partition stored never answers another.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(String);

impl Partition {
    /// Requests without a token.
    pub fn public() -> Self {
        Self("public".into())
    }

    /// A job's `GITHUB_TOKEN`: it changes with every job but always stands for its repository.
    pub fn repository(full_name: &str) -> Result<Self> {
        Self::checked("repo", full_name)
    }

    /// A personal or other lasting token: a keyed digest of it.
    pub fn token(token: &Token) -> Self {
        Self(format!("token:{}", token.digest()))
    }

    /// An App's installation.
    pub fn installation(id: u64) -> Self {
        Self(format!("installation:{id}"))
    }

    /// A name that the user chose (`--partition`).
    pub fn named(name: &str) -> Result<Self> {
        if name == "public" { Ok(Self::public()) } else { Self::checked("name", name) }
    }

    /// The repository (`owner/name`, lower case) whose job tokens this stands for: many tokens, which differ in
    /// what they may do.
    pub fn job_repository(&self) -> Option<&str> {
        self.0.strip_prefix("repo:")
    }

    /// Reads a name that [`Partition::as_str`] gave; `None` when it cannot be one.
    pub fn read_back(name: &str) -> Option<Self> {
        let (scheme, rest) = name.split_once(':').unwrap_or(("", name));
        let fits = match scheme {
            "" => rest == "public",
            "repo" | "name" => return Self::checked(scheme, rest).ok(),
            "token" | "installation" => {
                !rest.is_empty() && rest.len() <= 64 && rest.bytes().all(|b| b.is_ascii_alphanumeric())
            }
            _ => false,
        };
        fits.then(|| Self(name.to_owned()))
    }

    fn checked(scheme: &str, name: &str) -> Result<Self> {
        let fits = !name.is_empty()
            && name.len() <= 200
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./:@".contains(&b));
        if !fits {
            return Err(Error::usage(format!("`{}` is no partition name", name.escape_debug()))
                .hint("use up to 200 letters, digits and -_./:@"));
        }
        Ok(Self(format!("{scheme}:{}", name.to_ascii_lowercase())))
    }

    /// The name as it stands in keys.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotating_job_token_keeps_its_partition() {
        let repository = Partition::repository("Acme/App").unwrap();
        assert_eq!(repository.as_str(), "repo:acme/app");
        let [a, b] = ["ghp_a", "ghp_b"].map(|text| Partition::token(&Token::new(text).unwrap()));
        assert_ne!(a, b);
        assert!(Partition::named("no spaces").is_err());
        for partition in
            [repository, a, Partition::installation(7), Partition::public(), Partition::named("x/y").unwrap()]
        {
            assert_eq!(Partition::read_back(partition.as_str()), Some(partition));
        }
        for foreign in ["", "token:", "token:../x", "repo:a b", "other:x", "publicx"] {
            assert_eq!(Partition::read_back(foreign), None, "{foreign}");
        }
    }
}
