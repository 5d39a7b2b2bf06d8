//! The simulation's GraphQL: a small executor over the REST documents, with GitHub's cost rule,
//! node limit, partial data and time-outs. Documents are parsed, never guessed.

use std::collections::BTreeMap;

use bytes::Bytes;
use graphql_parser::query::{self, Definition, OperationDefinition, TypeCondition};
use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::{Answer, Doc, State, plain};

type Document = query::Document<'static, String>;
type Field = query::Field<'static, String>;
type Selection = query::Selection<'static, String>;
type SelectionSet = query::SelectionSet<'static, String>;
type Arg = query::Value<'static, String>;
type Fragments<'a> = BTreeMap<&'a str, &'a SelectionSet>;

/// A value before selection: objects are open until a selection says what of them is wanted.
enum Node {
    Scalar(Value),
    Object(BTreeMap<&'static str, Node>),
    List(Vec<Node>),
    /// A connection; arguments say which part of it.
    Connection(Vec<Node>, Kind),
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Nodes,
    /// `languages`: edges carry a size.
    Sized,
    /// `issues` and `pullRequests`, which `states` narrows.
    Stateful,
}

struct Problem {
    kind: &'static str,
    path: Vec<Value>,
    message: String,
    at: graphql_parser::Pos,
}

impl Problem {
    fn shown(self) -> Value {
        let Self { kind, path, message, at } = self;
        let locations = json!([{ "line": at.line, "column": at.column }]);
        json!({ "type": kind, "path": path, "locations": locations, "message": message })
    }
}

impl State {
    /// Answers a document; with it comes its cost in points.
    pub(super) fn graphql(&mut self, headers: &HeaderMap, body: &Bytes) -> (Answer, u64) {
        let Ok(account) = self.account(headers) else {
            return (plain(401, &json!({ "message": "Bad credentials" })), 0);
        };
        if account == "anonymous" {
            return (plain(401, &json!({ "message": "This endpoint requires you to be authenticated." })), 0);
        }
        let request: Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(text) = request["query"].as_str() else {
            let errors = json!([{ "message": "A query attribute must be specified and must be a string." }]);
            return (plain(200, &json!({ "errors": errors })), 1);
        };
        let document: Document = match graphql_parser::parse_query::<String>(text) {
            Ok(document) => document.into_static(),
            Err(error) => return (plain(200, &json!({ "errors": [{ "message": error.to_string() }] })), 1),
        };
        let mut document = document;
        fill_in(&mut document, &request["variables"]);
        // gh's own queries are named, and ask for more than this simulation knows: that is null.
        let lenient = text.contains("query ") || text.contains("mutation");
        let (mut fragments, mut root) = (Fragments::new(), None);
        for definition in &document.definitions {
            match definition {
                Definition::Fragment(fragment) => {
                    fragments.insert(&fragment.name, &fragment.selection_set);
                }
                Definition::Operation(OperationDefinition::SelectionSet(set)) => root = Some(set),
                Definition::Operation(OperationDefinition::Query(query)) => root = Some(&query.selection_set),
                Definition::Operation(OperationDefinition::Mutation(mutation)) => {
                    let names = mutation.selection_set.items.iter().filter_map(|item| match item {
                        Selection::Field(field) => Some((field.name.clone(), Value::Null)),
                        _ => None,
                    });
                    return (plain(200, &json!({ "data": names.collect::<Map<_, _>>() })), 1);
                }
                Definition::Operation(OperationDefinition::Subscription(_)) => {}
            }
        }
        let root = root.unwrap();
        let (requests, nodes) = weigh(root, &fragments, 1);
        let cost = ((requests as f64 / 100.0).round() as u64).max(1);
        let (limit, used, _) = self.used(&account, "graphql");
        if used + cost > limit {
            let errors = json!([{ "type": "RATE_LIMITED", "message": "API rate limit exceeded" }]);
            // What is left cannot pay for it: GitHub says so with nothing left.
            return (plain(200, &json!({ "errors": errors })), limit - used);
        }
        if nodes > 500_000 {
            let errors = json!([{ "type": "MAX_NODE_LIMIT_EXCEEDED", "message": "too many nodes" }]);
            return (plain(200, &json!({ "errors": errors })), 1);
        }
        let aliases = root.items.len();
        if aliases > self.graphql_max_aliases {
            return (plain(502, &json!({ "message": "Server Error" })), cost);
        }
        let mut problems = Vec::new();
        let mut data = Map::new();
        for field in fields(root, &fragments, "Query") {
            let name = field.alias.as_ref().unwrap_or(&field.name);
            let path = vec![json!(name)];
            let value = match field.name.as_str() {
                "rateLimit" => json!({ "cost": cost, "remaining": limit - used - cost, "limit": limit }),
                "viewer" => json!({ "login": account }),
                "__type" => json!({ "name": text_arg(field, "name"), "fields": [{ "name": "stateReason" }] }),
                "repository" | "organization" => {
                    let (what, full, node) = if field.name == "repository" {
                        let full = format!("{}/{}", text_arg(field, "owner"), text_arg(field, "name"));
                        let node = self.repository(&full, &account);
                        ("a Repository with the name", full, node)
                    } else {
                        let login = text_arg(field, "login");
                        let node = self.organization(&login, &account);
                        ("an Organization with the login of", login, node)
                    };
                    if let Some(node) = node {
                        select(&node, &field.selection_set, &fragments, field, lenient)
                    } else {
                        let message = format!("Could not resolve to {what} '{full}'.");
                        problems.push(Problem { kind: "NOT_FOUND", path, message, at: field.position });
                        Value::Null
                    }
                }
                other => panic!("the simulation has no field {other}"),
            };
            data.insert(name.clone(), value);
        }
        if aliases > self.graphql_max_nodes_aliases {
            let last = data.keys().next_back().cloned().unwrap_or_default();
            data.insert(last.clone(), Value::Null);
            let message = "Resource limits for this query exceeded.".to_owned();
            problems.push(Problem {
                kind: "RESOURCE_LIMITS_EXCEEDED",
                path: vec![json!(last)],
                message,
                at: root.span.0,
            });
        }
        let mut answer = json!({ "data": data });
        if !problems.is_empty() {
            answer["errors"] = problems.into_iter().map(Problem::shown).collect();
        }
        (plain(200, &answer), cost)
    }

