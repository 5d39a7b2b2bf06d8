//! Named recipes: the queries that most projects need, ready-made.
//!
//! Knows: their paths, parameters and projections. Does not know: how they are run.
//! To add one: a row in [`RECIPES`].

/// A recipe.
#[derive(Debug)]
pub struct Recipe {
    /// Its name in plans.
    pub name: &'static str,
    /// What it gives, for the docs table.
    pub about: &'static str,
    /// Paths that are asked. With several, the filter sees an array of their answers.
    pub paths: &'static [&'static str],
    /// Parameters without a default. `repo` defaults to this repository.
    pub needs: &'static [&'static str],
    /// Parameters with a default.
    pub has: &'static [(&'static str, &'static str)],
    /// The parameter that the items of `for-each` stand for.
    pub item_is: &'static str,
    /// Whether all pages are fetched.
    pub paginate: bool,
    /// What is made of the answer.
    pub jq: Option<&'static str>,
    /// Fields of a repository in a list that prove this unchanged (`fresh-while: true`): `pushed_at`
    /// covers what follows from code, `updated_at` the settings; neither covers issues.
    pub fresh_while: &'static [&'static str],
    /// Whether GraphQL has the same, so that many are asked in a batch.
    pub batch: Batch,
}

/// Whether GraphQL can be asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// It has no such thing.
    Never,
    /// It can, but REST's pages are as few and can be validated for nothing.
    OnDemand,
    /// Many at once are better asked so.
    Prefer,
}

impl Recipe {
    /// Parameters that may be given.
    pub fn params(&self) -> impl Iterator<Item = &'static str> {
        self.needs.iter().copied().chain(self.has.iter().map(|(name, _)| *name))
    }
}

const REPO: &str = "/repos/{owner}/{name}";

const fn list(name: &'static str, about: &'static str, paths: &'static [&'static str]) -> Recipe {
    Recipe {
        name,
        about,
        paths,
        needs: &["repo"],
        has: &[],
        item_is: "repo",
        paginate: true,
        jq: None,
        fresh_while: &[],
        batch: Batch::Never,
    }
}

const fn one(
    name: &'static str,
    about: &'static str,
    paths: &'static [&'static str],
    needs: &'static [&'static str],
) -> Recipe {
    Recipe {
        name,
        about,
        paths,
        needs,
        has: &[],
        item_is: "repo",
        paginate: false,
        jq: None,
        fresh_while: &[],
        batch: Batch::Never,
    }
}

/// All recipes.
pub static RECIPES: &[Recipe] = &[
    Recipe {
        fresh_while: &[".pushed_at", ".updated_at"],
        batch: Batch::Prefer,
        ..one("repo", "a repository", &[REPO], &["repo"])
    },
    list("releases", "all releases of a repository", &["/repos/{owner}/{name}/releases"]),
    one("latest-release", "the latest release of a repository", &["/repos/{owner}/{name}/releases/latest"], &["repo"]),
    Recipe {
        item_is: "tag",
        ..one(
            "release-by-tag",
            "the release of a tag",
            &["/repos/{owner}/{name}/releases/tags/{tag}"],
            &["repo", "tag"],
        )
    },
    Recipe {
        item_is: "number",
        ..one("pull-request", "a pull request", &["/repos/{owner}/{name}/pulls/{number}"], &["repo", "number"])
    },
    Recipe {
        fresh_while: &[".pushed_at"],
        ..one(
            "compare",
            "the commits between two refs",
            &["/repos/{owner}/{name}/compare/{base}...{head}"],
            &["repo", "base", "head"],
        )
    },
    Recipe {
        fresh_while: &[".pushed_at"],
        batch: Batch::Prefer,
        ..one("languages", "the languages of a repository", &["/repos/{owner}/{name}/languages"], &["repo"])
    },
    Recipe {
        has: &[("state", "open")],
        batch: Batch::Prefer,
        ..list(
            "issues",
            "the issues (and pull requests) of a repository",
            &["/repos/{owner}/{name}/issues?state={state}"],
        )
    },
    Recipe {
        needs: &["org"],
        item_is: "org",
        batch: Batch::OnDemand,
        ..list("org-repos", "all repositories of an organisation", &["/orgs/{org}/repos"])
    },
    one(
        "workflow-runs",
        "the last 100 workflow runs of a repository",
        &["/repos/{owner}/{name}/actions/runs?per_page=100"],
        &["repo"],
    ),
    list("runners", "the self-hosted runners of a repository", &["/repos/{owner}/{name}/actions/runners"]),
    Recipe {
        needs: &["org"],
        item_is: "org",
        ..list("org-runners", "the self-hosted runners of an organisation", &["/orgs/{org}/actions/runners"])
    },
    Recipe {
        jq: Some("{queued: .[0].total_count, in_progress: .[1].total_count}"),
        ..one(
            "queue-depth",
            "how many workflow runs of a repository wait and run",
            &[
                "/repos/{owner}/{name}/actions/runs?per_page=1&status=queued",
                "/repos/{owner}/{name}/actions/runs?per_page=1&status=in_progress",
            ],
            &["repo"],
        )
    },
    Recipe { item_is: "user", ..one("user", "a user", &["/users/{user}"], &["user"]) },
];

/// The recipe called so.
pub fn by_name(name: &str) -> Option<&'static Recipe> {
    RECIPES.iter().find(|recipe| recipe.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::template::Template;

    #[test]
    fn every_placeholder_of_a_recipe_is_a_parameter() {
        for recipe in RECIPES {
            for path in recipe.paths {
                for name in Template::parse(path).unwrap().names() {
                    let param = if matches!(name, "owner" | "name") { "repo" } else { name };
                    assert!(recipe.params().any(|known| known == param), "{} {{{name}}}", recipe.name);
                }
            }
            assert!(recipe.needs.contains(&recipe.item_is), "{}", recipe.name);
        }
    }
}
