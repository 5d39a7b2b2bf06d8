//! The documents: one alias per repository or organisation, with the fields of every facet asked
//! of it, and for long connections their next pages.
//!
//! Knows: GitHub's bounds of nodes and its rule of cost ("Rate limits and query limits for the
//! GraphQL API"). Does not know: who sends them.

use std::fmt::Write;

use super::{Facet, Item, State};

/// Elements of a connection that are asked for at first: most repositories have fewer, and the
/// cost of what is nested in them is paid for whether they are there or not.
const FIRST_ISSUES: usize = 10;

/// Elements of each further page; GitHub's maximum.
const FURTHER: usize = 100;

/// Nested elements of an issue: labels and assignees. GitHub allows 100 labels, people use few.
const NESTED: usize = 10;

/// A connection that may have more pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Connection {
    /// Of an organisation.
    Repositories,
    /// Of a repository.
    Languages,
    /// Of a repository; pull requests are apart in GraphQL.
    Issues(State),
    /// Of a repository.
    PullRequests(State),
}

/// What is asked of one alias: whole facets, or the next page of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The connection; `None` for what has none.
    pub connection: Option<Connection>,
    /// Its cursor; `None` for the first page.
    pub after: Option<String>,
}

impl Facet {
    /// What is asked for at first.
    pub fn parts(self) -> Vec<Part> {
        let part = |connection| Part { connection, after: None };
        match self {
            Facet::OrgRepos => vec![part(Some(Connection::Repositories))],
            Facet::Repo => vec![part(None)],
            Facet::Languages => vec![part(Some(Connection::Languages))],
            Facet::Issues(state) => {
                vec![part(Some(Connection::Issues(state))), part(Some(Connection::PullRequests(state)))]
            }
        }
    }
}

impl Connection {
    /// Its name in answers.
    pub fn name(self) -> &'static str {
        match self {
            Connection::Repositories => "repositories",
            Connection::Languages => "languages",
            Connection::Issues(_) => "issues",
            Connection::PullRequests(_) => "pullRequests",
        }
    }

    fn first(self, after: Option<&str>) -> usize {
        match self {
            Connection::Issues(_) | Connection::PullRequests(_) if after.is_none() => FIRST_ISSUES,
            _ => FURTHER,
        }
    }
}

/// The text of a document that asks for `parts` of each item; the alias of an item is `i` and its
/// place.
pub fn document(wanted: &[(&Item, &[Part])]) -> String {
    let mut text = String::from("query{rateLimit{cost remaining}");
    for (place, (item, parts)) in wanted.iter().enumerate() {
        let (owner, name) = (&item.owner, &item.name);
        let _infallible = match item.facet {
            Facet::OrgRepos => write!(text, " i{place}:organization(login:\"{owner}\"){{"),
            _ => write!(text, " i{place}:repository(owner:\"{owner}\",name:\"{name}\"){{nameWithOwner "),
        };
        for part in *parts {
            write_part(&mut text, part);
        }
        text.push('}');
    }
    text.push('}');
    for (name, fragment) in FRAGMENTS {
        if text.contains(&format!("...{name}}}")) || text.contains(&format!("...{name} ")) {
            text.push_str(fragment);
        }
    }
    text
}

fn write_part(text: &mut String, part: &Part) {
    let Some(connection) = part.connection else {
        text.push_str("...Repo ");
        return;
    };
    let after = part.after.as_deref();
    let first = connection.first(after);
    let cursor = after.map_or_else(String::new, |after| format!(",after:{}", serde_json::Value::from(after)));
    let states = |state, closed| match state {
        State::Open => ",states:[OPEN]",
        State::Closed => closed,
        State::All => "",
    };
    let newest = ",orderBy:{field:CREATED_AT,direction:DESC}";
    let (arguments, nodes) = match connection {
        Connection::Repositories => (newest.to_owned(), "nodes{...Repo}"),
        Connection::Languages => (",orderBy:{field:SIZE,direction:DESC}".to_owned(), "edges{size node{name}}"),
        Connection::Issues(state) => (format!("{}{newest}", states(state, ",states:[CLOSED]")), "nodes{...Issue}"),
        Connection::PullRequests(state) => {
            (format!("{}{newest}", states(state, ",states:[CLOSED,MERGED]")), "nodes{...Pull}")
        }
    };
    let name = connection.name();
    let _infallible =
        write!(text, "{name}(first:{first}{cursor}{arguments}){{{nodes} pageInfo{{hasNextPage endCursor}}}}");
}