    fn visible(&self, path: &str, account: &str) -> bool {
        self.visible_to.get(path).is_none_or(|accounts| accounts.iter().any(|name| name == account))
    }

    fn json_at(&self, path: &str) -> Option<Value> {
        match self.docs.get(path)? {
            Doc::Json { body, .. } => Some(body.clone()),
            Doc::List { items, .. } => Some(Value::Array(items.clone())),
            Doc::Redirect(to) => self.json_at(to),
            _ => None,
        }
    }

    fn repository(&self, full: &str, account: &str) -> Option<Node> {
        let path = format!("/repos/{full}");
        if !self.visible(&path, account) {
            return None;
        }
        let rest = self.json_at(&path)?;
        Some(repository(self, &rest))
    }

    fn organization(&self, login: &str, account: &str) -> Option<Node> {
        let path = format!("/orgs/{login}/repos");
        let repositories = self.json_at(&path).filter(|_| self.visible(&path, account))?;
        let nodes = repositories.as_array()?.iter().map(|rest| repository(self, rest)).collect();
        Some(Node::Object(BTreeMap::from([("repositories", Node::Connection(nodes, Kind::Nodes))])))
    }
}

fn scalar(value: &Value) -> Node {
    Node::Scalar(value.clone())
}

fn upper(value: &Value) -> Node {
    Node::Scalar(value.as_str().map_or(Value::Null, |text| json!(text.to_uppercase().replace(' ', "_"))))
}

fn repository(state: &State, rest: &Value) -> Node {
    let full = rest["full_name"].as_str().unwrap_or_default();
    let issues = state.json_at(&format!("/repos/{full}/issues")).unwrap_or_else(|| json!([]));
    let (pulls, issues): (Vec<_>, Vec<_>) =
        issues.as_array().cloned().unwrap_or_default().into_iter().partition(|item| !item["pull_request"].is_null());
    let languages = state.json_at(&format!("/repos/{full}/languages")).unwrap_or_default();
    let languages = languages.as_object().cloned().unwrap_or_default().into_iter().map(|(name, size)| {
        let node = Node::Object(BTreeMap::from([("name", Node::Scalar(json!(name)))]));
        Node::Object(BTreeMap::from([("size", Node::Scalar(size)), ("node", node)]))
    });
    let topics = rest["topics"].as_array().cloned().unwrap_or_default().into_iter().map(|name| {
        let topic = Node::Object(BTreeMap::from([("name", Node::Scalar(name))]));
        Node::Object(BTreeMap::from([("topic", topic)]))
    });
    let mut fields: BTreeMap<&'static str, Node> = [
        ("databaseId", "id"),
        ("id", "node_id"),
        ("name", "name"),
        ("nameWithOwner", "full_name"),
        ("isPrivate", "private"),
        ("url", "html_url"),
        ("description", "description"),
        ("isFork", "fork"),
        ("createdAt", "created_at"),
        ("updatedAt", "updated_at"),
        ("pushedAt", "pushed_at"),
        ("sshUrl", "ssh_url"),
        ("homepageUrl", "homepage"),
        ("diskUsage", "size"),
        ("stargazerCount", "stargazers_count"),
        ("forkCount", "forks_count"),
        ("hasIssuesEnabled", "has_issues"),
        ("hasProjectsEnabled", "has_projects"),
        ("hasWikiEnabled", "has_wiki"),
        ("hasDiscussionsEnabled", "has_discussions"),
        ("mirrorUrl", "mirror_url"),
        ("isArchived", "archived"),
        ("isDisabled", "disabled"),
        ("isTemplate", "is_template"),
        ("forkingAllowed", "allow_forking"),
        ("webCommitSignoffRequired", "web_commit_signoff_required"),
    ]
    .into_iter()
    .map(|(name, field)| (name, scalar(&rest[field])))
    .collect();
    fields.insert("owner", actor(&rest["owner"]));
    fields.insert("visibility", upper(&rest["visibility"]));
    fields.insert("primaryLanguage", named(&rest["language"]));
    fields.insert("defaultBranchRef", named(&rest["default_branch"]));
    fields.insert("licenseInfo", license(&rest["license"]));
    fields.insert("repositoryTopics", Node::Connection(topics.collect(), Kind::Nodes));
    let releases = state.json_at(&format!("/repos/{full}/releases")).unwrap_or_else(|| json!([]));
    let release = |rest: &Value| {
        let names =
            [("name", "name"), ("tagName", "tag_name"), ("publishedAt", "published_at"), ("createdAt", "published_at")];
        let mut fields: BTreeMap<_, _> = names.into_iter().map(|(name, field)| (name, scalar(&rest[field]))).collect();
        for flag in ["isDraft", "isLatest", "isPrerelease"] {
            fields.insert(flag, Node::Scalar(json!(false)));
        }
        Node::Object(fields)
    };
    let releases = releases.as_array().cloned().unwrap_or_default().iter().map(release).collect();
    fields.insert("releases", Node::Connection(releases, Kind::Nodes));
    fields.insert("languages", Node::Connection(languages.collect(), Kind::Sized));
    fields.insert("issues", Node::Connection(issues.iter().map(issue).collect(), Kind::Stateful));
    fields.insert("pullRequests", Node::Connection(pulls.iter().map(issue).collect(), Kind::Stateful));
    Node::Object(fields)
}

