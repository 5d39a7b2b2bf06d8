//! Who a client is, by its `Authorization` header.
//!
//! Knows: the forms that GitHub takes (GitHub, "Authenticating to the REST API"). Does not know:
//! identities.

use data_encoding::BASE64;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::address;
use crate::token::Token;

/// What a request's `Authorization` says.
#[derive(Debug)]
pub(super) enum Credentials {
    /// Nothing.
    None,
    /// A token, whichever way it is written.
    Token(Token),
    /// Something that names no lasting view of GitHub: an App's own short-lived claim, an OAuth
    /// application's secret, or what is not understood. It is handed on and never cached.
    Other,
}

impl Credentials {
    /// Reads the header.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = values.next() else { return Credentials::None };
        let (Ok(text), None) = (value.to_str(), values.next()) else { return Credentials::Other };
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text, ""));
        let token = match scheme.to_ascii_lowercase().as_str() {
            "token" | "bearer" if !is_claim(rest) => Some(rest.trim().to_owned()),
            "basic" => password(rest),
            _ => None,
        };
        token.and_then(|token| Token::new(&token).ok()).map_or(Credentials::Other, Credentials::Token)
    }
}

/// Whether a token is a JSON Web Token, such as an App signs for itself: each is good for minutes.
fn is_claim(token: &str) -> bool {
    token.trim_start().starts_with("eyJ") && token.matches('.').count() == 2
}

/// A token as the password, or as the name with any password; both are usual.
fn password(encoded: &str) -> Option<String> {
    let text = String::from_utf8(BASE64.decode(encoded.trim().as_bytes()).ok()?).ok()?;
    let (name, password) = text.split_once(':')?;
    [password, name].into_iter().find(|text| address::looks_like_token(text)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(value: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        match Credentials::of(&headers) {
            Credentials::Token(token) => Some(token.digest()),
            Credentials::None => panic!("there is a header"),
            Credentials::Other => None,
        }
    }

    #[test]
    fn one_token_in_every_form_is_one() {
        let token = Some(Token::new("ghp_abc").unwrap().digest());
        let basic = |text: &str| format!("Basic {}", BASE64.encode(text.as_bytes()));
        for form in [
            "token ghp_abc",
            "Bearer ghp_abc",
            "bearer  ghp_abc",
            &basic("me:ghp_abc"),
            &basic("ghp_abc:x-oauth-basic"),
        ] {
            assert_eq!(digest(form), token, "{form}");
        }
        for other in
            ["Bearer eyJhbGciOi.eyJpYXQi.c2ln", &basic("client-id:client-secret"), "Basic !!", "Digest x", "token", ""]
        {
            assert_eq!(digest(other), None, "{other}");
        }
        assert!(matches!(Credentials::of(&HeaderMap::new()), Credentials::None));
    }
}
