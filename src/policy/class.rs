//! TTL classes: how long each family of endpoints stays fresh, and how long a stale answer may
//! stand in for GitHub.
//!
//! Knows: the table. Does not know: the user's overrides (`policy`).
//! To add a class: one row in [`CLASSES`], its patterns in `ROUTES`.

/// A TTL class.
#[derive(Debug, PartialEq, Eq)]
pub struct Class {
    /// Its name in plans (`classes:`), tags (`family:`) and `explain`.
    pub name: &'static str,
    /// Fresh for so many seconds.
    pub fresh_secs: u64,
    /// Usable for so many seconds after that when GitHub cannot answer.
    pub stale_secs: u64,
    /// Whether a body is never tried for another partition: what it holds is meant for few, and
    /// seldom the same for two. It stays out of bundles unless a plan names the class.
    pub private: bool,
    /// Whether the response depends on what a token may do, not only on who it is; see
    /// [`permissions`](crate::policy::permissions).
    pub by_permission: ByPermission,
    /// What it is for, in the words of the docs table.
    pub about: &'static str,
}

/// Which responses of a class depend on what a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByPermission {
    /// None.
    Never,
    /// Those that show the object of the token's own repository, which lists `permissions`.
    OwnRepository,
    /// All that are about the token's own repository, or about none.
    Always,
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

const fn class(name: &'static str, fresh_secs: u64, stale_secs: u64, about: &'static str) -> Class {
    Class { name, fresh_secs, stale_secs, private: false, by_permission: ByPermission::Never, about }
}

const fn by_permission(class: Class) -> Class {
    Class { by_permission: ByPermission::Always, ..class }
}

const fn by_own_repository(class: Class) -> Class {
    Class { by_permission: ByPermission::OwnRepository, ..class }
}

const fn private(class: Class) -> Class {
    Class { private: true, ..by_permission(class) }
}

/// All classes; the last is for anything that no pattern knows.
pub static CLASSES: &[Class] = &[
    class("immutable", 30 * DAY, 365 * DAY, "commits, trees, blobs and compares named by full SHA"),
    class("checks", MINUTE, DAY, "check runs, check suites and combined statuses"),
    class("queue-depth", MINUTE, 10 * MINUTE, "queued or running workflow runs and their jobs"),
    class("workflow-runs", 2 * MINUTE, HOUR, "workflow runs and jobs"),
    private(class("runners", 5 * MINUTE, HOUR, "self-hosted runners and runner groups")),
    class("artifacts", 10 * MINUTE, DAY, "artifacts and Actions caches"),
    by_permission(class("workflows", HOUR, DAY, "workflows, environments, variables")),
    class("issues", 5 * MINUTE, DAY, "issue and pull request lists"),
    class("issue", 10 * MINUTE, DAY, "one issue or pull request, its comments, reviews and files"),
    by_own_repository(class("search", 5 * MINUTE, HOUR, "search")),
    by_own_repository(class("org-repos", 15 * MINUTE, DAY, "repositories of an organisation")),
    by_own_repository(class("repos", 10 * MINUTE, DAY, "repositories of a user, an installation or the token")),
    class("languages", DAY, 30 * DAY, "languages of a repository"),
    class("community", DAY, 30 * DAY, "topics, licence, readme, contributors, community profile, statistics"),
    by_permission(class("releases", DAY, 30 * DAY, "releases, the latest one, one by tag, and their assets' metadata")),
    class("tags", 30 * MINUTE, 30 * DAY, "tags"),
    class("refs", 5 * MINUTE, 7 * DAY, "git references"),
    class("commits", 30 * MINUTE, 7 * DAY, "commits of a ref, compares of moving refs, branches, contents"),
    by_permission(class("repo", HOUR, 7 * DAY, "repository information")),
    class("user", DAY, 30 * DAY, "users and organisations"),
    by_permission(class("members", HOUR, 30 * DAY, "teams, members, labels, milestones")),
    class("catalog", DAY, 30 * DAY, "licences, gitignore templates, emojis, meta"),
    private(class("alerts", 5 * MINUTE, HOUR, "security alerts and audit log")),
    private(class("settings", HOUR, DAY, "webhooks, keys, secrets, branch protection, traffic, billing, invitations")),
    private(class("events", MINUTE, HOUR, "events and notifications")),
    class("graphql", 5 * MINUTE, DAY, "GraphQL queries"),
    class("other", DAY, DAY, "anything else"),
];