fn named(name: &Value) -> Node {
    if name.is_null() {
        return Node::Scalar(Value::Null);
    }
    Node::Object(BTreeMap::from([("name", scalar(name))]))
}

fn license(rest: &Value) -> Node {
    if rest.is_null() {
        return Node::Scalar(Value::Null);
    }
    let fields = [("key", "key"), ("name", "name"), ("spdxId", "spdx_id"), ("id", "node_id")];
    Node::Object(fields.into_iter().map(|(name, field)| (name, scalar(&rest[field]))).collect())
}

fn actor(rest: &Value) -> Node {
    if rest.is_null() {
        return Node::Scalar(Value::Null);
    }
    let login = rest["login"].as_str().unwrap_or_default();
    let mut fields = BTreeMap::from([
        ("__typename", scalar(&rest["type"])),
        ("login", Node::Scalar(json!(login.trim_end_matches("[bot]")))),
        ("id", scalar(&rest["node_id"])),
        ("databaseId", scalar(&rest["id"])),
        ("url", scalar(&rest["html_url"])),
        ("isSiteAdmin", scalar(&rest["site_admin"])),
    ]);
    let avatar = rest["avatar_url"].as_str().map(|url| url.replace("?v=", "?u=0123456789abcdef&v="));
    fields.insert("avatarUrl", Node::Scalar(json!(avatar)));
    Node::Object(fields)
}

