//! What a GraphQL request is: a question that a cache may answer, or something that changes things (D3).
//!
//! Knows: parsing, one normal form of equal questions, what a document asks about as far as a cache
//! must know. Does not know: caches. What does not parse is no question.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use apollo_parser::cst::{self, Definition, Selection};
use apollo_parser::{Lexer, Parser, TokenKind};
use bytes::Bytes;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Larger bodies are not looked into.
pub const MAX_BODY_BYTES: usize = 256 << 10;

/// Tokens and nesting of documents that are looked into.
const MAX_TOKENS: usize = 50_000;
const MAX_NESTING: usize = 200;

/// The document says what the moment is, whatever else it asks: never from a cache.
const LIVE: &str = "rateLimit";

/// Fields by which a document's TTL class is told, the shortest-lived first.
const CLASSES: &[(&str, &[&str])] = &[
    ("checks", &["statusCheckRollup", "checkSuites", "checkSuite", "checkRuns", "checkRun", "contexts"]),
    ("issues", &["issues", "issue", "pullRequests", "pullRequest", "issueOrPullRequest", "search"]),
];

/// What a GraphQL request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A question.
    Query(Query),
    /// A change, with its root fields; empty when they cannot be told.
    Mutation(Vec<String>),
    /// A stream of events; GitHub has none today.
    Subscription,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The request's body in normal form: equal questions have equal ones.
    pub body: Bytes,
    /// The TTL class of its answers.
    pub class: &'static str,
    /// Whether it asks for something that is true only now.
    pub live: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Posted<'a> {
    query: String,
    #[serde(borrow, default)]
    variables: Option<&'a RawValue>,
    #[serde(rename = "operationName", default)]
    operation_name: Option<String>,
}

/// An object's members. One that names a member twice is refused: readers differ in which of the two counts.
struct Members<'a>(BTreeMap<String, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = BTreeMap<String, &'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a member is there twice"));
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Each).map(Members)
    }
}

/// Reads a body. `None` for what is no single, well-formed operation: persisted queries, several at
/// once, extensions, broken text. Such a request is handed on as it is.
pub fn read(body: &[u8]) -> Option<Operation> {
    if body.len() > MAX_BODY_BYTES || crate::json::check_depth(body).is_err() {
        return None;
    }
    let posted: Posted<'_> = serde_json::from_slice(body).ok()?;
    let parsed = Parser::new(&posted.query).recursion_limit(MAX_NESTING).token_limit(MAX_TOKENS).parse();
    if parsed.errors().len() > 0 {
        return None;
    }
    let wanted = posted.operation_name.as_deref().filter(|name| !name.is_empty());
    let operation = selected(parsed.document(), wanted)?;
    let kind = operation.operation_type();
    if kind.as_ref().is_some_and(|kind| kind.subscription_token().is_some()) {
        return Some(Operation::Subscription);
    }
    let roots: Vec<Selection> = operation.selection_set().map(|set| set.selections().collect()).unwrap_or_default();
    if kind.as_ref().is_some_and(|kind| kind.mutation_token().is_some()) {
        return Some(Operation::Mutation(field_names(&roots).unwrap_or_default()));
    }
    let variables = match posted.variables.map(RawValue::get) {
        None | Some("null") => BTreeMap::new(),
        Some(text) => serde_json::from_str::<Members<'_>>(text).ok()?.0,
    };
    let tokens: Vec<(TokenKind, &str)> = significant(&posted.query)?;
    let names: Vec<&str> = tokens.iter().filter(|(kind, _)| *kind == TokenKind::Name).map(|(_, text)| *text).collect();
    Some(Operation::Query(Query {
        body: normal(&tokens, wanted, &variables)?,
        class: class_of(&roots, &names),
        live: names.contains(&LIVE),
    }))
}

/// Whether a body that [`read`] does not understand asks for one thing all the same: if GitHub cannot read the
/// document either, nothing is executed.
pub fn is_one_request(body: &[u8]) -> bool {
    body.len() <= MAX_BODY_BYTES && serde_json::from_slice::<Posted<'_>>(body).is_ok()
}