/// Path patterns in order; the first that fits decides. `*` is one segment, `**` any rest,
/// `#sha` a full object name, `#range` two of them with `...` between; after `?`, a parameter
/// that must be there.
const ROUTES: &[(&str, &str)] = &[
    ("immutable", "/repos/*/*/git/commits/#sha"),
    ("immutable", "/repos/*/*/git/trees/#sha"),
    ("immutable", "/repos/*/*/git/blobs/#sha"),
    ("immutable", "/repos/*/*/git/tags/#sha"),
    ("immutable", "/repos/*/*/compare/#range"),
    ("immutable", "/repos/*/*/commits/#sha"),
    ("checks", "/repos/*/*/commits/*/check-runs"),
    ("checks", "/repos/*/*/commits/*/check-suites"),
    ("checks", "/repos/*/*/commits/*/status"),
    ("checks", "/repos/*/*/commits/*/statuses"),
    ("checks", "/repos/*/*/statuses/*"),
    ("checks", "/repos/*/*/check-runs/**"),
    ("checks", "/repos/*/*/check-suites/**"),
    ("queue-depth", "/repos/*/*/actions/runs?status=queued"),
    ("queue-depth", "/repos/*/*/actions/runs?status=in_progress"),
    ("workflow-runs", "/repos/*/*/actions/runs/*/artifacts"),
    ("workflow-runs", "/repos/*/*/actions/runs/**"),
    ("workflow-runs", "/repos/*/*/actions/jobs/**"),
    ("workflow-runs", "/repos/*/*/actions/workflows/*/runs"),
    ("workflow-runs", "/repos/*/*/actions/runs"),
    ("runners", "/repos/*/*/actions/runners/**"),
    ("runners", "/orgs/*/actions/runners/**"),
    ("runners", "/orgs/*/actions/runner-groups/**"),
    ("runners", "/orgs/*/actions/hosted-runners/**"),
    ("runners", "/enterprises/*/actions/runners/**"),
    ("artifacts", "/repos/*/*/actions/artifacts/**"),
    ("artifacts", "/repos/*/*/actions/caches/**"),
    ("artifacts", "/repos/*/*/actions/cache/**"),
    ("settings", "/repos/*/*/actions/secrets/**"),
    ("settings", "/repos/*/*/actions/organization-secrets"),
    ("settings", "/repos/*/*/actions/organization-variables"),
    ("settings", "/repos/*/*/environments/*/secrets/**"),
    ("settings", "/repos/*/*/codespaces/secrets/**"),
    ("settings", "/repos/*/*/hooks/**"),
    ("settings", "/repos/*/*/keys/**"),
    ("settings", "/repos/*/*/invitations/**"),
    ("settings", "/repos/*/*/traffic/**"),
    ("settings", "/repos/*/*/branches/*/protection/**"),
    ("settings", "/orgs/*/actions/secrets/**"),
    ("settings", "/orgs/*/codespaces/secrets/**"),
    ("settings", "/orgs/*/hooks/**"),
    ("settings", "/orgs/*/settings/**"),
    ("settings", "/orgs/*/invitations/**"),
    ("settings", "/orgs/*/failed_invitations"),
    ("settings", "/orgs/*/outside_collaborators/**"),
    ("settings", "/orgs/*/blocks/**"),
    ("settings", "/orgs/*/credential-authorizations/**"),
    ("settings", "/orgs/*/personal-access-tokens/**"),
    ("settings", "/orgs/*/personal-access-token-requests/**"),
    ("settings", "/orgs/*/copilot/**"),
    ("settings", "/orgs/*/members/*/copilot"),
    ("settings", "/orgs/*/private-registries/**"),
    ("settings", "/enterprises/*/copilot/**"),
    ("settings", "/enterprises/*/settings/**"),
    ("settings", "/scim/**"),
    ("settings", "/app/hook/**"),
    ("settings", "/users/*/settings/**"),
    ("settings", "/user/emails"),
    ("settings", "/user/keys/**"),
    ("settings", "/user/gpg_keys/**"),
    ("settings", "/user/ssh_signing_keys/**"),
    ("settings", "/user/blocks/**"),
    ("settings", "/user/repository_invitations"),
    ("settings", "/user/codespaces/secrets/**"),
    ("workflows", "/repos/*/*/actions/**"),
    ("workflows", "/repos/*/*/environments/**"),
    ("workflows", "/orgs/*/actions/**"),
    ("issues", "/repos/*/*/issues"),
    ("issues", "/repos/*/*/pulls"),
    ("issues", "/orgs/*/issues"),
    ("issues", "/issues"),
    ("issues", "/user/issues"),
    ("issue", "/repos/*/*/issues/**"),
    ("issue", "/repos/*/*/pulls/**"),
    ("search", "/search/**"),
    ("org-repos", "/orgs/*/repos"),
    ("repos", "/users/*/repos"),
    ("repos", "/user/repos"),
    ("repos", "/installation/repositories"),
    ("repos", "/user/installations/*/repositories"),
    ("repos", "/users/*/starred"),
    ("repos", "/repositories"),
    ("languages", "/repos/*/*/languages"),
    ("community", "/repos/*/*/topics"),
    ("community", "/repos/*/*/license"),
    ("community", "/repos/*/*/readme/**"),
    ("community", "/repos/*/*/contributors"),
    ("community", "/repos/*/*/community/**"),
    ("community", "/repos/*/*/stats/**"),
    ("releases", "/repos/*/*/releases/**"),
    ("tags", "/repos/*/*/tags"),
    ("refs", "/repos/*/*/git/**"),
    ("commits", "/repos/*/*/commits/**"),
    ("commits", "/repos/*/*/compare/**"),
    ("commits", "/repos/*/*/branches/**"),
    ("commits", "/repos/*/*/contents/**"),
    ("alerts", "/repos/*/*/security-advisories/**"),
    ("alerts", "/repos/*/*/vulnerability-alerts"),
    ("alerts", "/orgs/*/security-advisories"),
    ("alerts", "/enterprises/*/dependabot/**"),
    ("alerts", "/enterprises/*/code-scanning/**"),
    ("alerts", "/enterprises/*/secret-scanning/**"),
    ("alerts", "/enterprises/*/audit-log"),
    ("alerts", "/repos/*/*/dependabot/**"),
    ("alerts", "/repos/*/*/code-scanning/**"),
    ("alerts", "/repos/*/*/secret-scanning/**"),
    ("alerts", "/orgs/*/dependabot/**"),
    ("alerts", "/orgs/*/code-scanning/**"),
    ("alerts", "/orgs/*/secret-scanning/**"),
    ("alerts", "/orgs/*/audit-log"),
    ("members", "/repos/*/*/labels/**"),
    ("members", "/repos/*/*/milestones/**"),
    ("members", "/repos/*/*/collaborators/**"),
    ("members", "/repos/*/*/teams"),
    ("members", "/repos/*/*/assignees/**"),
    ("members", "/orgs/*/teams/**"),
    ("members", "/orgs/*/team/**"),
    ("members", "/orgs/*/members/**"),
    ("members", "/teams/**"),
    ("events", "/repos/*/*/events"),
    ("events", "/repos/*/*/notifications"),
    ("events", "/networks/*/*/events"),
    ("events", "/orgs/*/events"),
    ("events", "/users/*/events/**"),
    ("events", "/users/*/received_events/**"),
    ("events", "/events"),
    ("events", "/notifications/**"),
    ("repo", "/repos/*/*"),
    ("repo", "/repositories/*"),
    ("user", "/users/*"),
    ("user", "/user"),
    ("user", "/user/*"),
    ("user", "/orgs/*"),
    ("user", "/organizations/*"),
    ("catalog", "/licenses/**"),
    ("catalog", "/gitignore/**"),
    ("catalog", "/emojis"),
    ("catalog", "/codes_of_conduct/**"),
    ("catalog", "/meta"),
    ("catalog", "/versions"),
    ("graphql", "/graphql"),
];