fn issue(rest: &Value) -> Node {
    let mut fields: BTreeMap<&'static str, Node> = [
        ("id", "node_id"),
        ("number", "number"),
        ("title", "title"),
        ("locked", "locked"),
        ("url", "html_url"),
        ("createdAt", "created_at"),
        ("updatedAt", "updated_at"),
        ("closedAt", "closed_at"),
        ("authorAssociation", "author_association"),
        ("body", "body"),
        ("isDraft", "draft"),
    ]
    .into_iter()
    .map(|(name, field)| (name, scalar(&rest[field])))
    .collect();
    fields.insert("fullDatabaseId", Node::Scalar(json!(rest["id"].to_string())));
    fields.insert("state", upper(&rest["state"]));
    fields.insert("stateReason", upper(&rest["state_reason"]));
    fields.insert("activeLockReason", upper(&rest["active_lock_reason"]));
    fields.insert("mergedAt", scalar(&rest["pull_request"]["merged_at"]));
    fields.insert("author", actor(&rest["user"]));
    let comments = Node::Object(BTreeMap::from([("totalCount", scalar(&rest["comments"]))]));
    fields.insert("comments", comments);
    let labels = rest["labels"].as_array().cloned().unwrap_or_default();
    let label = |rest: &Value| {
        let names = [("id", "node_id"), ("name", "name"), ("color", "color"), ("description", "description")];
        let mut fields: BTreeMap<_, _> = names.into_iter().map(|(name, field)| (name, scalar(&rest[field]))).collect();
        fields.insert("isDefault", scalar(&rest["default"]));
        Node::Object(fields)
    };
    fields.insert("labels", Node::Connection(labels.iter().map(label).collect(), Kind::Nodes));
    let assignees = rest["assignees"].as_array().cloned().unwrap_or_default();
    fields.insert("assignees", Node::Connection(assignees.iter().map(actor).collect(), Kind::Nodes));
    let milestone = &rest["milestone"];
    let names = [
        ("id", "node_id"),
        ("number", "number"),
        ("title", "title"),
        ("description", "description"),
        ("url", "html_url"),
        ("createdAt", "created_at"),
        ("updatedAt", "updated_at"),
        ("closedAt", "closed_at"),
        ("dueOn", "due_on"),
    ];
    let milestone = if milestone.is_null() {
        Node::Scalar(Value::Null)
    } else {
        let mut fields: BTreeMap<_, _> =
            names.into_iter().map(|(name, field)| (name, scalar(&milestone[field]))).collect();
        fields.insert("state", upper(&milestone["state"]));
        Node::Object(fields)
    };
    fields.insert("milestone", milestone);
    Node::Object(fields)
}

/// Puts values in place of variables.
fn fill_in(document: &mut Document, variables: &Value) {
    fn value(json: &Value) -> Arg {
        match json {
            Value::Null => Arg::Null,
            Value::Bool(yes) => Arg::Boolean(*yes),
            Value::Number(number) => Arg::Int((number.as_i64().unwrap_or(0) as i32).into()),
            // As a variable, a name of an enumeration is text.
            Value::String(text) if matches!(text.as_str(), "OPEN" | "CLOSED" | "MERGED") => Arg::Enum(text.clone()),
            Value::String(text) => Arg::String(text.clone()),
            Value::Array(items) => Arg::List(items.iter().map(value).collect()),
            Value::Object(fields) => {
                Arg::Object(fields.iter().map(|(name, json)| (name.clone(), value(json))).collect())
            }
        }
    }
    fn walk(set: &mut SelectionSet, variables: &Value) {
        for item in &mut set.items {
            match item {
                Selection::Field(field) => {
                    for (_, argument) in &mut field.arguments {
                        if let Arg::Variable(name) = argument {
                            *argument = value(&variables[name.as_str()]);
                        }
                    }
                    walk(&mut field.selection_set, variables);
                }
                Selection::InlineFragment(inline) => walk(&mut inline.selection_set, variables),
                Selection::FragmentSpread(_) => {}
            }
        }
    }
    for definition in &mut document.definitions {
        match definition {
            Definition::Fragment(fragment) => walk(&mut fragment.selection_set, variables),
            Definition::Operation(OperationDefinition::Query(query)) => walk(&mut query.selection_set, variables),
            Definition::Operation(OperationDefinition::SelectionSet(set)) => walk(set, variables),
            Definition::Operation(_) => {}
        }
    }
}

