//! Where errors of a document lie (GraphQL, section 7.1.2), for a client whose text went up in normal form.
//!
//! Knows: which token of the one text is which of the other. Does not know: what the errors are.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::operation;

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    errors: Vec<Failure<'a>>,
}

#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(borrow)]
    locations: Option<&'a RawValue>,
}

/// A place in a text, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
struct Location {
    line: usize,
    column: usize,
}

/// A response to the normal form of `posted`, with locations as they are in the document that was posted. `None` where there is
/// nothing to change.
pub fn restored(response: &[u8], posted: &[u8]) -> Option<Bytes> {
    let text = std::str::from_utf8(response).ok()?;
    let errors = serde_json::from_str::<Response<'_>>(text).ok()?.errors;
    let places = Places::of(&operation::document(posted)?)?;
    let (mut out, mut copied) = (String::with_capacity(text.len()), 0);
    for raw in errors.iter().filter_map(|error| error.locations) {
        let Ok(locations) = serde_json::from_str::<Vec<Location>>(raw.get()) else { continue };
        let theirs = locations.iter().map(|location| places.in_document(*location)).collect::<Option<Vec<_>>>();
        // A place between tokens is none that we know.
        let Some(theirs) = theirs else { continue };
        // The raw text is a part of the response's.
        let at = raw.get().as_ptr() as usize - text.as_ptr() as usize;
        out.push_str(&text[copied..at]);
        let each = theirs.iter().map(|place| format!("{{\"line\":{},\"column\":{}}}", place.line, place.column));
        out.push_str(&format!("[{}]", each.collect::<Vec<_>>().join(",")));
        copied = at + raw.get().len();
    }
    if copied == 0 {
        return None;
    }
    out.push_str(&text[copied..]);
    Some(out.into())
}

/// Where each token is: in the normal form, and in the document.
struct Places(Vec<(Location, Location)>);

impl Places {
    fn of(document: &str) -> Option<Self> {
        let (mut normal, mut own) = (Cursor::default(), Cursor::default());
        let mut places = Vec::new();
        for (offset, token) in operation::tokens(document)? {
            own.advance(&document[own.offset..offset]);
            places.push((normal.location(), own.location()));
            own.advance(token);
            normal.advance(token);
            normal.advance(" ");
        }
        Some(Self(places))
    }

    fn in_document(&self, normal: Location) -> Option<Location> {
        self.0.iter().find(|(place, _)| *place == normal).map(|(_, own)| *own)
    }
}

/// A place in a text that is gone through once.
#[derive(Default)]
struct Cursor {
    offset: usize,
    lines: usize,
    columns: usize,
}

impl Cursor {
    fn advance(&mut self, text: &str) {
        self.offset += text.len();
        for char in text.chars() {
            if char == '\n' {
                self.lines += 1;
                self.columns = 0;
            } else {
                self.columns += 1;
            }
        }
    }

    fn location(&self) -> Location {
        Location { line: self.lines + 1, column: self.columns + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graphql::operation::Operation;

    const DOCUMENT: &str =
        "# who\nquery Q($n: Int!) {\n  viewer {\n    logn, name(text: \"ü\") wrong(first: $n)\n  }\n}\n";

    fn posted() -> Vec<u8> {
        serde_json::to_vec(&serde_json::json!({ "query": DOCUMENT, "variables": { "n": 1 } })).unwrap()
    }

    /// Where a word is in what goes up, as GitHub would say it.
    fn in_normal(word: &str) -> String {
        let Some(Operation::Query(query)) = operation::read(&posted()) else { panic!("a query") };
        let body: serde_json::Value = serde_json::from_slice(&query.body).unwrap();
        let text = body["query"].as_str().unwrap().to_owned();
        let column = text[..text.find(word).unwrap()].chars().count() + 1;
        format!("{{\"line\": 1, \"column\": {column}}}")
    }

    #[test]
    fn errors_lie_where_the_client_wrote_them() {
        let response = format!(
            "{{\"errors\": [ {{\"message\":\"a\",\"locations\":[{}]}}, {{\"locations\":[{},{}],\"path\":[1.50]}}, {{\"message\":\"b\"}}],\n\"data\":null}}",
            in_normal("logn"),
            in_normal("wrong"),
            in_normal("viewer"),
        );
        let restored = restored(response.as_bytes(), &posted()).unwrap();
        let want = "{\"errors\": [ {\"message\":\"a\",\"locations\":[{\"line\":4,\"column\":5}]}, \
             {\"locations\":[{\"line\":4,\"column\":27},{\"line\":3,\"column\":3}],\"path\":[1.50]}, {\"message\":\"b\"}],\n\"data\":null}";
        assert_eq!(std::str::from_utf8(&restored).unwrap(), want);
    }

    #[test]
    fn what_is_not_understood_stays() {
        for response in [
            &b"{}"[..],
            b"{\"errors\":[]}",
            b"{\"errors\":[{\"locations\":null}]}",
            b"{\"errors\":[{\"locations\":[{\"line\":9,\"column\":9}]}]}",
            b"{\"errors\":[{\"locations\":[{\"line\":-1,\"column\":2}]}]}",
            b"\xff",
            b"[",
        ] {
            assert_eq!(restored(response, &posted()), None, "{response:?}");
        }
        assert_eq!(restored(b"{\"errors\":[{\"locations\":[{\"line\":1,\"column\":1}]}]}", b"{"), None);
    }
}