/// Endpoints that describe the moment and are never stored.
static NEVER_STORED: &[&str] = &["/rate_limit", "/zen", "/octocat", "/app/installations/*/access_tokens"];

/// A class's place in [`CLASSES`]; the last is that of everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u8);

impl Place {
    /// How many there are.
    pub const COUNT: usize = CLASSES.len();

    /// From 0.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The place of the class with this name.
pub fn place(name: &str) -> Place {
    Place(CLASSES.iter().position(|class| class.name == name).unwrap_or(CLASSES.len() - 1) as u8)
}

/// The class called `name`.
pub fn by_name(name: &str) -> Option<&'static Class> {
    CLASSES.iter().find(|class| class.name == name)
}

/// The class of a path and its query (A4). An address by number has the class of the address by name.
pub fn of(path: &str, query: &str) -> &'static Class {
    match with_names(path) {
        Some(named) => of_named(&named, query),
        None => of_named(path, query),
    }
}

/// A path by number as a path by name would be: `/repositories/7/issues` as `/repos/_/_/issues`.
fn with_names(path: &str) -> Option<String> {
    let (kind, rest) = path.strip_prefix('/')?.split_once('/')?;
    let (id, below) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let is_number = !id.is_empty() && id.bytes().all(|b| b.is_ascii_digit());
    let names = match kind {
        "repositories" if is_number => "/repos/_/_",
        // Billing has names there, too.
        "organizations" if !id.is_empty() => "/orgs/_",
        "user" if is_number => "/users/_",
        // A branch may have slashes in its name.
        "repos" if is_protection(path) => return Some("/repos/_/_/branches/_/protection".into()),
        _ => return None,
    };
    Some(format!("{names}{below}"))
}