fn text_arg(field: &Field, name: &str) -> String {
    match field.arguments.iter().find(|(key, _)| key == name) {
        Some((_, Arg::String(text))) => text.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

fn int_arg(field: &Field, name: &str) -> Option<u64> {
    match field.arguments.iter().find(|(key, _)| key == name) {
        Some((_, Arg::Int(number))) => number.as_i64().map(|number| number as u64),
        _ => None,
    }
}

/// The fields of a selection on an object of type `kind`, fragments followed.
fn fields<'a>(set: &'a SelectionSet, fragments: &Fragments<'a>, kind: &str) -> Vec<&'a Field> {
    let mut found = Vec::new();
    for item in &set.items {
        match item {
            Selection::Field(field) => found.push(field),
            Selection::FragmentSpread(spread) => {
                found.extend(fields(fragments[spread.fragment_name.as_str()], fragments, kind));
            }
            Selection::InlineFragment(inline) => {
                let on = inline.type_condition.as_ref().map(|TypeCondition::On(name)| name.as_str());
                // Interfaces that every actor here is of.
                if on.is_none_or(|on| on == kind || on == "Actor") {
                    found.extend(fields(&inline.selection_set, fragments, kind));
                }
            }
        }
    }
    found
}

fn select(node: &Node, set: &SelectionSet, fragments: &Fragments<'_>, field: &Field, lenient: bool) -> Value {
    match node {
        Node::Scalar(value) => value.clone(),
        Node::List(items) => items.iter().map(|item| select(item, set, fragments, field, lenient)).collect(),
        Node::Object(known) => {
            let kind = match known.get("__typename") {
                Some(Node::Scalar(Value::String(kind))) => kind.as_str(),
                _ => "",
            };
            let mut out = Map::new();
            for wanted in fields(set, fragments, kind) {
                let value = match known.get(wanted.name.as_str()) {
                    Some(child) => select(child, &wanted.selection_set, fragments, wanted, lenient),
                    None if lenient => Value::Null,
                    None => panic!("the simulation has no {}", wanted.name),
                };
                out.insert(wanted.alias.as_ref().unwrap_or(&wanted.name).clone(), value);
            }
            Value::Object(out)
        }
        Node::Connection(items, kind) => {
            let items: Vec<&Node> =
                items.iter().filter(|item| *kind != Kind::Stateful || in_state(item, field)).collect();
            let after: usize = match field.arguments.iter().find(|(key, _)| key == "after") {
                Some((_, Arg::String(cursor))) => cursor.parse().unwrap(),
                _ => 0,
            };
            let first = int_arg(field, "first").map_or(0, |first| first as usize);
            let part: Vec<&&Node> = items.iter().skip(after).take(first).collect();
            let end = after + part.len();
            let mut out = Map::new();
            for wanted in fields(set, fragments, "") {
                let value = match wanted.name.as_str() {
                    "totalCount" => json!(items.len()),
                    "pageInfo" => json!({ "hasNextPage": end < items.len(), "endCursor": end.to_string() }),
                    "nodes" | "edges" => {
                        assert!((1..=100).contains(&first), "MISSING_PAGINATION_BOUNDARIES on {}", field.name);
                        part.iter()
                            .map(|item| select(item, &wanted.selection_set, fragments, wanted, lenient))
                            .collect()
                    }
                    other => panic!("a connection has no {other}"),
                };
                out.insert(wanted.alias.as_ref().unwrap_or(&wanted.name).clone(), value);
            }
            Value::Object(out)
        }
    }
}

fn in_state(item: &Node, field: &Field) -> bool {
    let states: Vec<&str> = match field.arguments.iter().find(|(key, _)| key == "states") {
        Some((_, Arg::Enum(state))) => vec![state.as_str()],
        Some((_, Arg::List(states))) => {
            states.iter().map(|state| if let Arg::Enum(name) = state { name.as_str() } else { "" }).collect()
        }
        _ => return true,
    };
    let Node::Object(fields) = item else { return true };
    matches!(&fields["state"], Node::Scalar(Value::String(state)) if states.contains(&state.as_str()))
}

/// Requests that connections need, by the documentation's rule, and the nodes that may come.
fn weigh(set: &SelectionSet, fragments: &Fragments<'_>, times: u64) -> (u64, u64) {
    let (mut requests, mut nodes) = (0, 0);
    for item in &set.items {
        let (more, many) = match item {
            Selection::Field(field) => match int_arg(field, "first") {
                Some(first) => {
                    let (inner, below) = weigh(&field.selection_set, fragments, times * first);
                    (times + inner, times * first + below)
                }
                None => weigh(&field.selection_set, fragments, times),
            },
            Selection::FragmentSpread(spread) => weigh(fragments[spread.fragment_name.as_str()], fragments, times),
            Selection::InlineFragment(inline) => weigh(&inline.selection_set, fragments, times),
        };
        requests += more;
        nodes += many;
    }
    (requests, nodes)
}