/// Whether a response says that nothing was executed: errors, and no data (GraphQL, section 7.1).
pub fn was_not_executed(response: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Response {
        errors: Option<Vec<IgnoredAny>>,
        #[serde(default, deserialize_with = "there")]
        data: bool,
    }
    fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| true)
    }
    let response = serde_json::from_slice::<Response>(response);
    response.is_ok_and(|response| !response.data && response.errors.is_some_and(|errors| !errors.is_empty()))
}

/// The operation that is to be executed: the named one, or the only one. None where names do not tell
/// operations apart (GraphQL, section 5.2): executors differ in which of them they take.
fn selected(document: cst::Document, wanted: Option<&str>) -> Option<cst::OperationDefinition> {
    let operations: Vec<_> = document
        .definitions()
        .filter_map(|definition| match definition {
            Definition::OperationDefinition(operation) => Some(operation),
            _ => None,
        })
        .collect();
    let name_of = |operation: &cst::OperationDefinition| operation.name().map(|name| name.text().to_string());
    let names: BTreeSet<Option<String>> = operations.iter().map(name_of).collect();
    if names.len() != operations.len() || (operations.len() > 1 && names.contains(&None)) {
        return None;
    }
    match wanted {
        Some(wanted) => operations.into_iter().find(|operation| name_of(operation).as_deref() == Some(wanted)),
        None if operations.len() == 1 => operations.into_iter().next(),
        None => None,
    }
}

/// Names of root fields; `None` when a fragment stands among them.
fn field_names(roots: &[Selection]) -> Option<Vec<String>> {
    let name = |selection: &Selection| match selection {
        Selection::Field(field) => field.name().map(|name| name.text().to_string()),
        Selection::FragmentSpread(_) | Selection::InlineFragment(_) => None,
    };
    roots.iter().map(name).collect()
}

/// The document that a body posts.
pub(super) fn document(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<Posted<'_>>(body).ok().map(|posted| posted.query)
}

/// The tokens of a document that stand in its normal form, and where each begins.
pub(super) fn tokens(document: &str) -> Option<Vec<(usize, &str)>> {
    let tokens = significant(document)?;
    // Each is a part of the document.
    Some(tokens.into_iter().map(|(_, text)| (text.as_ptr() as usize - document.as_ptr() as usize, text)).collect())
}

/// Everything but white space, commas and comments.
fn significant(document: &str) -> Option<Vec<(TokenKind, &str)>> {
    let (tokens, errors) = Lexer::new(document).with_limit(MAX_TOKENS).lex();
    let matters =
        |kind| !matches!(kind, TokenKind::Whitespace | TokenKind::Comment | TokenKind::Comma | TokenKind::Eof);
    let tokens = tokens.iter().filter(|token| matters(token.kind())).map(|token| (token.kind(), token.data()));
    errors.is_empty().then(|| tokens.collect())
}

/// The body that equal questions share: tokens with single spaces between, variables in order of name.
fn normal(
    tokens: &[(TokenKind, &str)],
    operation_name: Option<&str>,
    variables: &BTreeMap<String, &RawValue>,
) -> Option<Bytes> {
    let document = tokens.iter().map(|(_, text)| *text).collect::<Vec<_>>().join(" ");
    let mut body = String::from("{");
    if let Some(name) = operation_name {
        body.push_str(&format!("\"operationName\":{},", serde_json::to_string(name).ok()?));
    }
    body.push_str(&format!("\"query\":{}", serde_json::to_string(&document).ok()?));
    if !variables.is_empty() {
        body.push_str(",\"variables\":");
        write_object(variables, &mut body)?;
    }
    body.push('}');
    Some(body.into())
}

fn write_object(object: &BTreeMap<String, &RawValue>, out: &mut String) -> Option<()> {
    out.push('{');
    for (at, (name, value)) in object.iter().enumerate() {
        out.push_str(if at > 0 { "," } else { "" });
        out.push_str(&serde_json::to_string(name).ok()?);
        out.push(':');
        write_value(value.get(), out)?;
    }
    out.push('}');
    Some(())
}