/// Whether a path is that of a branch's protection, whatever the branch is called.
fn is_protection(path: &str) -> bool {
    let mut below = path.split('/').skip(4);
    below.next() == Some("branches") && below.skip(1).any(|segment| segment == "protection")
}

fn of_named(path: &str, query: &str) -> &'static Class {
    let bytes = path.as_bytes();
    let (first, fourth) = (segment(bytes, 1), segment(bytes, 4));
    let found = |shelf: usize| SHELVES.routes(shelf).find(|at| fits(ROUTES[*at].1, path, query));
    // Where both have one, the first in the table decides.
    let route = match (found(number(bytes, first, fourth)), found(number(bytes, first, NONE))) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    let name = route.map_or("other", |at| ROUTES[at].0);
    by_name(name).unwrap_or(&CLASSES[CLASSES.len() - 1])
}

const SHELF_COUNT: usize = 128;

/// Where a shelf ends.
const END: u8 = u8::MAX;

/// Routes by the first and fourth word of their patterns, so that a look-up goes through a few of them;
/// where the fourth is no word, by the first alone. Others may share a shelf. They are made by the compiler: a command of one
/// request looks up one.
struct Shelves {
    /// The first route of each shelf.
    first: [u8; SHELF_COUNT],
    /// For each route the next one on its shelf.
    next: [u8; ROUTES.len()],
}

static SHELVES: Shelves = Shelves::of_routes();

// A place fits a byte.
const _: () = assert!(ROUTES.len() < END as usize);