/// Fragments in an order in which each stands after those that use it.
const FRAGMENTS: &[(&str, &str)] = &[
    (
        "Repo",
        " fragment Repo on Repository{databaseId id name nameWithOwner isPrivate owner{...Actor} url description isFork \
         createdAt updatedAt pushedAt sshUrl homepageUrl diskUsage stargazerCount primaryLanguage{name} hasIssuesEnabled \
         hasProjectsEnabled hasWikiEnabled hasDiscussionsEnabled forkCount mirrorUrl isArchived isDisabled \
         openIssues:issues(states:[OPEN]){totalCount} openPulls:pullRequests(states:[OPEN]){totalCount} \
         licenseInfo{key name spdxId id} forkingAllowed isTemplate webCommitSignoffRequired \
         repositoryTopics(first:20){nodes{topic{name}}} visibility defaultBranchRef{name}}",
    ),
    (
        "Issue",
        " fragment Issue on Issue{fullDatabaseId id number title author{...Actor} labels(first:10){nodes{...Label}} \
         state stateReason locked assignees(first:10){nodes{...Actor}} milestone{...Milestone} comments{totalCount} \
         createdAt updatedAt closedAt authorAssociation activeLockReason body url}",
    ),
    (
        "Pull",
        " fragment Pull on PullRequest{fullDatabaseId id number title author{...Actor} labels(first:10){nodes{...Label}} \
         state locked assignees(first:10){nodes{...Actor}} milestone{...Milestone} comments{totalCount} createdAt \
         updatedAt closedAt mergedAt authorAssociation activeLockReason body url isDraft}",
    ),
    ("Label", " fragment Label on Label{id name color description isDefault}"),
    (
        "Milestone",
        " fragment Milestone on Milestone{id number title description state url createdAt updatedAt closedAt dueOn}",
    ),
    (
        "Actor",
        " fragment Actor on Node{__typename id ...on Actor{login avatarUrl url}...on User{databaseId isSiteAdmin}\
         ...on Organization{databaseId}...on Bot{databaseId}...on Mannequin{databaseId}}",
    ),
];

/// Requests that GitHub counts for parts of one item, before dividing by 100, and nodes that may
/// come.
pub fn weight(parts: &[Part]) -> (u64, u64) {
    parts.iter().fold((0, 0), |(requests, nodes), part| {
        let Some(connection) = part.connection else { return (requests + 1, nodes + 20) };
        let first = connection.first(part.after.as_deref()) as u64;
        let (nested, below) = match connection {
            Connection::Repositories => (first, first * 20),
            Connection::Languages => (0, 0),
            Connection::Issues(_) | Connection::PullRequests(_) => (2 * first, 2 * first * NESTED as u64),
        };
        (requests + 1 + nested, nodes + first + below)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(facet: Facet) -> Item {
        Item { facet, owner: "o".into(), name: "r".into() }
    }

    #[test]
    fn documents_hold_what_is_used_and_no_more() {
        let languages = item(Facet::Languages);
        let parts = Facet::Languages.parts();
        let text = document(&[(&languages, &parts), (&languages, &parts)]);
        assert!(text.contains("i1:repository(owner:\"o\",name:\"r\"){nameWithOwner languages(first:100,"), "{text}");
        assert!(!text.contains("fragment"), "{text}");
        let next = [Part { connection: Some(Connection::Issues(State::Open)), after: Some("a\"b".into()) }];
        let issues = item(Facet::Issues(State::Open));
        let text = document(&[(&issues, &next)]);
        assert!(text.contains("issues(first:100,after:\"a\\\"b\",states:[OPEN],orderBy"), "{text}");
        for (name, count) in [("Issue", 1), ("Label", 1), ("Milestone", 1), ("Actor", 1), ("Repo", 0), ("Pull", 0)] {
            assert_eq!(text.matches(&format!("fragment {name} on")).count(), count, "{name}");
        }
        graphql_parser::parse_query::<&str>(&text).unwrap();
    }

    #[test]
    fn weights_follow_the_documented_rule() {
        assert_eq!(weight(&Facet::Languages.parts()), (1, 100));
        // Two connections of ten, with two of ten nested in each element.
        assert_eq!(weight(&Facet::Issues(State::Open).parts()), (2 + 40, 20 + 400));
    }
}
