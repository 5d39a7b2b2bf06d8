//! The part of REST's answers that GraphQL has as well, so that a result looks the same whichever
//! way it came.
//!
//! Knows: names of fields, in REST's order. Does not know: GraphQL's names for them (`project`).

use serde_json::{Map, Value};

use super::Facet;

/// The fields of an object that are kept; those with a shape of their own are reduced further.
#[derive(Debug)]
pub struct Shape(pub &'static [(&'static str, Option<&'static Shape>)]);

/// A user, organisation or app.
pub static USER: Shape = Shape(&[
    ("login", None),
    ("id", None),
    ("node_id", None),
    ("avatar_url", None),
    ("url", None),
    ("html_url", None),
    ("type", None),
    ("site_admin", None),
]);

static LICENSE: Shape = Shape(&[("key", None), ("name", None), ("spdx_id", None), ("url", None), ("node_id", None)]);

/// A repository.
pub static REPO: Shape = Shape(&[
    ("id", None),
    ("node_id", None),
    ("name", None),
    ("full_name", None),
    ("private", None),
    ("owner", Some(&USER)),
    ("html_url", None),
    ("description", None),
    ("fork", None),
    ("url", None),
    ("created_at", None),
    ("updated_at", None),
    ("pushed_at", None),
    ("git_url", None),
    ("ssh_url", None),
    ("clone_url", None),
    ("svn_url", None),
    ("homepage", None),
    ("size", None),
    ("stargazers_count", None),
    ("watchers_count", None),
    ("language", None),
    ("has_issues", None),
    ("has_projects", None),
    ("has_wiki", None),
    ("has_discussions", None),
    ("forks_count", None),
    ("mirror_url", None),
    ("archived", None),
    ("disabled", None),
    ("open_issues_count", None),
    ("license", Some(&LICENSE)),
    ("allow_forking", None),
    ("is_template", None),
    ("web_commit_signoff_required", None),
    ("topics", None),
    ("visibility", None),
    ("forks", None),
    ("open_issues", None),
    ("watchers", None),
    ("default_branch", None),
]);

static LABEL: Shape = Shape(&[
    ("node_id", None),
    ("url", None),
    ("name", None),
    ("color", None),
    ("default", None),
    ("description", None),
]);

static MILESTONE: Shape = Shape(&[
    ("url", None),
    ("html_url", None),
    ("node_id", None),
    ("number", None),
    ("title", None),
    ("description", None),
    ("state", None),
    ("created_at", None),
    ("updated_at", None),
    ("closed_at", None),
    ("due_on", None),
]);

static PULL: Shape =
    Shape(&[("url", None), ("html_url", None), ("diff_url", None), ("patch_url", None), ("merged_at", None)]);

/// An issue or pull request.
pub static ISSUE: Shape = Shape(&[
    ("url", None),
    ("repository_url", None),
    ("labels_url", None),
    ("comments_url", None),
    ("events_url", None),
    ("html_url", None),
    ("id", None),
    ("node_id", None),
    ("number", None),
    ("title", None),
    ("user", Some(&USER)),
    ("labels", Some(&LABEL)),
    ("state", None),
    ("locked", None),
    ("assignee", Some(&USER)),
    ("assignees", Some(&USER)),
    ("milestone", Some(&MILESTONE)),
    ("comments", None),
    ("created_at", None),
    ("updated_at", None),
    ("closed_at", None),
    ("author_association", None),
    ("active_lock_reason", None),
    ("draft", None),
    ("pull_request", Some(&PULL)),
    ("body", None),
    ("timeline_url", None),
    ("state_reason", None),
]);

impl Facet {
    /// The shape of its answer, or of each element; `None` where both APIs have everything.
    pub fn shape(self) -> Option<&'static Shape> {
        match self {
            Facet::Repo | Facet::OrgRepos => Some(&REPO),
            Facet::Issues(_) => Some(&ISSUE),
            Facet::Languages => None,
        }
    }
}

impl Shape {
    /// Reduces a value, or each element of a list, to this shape. What REST leaves out stays out.
    pub fn reduce(&self, value: &Value) -> Value {
        match value {
            Value::Array(items) => items.iter().map(|item| self.reduce(item)).collect(),
            Value::Object(fields) => {
                let mut kept = Map::new();
                for (name, shape) in self.0 {
                    if let Some(value) = fields.get(*name) {
                        kept.insert(
                            (*name).to_owned(),
                            shape.map_or_else(|| value.clone(), |shape| shape.reduce(value)),
                        );
                    }
                }
                Value::Object(kept)
            }
            other => other.clone(),
        }
    }
}

/// REST's answer reduced to what both APIs have, as compact JSON; `None` when it is no JSON.
pub fn reduce(facet: Facet, body: &[u8]) -> Option<Vec<u8>> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let reduced = facet.shape().map_or_else(|| value.clone(), |shape| shape.reduce(&value));
    serde_json::to_vec(&reduced).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_depth() {
        let rest = br#"[{"private":false,"owner":{"type":"User","login":"o","followers_url":"x"},"id":1,"extra":[1]}]"#;
        let reduced = reduce(Facet::OrgRepos, rest).unwrap();
        assert_eq!(reduced, br#"[{"id":1,"private":false,"owner":{"login":"o","type":"User"}}]"#);
        assert_eq!(reduce(Facet::Languages, b"{\"b\": 2, \"a\": 1}").unwrap(), b"{\"b\":2,\"a\":1}");
    }
}