impl Shelves {
    const fn of_routes() -> Self {
        let mut shelves = Self { first: [END; SHELF_COUNT], next: [END; ROUTES.len()] };
        let mut at = ROUTES.len();
        while at > 0 {
            at -= 1;
            let pattern = ROUTES[at].1.as_bytes();
            let (first, fourth) = (segment(pattern, 1), segment(pattern, 4));
            let is_word = fourth.0 < fourth.1 && !matches!(pattern[fourth.0], b'*' | b'#');
            let shelf = number(pattern, first, if is_word { fourth } else { NONE });
            shelves.next[at] = shelves.first[shelf];
            shelves.first[shelf] = at as u8;
        }
        shelves
    }

    /// In the order of the table.
    fn routes(&self, shelf: usize) -> impl Iterator<Item = usize> {
        let known = |at: u8| (at != END).then_some(usize::from(at));
        std::iter::successors(known(self.first[shelf]), move |at| known(self.next[*at]))
    }
}

/// Where a segment begins and ends within its path.
type Bounds = (usize, usize);

/// No segment.
const NONE: Bounds = (0, 0);

/// The segment behind the slash of this number, from 1; empty where there is none. A query is no part of it.
const fn segment(path: &[u8], number: usize) -> Bounds {
    let (mut at, mut slashes) = (0, 0);
    while at < path.len() && slashes < number && path[at] != b'?' {
        if path[at] == b'/' {
            slashes += 1;
        }
        at += 1;
    }
    if slashes < number {
        return NONE;
    }
    let start = at;
    while at < path.len() && !matches!(path[at], b'/' | b'?') {
        at += 1;
    }
    (start, at)
}

/// Where a path with these segments has its routes: their FNV-1a hash.
const fn number(path: &[u8], first: Bounds, fourth: Bounds) -> usize {
    let hash = fnv(fnv(fnv(0x811c_9dc5, path, first), b"/", (0, 1)), path, fourth);
    (hash ^ (hash >> 15)) as usize % SHELF_COUNT
}