/// Scalars keep their very text; the depth of the body was checked before.
fn write_value(text: &str, out: &mut String) -> Option<()> {
    match text.as_bytes().first()? {
        b'{' => write_object(&serde_json::from_str::<Members<'_>>(text).ok()?.0, out),
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                write_value(item.get(), out)?;
            }
            out.push(']');
            Some(())
        }
        _ => {
            out.push_str(text);
            Some(())
        }
    }
}

fn class_of(roots: &[Selection], names: &[&str]) -> &'static str {
    let fields = field_names(roots).unwrap_or_default();
    if !fields.is_empty() && fields.iter().all(|field| field.starts_with("__")) {
        // The schema changes with GitHub's releases.
        return "catalog";
    }
    let asks = |fields: &[&str]| fields.iter().any(|field| names.contains(field));
    CLASSES.iter().find(|(_, fields)| asks(fields)).map_or("graphql", |(class, _)| class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn body(query: &str, variables: serde_json::Value) -> Vec<u8> {
        serde_json::to_vec(&json!({ "query": query, "variables": variables })).unwrap()
    }

    fn query(text: &str, variables: serde_json::Value) -> Query {
        match read(&body(text, variables)) {
            Some(Operation::Query(query)) => query,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn equal_questions_have_one_form() {
        let one =
            query("query Q($b: Int, $a: Int) { x(a: $a, b: $b) { id } }", json!({ "b": 1, "a": { "z": 1, "y": [2] } }));
        let two = query(
            "# why\nquery Q($b: Int $a: Int){x(a:$a b:$b){\n  id,\n}}",
            json!({ "a": { "y": [2], "z": 1 }, "b": 1 }),
        );
        assert_eq!(one.body, two.body);
        // The normal form is its own.
        assert_eq!(read(&one.body), Some(Operation::Query(one.clone())));
        for other in [
            query("query Q($b: Int, $a: Int) { x(a: $a, b: $b) { id } }", json!({ "b": 2, "a": { "z": 1, "y": [2] } })),
            query("query Q($b: Int, $a: Int) { x(a: $a, b: $b) { id name } }", json!({ "b": 1 })),
            query("{ x(text: \"a  b\") { id } }", json!({})),
            query("{ x(text: \"a b\") { id } }", json!({})),
            query("{ x(text: \"\"\"a\n b\"\"\") { id } }", json!(null)),
        ] {
            assert_ne!(one.body, other.body);
        }
        let precise = br#"{"query":"query($n: Float){x(n:$n)}","variables":{"n":12345678901234567890.10}}"#;
        let Some(Operation::Query(precise)) = read(precise) else { panic!() };
        assert!(String::from_utf8_lossy(&precise.body).contains("12345678901234567890.10"));
    }

    #[test]
    fn changes_are_told_from_questions_by_parsing() {
        let kind = |text: &str| read(&body(text, json!({})));
        assert_eq!(
            kind("mutation($i: I!) { a: addStar(input: $i) { id } closeIssue(input: $i) { id } }"),
            Some(Operation::Mutation(vec!["addStar".into(), "closeIssue".into()]))
        );
        assert_eq!(
            kind("mutation { ...all } fragment all on Mutation { addStar { id } }"),
            Some(Operation::Mutation(vec![]))
        );
        assert_eq!(kind("subscription { x { id } }"), Some(Operation::Subscription));
        assert!(matches!(kind("# mutation\nquery mutation { mutation { id } }"), Some(Operation::Query(_))));
        // The named one counts; which one it is to be, if not named, cannot be told.
        let two = "query A { x { id } } mutation B { y { id } }";
        let named = |name: &str| read(&serde_json::to_vec(&json!({ "query": two, "operationName": name })).unwrap());
        assert!(matches!(named("A"), Some(Operation::Query(_))) && matches!(named("B"), Some(Operation::Mutation(_))));
        assert_eq!((kind(two), named("C")), (None, None));
        for broken in ["", "{", "query {", "mutation", "{ x(a: ) }", "query { x } }", "\u{0}"] {
            assert_eq!(kind(broken), None, "{broken}");
        }
        for odd in [
            &b"[]"[..],
            b"{}",
            b"{\"id\":\"persisted\"}",
            b"[{\"query\":\"{x}\"}]",
            b"{\"query\":\"{x}\",\"extensions\":{}}",
            b"\xef\xbb\xbf{\"query\":\"{x}\"}",
            b"{\"query\":\"{x}\"} {}",
            b"{\"query\":\"{x}\",\"query\":\"mutation{y}\"}",
            b"{\"query\":\"{x}\",\"\\u0071uery\":\"mutation{y}\"}",
            b"{\"query\":\"query A{x} mutation B{y}\",\"operationName\":\"A\",\"operationName\":\"B\"}",
            b"{\"query\":\"{x}\",\"variables\":{},\"variables\":{}}",
            b"{\"query\":\"{x}\",\"variables\":{\"a\":1,\"a\":2}}",
            b"{\"query\":\"{x}\",\"variables\":{\"a\":[{\"b\":1,\"\\u0062\":2}]}}",
            b"{\"query\":\"query Q{x} mutation Q{y}\",\"operationName\":\"Q\"}",
            b"{\"query\":\"query Q{x} {y}\",\"operationName\":\"Q\"}",
        ] {
            assert_eq!(read(odd), None);
        }
    }

    #[test]
    fn what_a_question_is_about() {
        let issues = "query IssueList($owner: String!, $repo: String!) { repository(owner: $owner, name: $repo) { issues { totalCount } } }";
        let list = query(issues, json!({ "owner": "Acme", "repo": "App" }));
        assert_eq!((list.class, list.live), ("issues", false));
        assert_eq!(query("{ viewer { login } }", json!({})).class, "graphql");
        assert_eq!(query("{ __type(name: \"X\") { name } }", json!({})).class, "catalog");
        assert_eq!(
            query("{ node { ...f } } fragment f on P { statusCheckRollup { state } }", json!({})).class,
            "checks"
        );
        assert!(query("{ viewer { login } rateLimit { remaining } }", json!({})).live);
    }

    #[test]
    fn only_errors_without_data_say_that_nothing_was_executed() {
        assert!(was_not_executed(br#"{"errors":[{"message":"Parse error"}]}"#));
        for other in [
            r#"{"data":null,"errors":[{}]}"#,
            r#"{"data":{}}"#,
            r#"{"errors":[]}"#,
            r#"{"errors":null}"#,
            "[]",
            "{}",
            "",
        ] {
            assert!(!was_not_executed(other.as_bytes()), "{other}");
        }
        assert!(is_one_request(br#"{"query":"{ broken"}"#));
        for other in [r#"[{"query":"{ broken"}]"#, r#"{"query":"a","query":"b"}"#, r#"{"query":"a","extensions":{}}"#] {
            assert!(!is_one_request(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn hostile_documents_end() {
        let deep = format!("{}x{}", "{a".repeat(100_000), "}".repeat(100_000));
        assert_eq!(read(&body(&deep, json!({}))), None);
        let nested = format!("{{\"query\":\"{{x}}\",\"variables\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(read(nested.as_bytes()), None);
        for (open, close) in [("[", "]"), ("{\"b\":", "}")] {
            let of = |levels: usize| {
                let (open, close) = (open.repeat(levels), close.repeat(levels));
                read(format!("{{\"query\":\"{{x}}\",\"variables\":{{\"a\":{open}1{close}}}}}").as_bytes())
            };
            assert!(of(90).is_some());
            assert_eq!((of(1_000), of(20_000)), (None, None));
        }
        let list = format!("{{ x(a: {}1{}) }}", "[".repeat(5_000), "]".repeat(5_000));
        assert_eq!(read(&body(&list, json!({}))), None);
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "[{}()\\[\\]:$@!a-z\"# \\n.=|&0-9\\\\]{0,60}") {
            if let Some(Operation::Query(query)) = read(&body(&text, json!({ "a": text }))) {
                prop_assert_eq!(read(&query.body), Some(Operation::Query(query)));
            }
        }
    }
}