const fn fnv(mut hash: u32, bytes: &[u8], within: Bounds) -> u32 {
    let mut at = within.0;
    while at < within.1 {
        hash = (hash ^ bytes[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash
}

/// Whether answers of this path may be stored at all.
pub fn is_never_stored(path: &str) -> bool {
    NEVER_STORED.iter().any(|pattern| fits(pattern, path, ""))
}

fn fits(pattern: &str, path: &str, query: &str) -> bool {
    let (pattern, wanted) = pattern.split_once('?').unwrap_or((pattern, ""));
    if !wanted.is_empty() && !query.split('&').any(|pair| pair == wanted) {
        return false;
    }
    let mut segments = path.split('/');
    for part in pattern.split('/') {
        if part == "**" {
            return true;
        }
        let Some(segment) = segments.next() else { return false };
        let same = match part {
            "*" => !segment.is_empty(),
            "#sha" => is_full_sha(segment),
            "#range" => segment.split_once("...").is_some_and(|(a, b)| is_full_sha(a) && is_full_sha(b)),
            literal => literal == segment,
        };
        if !same {
            return false;
        }
    }
    segments.next().is_none()
}

fn is_full_sha(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_its_place() {
        let routes = (0..SHELF_COUNT).flat_map(|shelf| SHELVES.routes(shelf));
        assert_eq!(routes.count(), ROUTES.len());
        assert!(ROUTES.iter().all(|(class, _)| by_name(class).is_some()));
    }

    #[test]
    fn what_is_meant_for_few_is_private_however_it_is_asked_for() {
        for path in [
            "/organizations/acme/settings/billing/usage",
            "/organizations/7/hooks",
            "/repositories/7/keys",
            "/repos/o/r/branches/feature/x/protection/required_status_checks",
            "/repos/o/r/branches/main/protection",
            "/repos/o/r/actions/organization-secrets",
            "/repos/o/r/actions/organization-variables",
            "/orgs/o/actions/hosted-runners/3",
            "/orgs/o/copilot/billing/seats",
            "/orgs/o/members/m/copilot",
            "/enterprises/e/copilot/metrics",
            "/scim/v2/organizations/o/Users",
            "/orgs/o/private-registries/public-key",
            "/app/hook/deliveries",
        ] {
            assert!(of(path, "").private, "{path} is {}", of(path, "").name);
        }
        assert_eq!(of("/organizations/7/team/3/repos", "").name, "members");
        assert_eq!(of("/repos/o/r/branches/protection", "").name, "commits");
    }

    #[test]
    fn families() {
        let sha = "a".repeat(40);
        for (path, query, name) in [
            ("/repos/o/r", "", "repo"),
            ("/repos/o/r/releases", "", "releases"),
            ("/repos/o/r/releases/latest", "", "releases"),
            ("/repos/o/r/releases/tags/v1", "", "releases"),
            ("/repos/o/r/issues", "", "issues"),
            ("/repos/o/r/issues/7/comments", "", "issue"),
            ("/repos/o/r/actions/runs", "status=queued", "queue-depth"),
            ("/repos/o/r/actions/runs", "status=success", "workflow-runs"),
            ("/repos/o/r/actions/workflows", "", "workflows"),
            ("/repos/o/r/commits/main", "", "commits"),
            (&format!("/repos/o/r/commits/{sha}"), "", "immutable"),
            (&format!("/repos/o/r/commits/{sha}/check-runs"), "", "checks"),
            (&format!("/repos/o/r/compare/{sha}...{sha}"), "", "immutable"),
            ("/repos/o/r/compare/v1...main", "", "commits"),
            ("/orgs/o/repos", "", "org-repos"),
            ("/users/u", "", "user"),
            ("/nobody/knows", "", "other"),
            ("/repos//r", "", "other"),
            ("/repositories/7", "", "repo"),
            ("/repositories/7/issues", "page=2", "issues"),
            ("/repositories/7/dependabot/alerts", "", "alerts"),
            ("/organizations/7/repos", "page=2", "org-repos"),
            ("/user/7/repos", "page=2", "repos"),
            ("/user/repos", "", "repos"),
            ("/repos/o/r/branches/main/protection", "", "settings"),
        ] {
            assert_eq!(of(path, query).name, name, "{path}?{query}");
        }
        assert!(is_never_stored("/rate_limit") && !is_never_stored("/repos/o/r"));
    }

    #[test]
    fn shelves_change_nothing() {
        let words = ["repos", "orgs", "user", "o", "issues", "actions", "runs", "1", "", "releases", "search", "*"];
        for n in 0..words.len().pow(4) {
            let at = |place: u32| words[n / words.len().pow(place) % words.len()];
            let path = format!("/{}/{}/{}/{}", at(0), at(1), at(2), at(3));
            let slow = ROUTES.iter().find(|(_, pattern)| fits(pattern, &path, "")).map_or("other", |(name, _)| name);
            assert_eq!(of(&path, "").name, slow, "{path}");
        }
    }

    #[test]
    fn every_route_names_a_class() {
        for (name, pattern) in ROUTES {
            assert!(by_name(name).is_some(), "{pattern}");
        }
    }

    #[test]
    fn the_lifetimes_that_are_promised() {
        for (name, secs) in [
            ("releases", DAY),
            ("repo", HOUR),
            ("languages", DAY),
            ("user", DAY),
            ("org-repos", 15 * MINUTE),
            ("repos", 10 * MINUTE),
            ("issues", 5 * MINUTE),
            ("issue", 10 * MINUTE),
            ("workflow-runs", 2 * MINUTE),
            ("queue-depth", MINUTE),
            ("runners", 5 * MINUTE),
            ("commits", 30 * MINUTE),
            ("search", 5 * MINUTE),
            ("immutable", 30 * DAY),
            ("other", DAY),
        ] {
            assert_eq!(by_name(name).map(|class| class.fresh_secs), Some(secs), "{name}");
        }
    }
}
