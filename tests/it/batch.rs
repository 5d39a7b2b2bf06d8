//! GraphQL batches: the same answers as REST's, few requests, half answers, and REST where they fail.

use std::path::Path;
use std::process::Command;

use octocache::cache::batch::{Batching, Wanted};
use octocache::cache::{Ask, Cache};
use octocache::graphql::document::{Connection, Part, document};
use octocache::graphql::{Facet, Item, State, shape};
use octocache::outcome::{Outcome, StaleReason};
use octocache::policy::Mode;
use serde_json::Value;

use crate::action::node_dir;
use crate::flow::{Fixture, HIT, ask};
use crate::harness::sim::{Doc, Fault};
use crate::harness::world;

impl Fixture {
    fn wanted(&self, path: &str) -> Wanted {
        Wanted { request: self.request(path), ask: Ask::default(), rest_if_free: true }
    }

    fn facets(&self, names: &[String]) -> Vec<Wanted> {
        let of = |end: &'static str| names.iter().map(move |name| self.wanted(&format!("/repos/{name}{end}")));
        of("").chain(of("/languages")).chain(of("/issues?state=open")).collect()
    }
}

async fn bodies(cache: &Cache, wanted: &[Wanted], how: &Batching) -> Vec<bytes::Bytes> {
    let answers = cache.get_batch(wanted, how).await;
    answers.into_iter().map(|answer| answer.unwrap().entry.body.clone()).collect()
}

#[tokio::test]
async fn graphql_and_rest_give_the_same() {
    let fx = Fixture::new();
    let names = world::organisation(&fx.sim, 110);
    let mut wanted = fx.facets(&names);
    wanted.push(fx.wanted("/orgs/acme/repos"));
    let batched = bodies(&fx.cache(Some("ghp_one")), &wanted, &Batching { rest: false, ..Batching::default() }).await;
    let log = fx.sim.log();
    assert!(log.iter().all(|logged| logged.target == "/graphql"));
    // Two documents of everything, one more for long lists of issues, and again for their second
    // page, beside the organisation's two pages.
    assert!(log.len() <= 5, "{}", log.len());
    fx.sim.take_counts();
    let rest = bodies(&fx.cache(Some("ghp_two")), &wanted, &Batching { graphql: false, ..Batching::default() }).await;
    assert!(fx.sim.take_counts().0 > 330);
    for ((batched, rest), wanted) in batched.iter().zip(&rest).zip(&wanted) {
        assert_eq!(batched, rest, "{}", wanted.request.target());
    }
    let issues: Vec<Value> = serde_json::from_slice(&batched[2 * names.len() + 5]).unwrap();
    assert_eq!(issues.len(), 185);
    assert!(issues.iter().any(|issue| !issue["pull_request"].is_null() && issue["user"]["login"] == "robot[bot]"));
    // Nothing is left out that could be there: the shapes are REST's fields but for these.
    let whole: Value = serde_json::from_slice(&shape::reduce(Facet::Repo, &batched[0]).unwrap()).unwrap();
    assert_eq!(whole.as_object().unwrap().len(), 41);
}

#[tokio::test]
async fn what_is_fresh_is_not_asked_and_what_rest_can_validate_is_not_batched() {
    let fx = Fixture::new();
    let names = world::organisation(&fx.sim, 6);
    let cache = fx.cache(Some("ghp_one"));
    let how = Batching::default();
    let wanted = fx.facets(&names[..2]);
    let cold = cache.get_batch(&wanted, &how).await;
    assert_eq!(fx.sim.take_counts(), (1, 1));
    assert_eq!(cold.iter().map(|answer| answer.as_ref().unwrap().requests).sum::<u32>(), 1);
    let warm = cache.get_batch(&wanted, &how).await;
    assert!(warm.iter().all(|answer| answer.as_ref().unwrap().outcome == HIT));
    assert_eq!(fx.sim.take_counts().0, 0);
    // The languages of the third are there from REST: a 304 is better than a batch.
    let third = fx.wanted(&format!("/repos/{}/languages", names[2]));
    cache.get(&third.request, &Ask::default()).await.unwrap();
    fx.clock.advance(40 * 86_400);
    fx.sim.take_counts();
    let answers = cache.get_batch(&[wanted[2].clone(), third], &how).await;
    assert_eq!(answers[1].as_ref().unwrap().outcome, Outcome::Revalidated);
    assert_eq!(fx.sim.take_counts(), (2, 1));
    // Offline, what either way brought is there.
    let offline: Vec<Wanted> =
        wanted.iter().map(|one| Wanted { ask: ask(Mode::OnlyIfCached), ..one.clone() }).collect();
    assert!(cache.get_batch(&offline, &how).await.iter().all(Result::is_ok));
    assert_eq!(fx.sim.take_counts().0, 0);
    // An invalidation reaches what came in a batch.
    cache.invalidate(format!("repo:{}", names[0]).parse().unwrap()).unwrap();
    cache.get_batch(&wanted, &how).await;
    assert!(fx.sim.take_counts().0 >= 1);
}

#[tokio::test]
async fn half_answers_and_time_outs_are_made_whole() {
    let fx = Fixture::new();
    let names = world::organisation(&fx.sim, 60);
    let how = Batching::default();
    let wanted: Vec<Wanted> = names.iter().map(|name| fx.wanted(&format!("/repos/{name}/languages"))).collect();
    // Too many at once time out; halved, they do not. Nobody sends the same document twice.
    fx.sim.with(|state| state.graphql_max_aliases = 20);
    assert_eq!(bodies(&fx.cache(Some("ghp_one")), &wanted, &how).await.len(), 60);
    let log = fx.sim.log();
    assert!(log.iter().all(|logged| logged.target == "/graphql") && log.len() <= 12, "{}", log.len());
    let mut sent: Vec<&bytes::Bytes> = log.iter().map(|logged| &logged.body).collect();
    sent.sort_unstable();
    sent.dedup();
    assert_eq!(sent.len(), log.len());
    // Limits of resources come with data, of which nothing is believed.
    fx.sim.with(|state| (state.graphql_max_aliases, state.graphql_max_nodes_aliases) = (usize::MAX, 30));
    let two = bodies(&fx.cache(Some("ghp_two")), &wanted, &how).await;
    assert!(two.iter().all(|body| body.starts_with(b"{\"Rust\":")));
    assert!(fx.sim.log().iter().all(|logged| logged.target == "/graphql"));
    // If not even one at a time goes through, REST does.
    fx.sim.with(|state| state.graphql_max_aliases = 0);
    fx.sim.token("ghp_three", "user:three");
    fx.sim.take_counts();
    assert_eq!(bodies(&fx.cache(Some("ghp_three")), &wanted[..3], &how).await, two[..3]);
    assert_eq!(fx.sim.log().iter().filter(|logged| logged.method == "GET").count(), 3);
}

#[tokio::test]
async fn what_is_missing_is_said_of_it_alone_and_renamed_things_are_found() {
    let fx = Fixture::new();
    let names = world::organisation(&fx.sim, 3);
    fx.sim.with(|state| {
        state.visible_to.insert(format!("/repos/{}", names[1]), vec!["user:two".into()]);
    });
    fx.sim.put("/repos/acme/old-name", Doc::Redirect(format!("/repos/{}", names[2])));
    let cache = fx.cache(Some("ghp_one"));
    let wanted: Vec<Wanted> = ["acme/repo-0000", "acme/repo-0001", "acme/old-name", "acme/none"]
        .map(|name| fx.wanted(&format!("/repos/{name}")))
        .into();
    let answers = cache.get_batch(&wanted, &Batching::default()).await;
    let status: Vec<u16> = answers.iter().map(|answer| answer.as_ref().unwrap().entry.status).collect();
    assert_eq!(status, [200, 404, 200, 404]);
    assert!(String::from_utf8_lossy(&answers[2].as_ref().unwrap().entry.body).contains("acme/repo-0002"));
    assert_eq!(fx.sim.take_counts().0, 1);
    // "No" is remembered for a minute, and longer each time.
    for (wait, requests) in [(1, 0), (60, 1), (60, 0), (61, 1)] {
        fx.clock.advance(wait);
        cache.get_batch(&wanted[3..], &Batching::default()).await;
        assert_eq!(fx.sim.take_counts().0, requests);
    }
}

#[tokio::test]
async fn failures_of_graphql_are_stale_answers_or_rest() {
    let fx = Fixture::new();
    let names = world::organisation(&fx.sim, 3);
    let cache = fx.cache(Some("ghp_one"));
    let wanted: Vec<Wanted> = names.iter().map(|name| fx.wanted(&format!("/repos/{name}/issues"))).collect();
    let graphql_only = Batching { rest: false, ..Batching::default() };
    let fresh = bodies(&cache, &wanted, &Batching::default()).await;
    fx.clock.advance(3_600);
    // A limit: what there is, is answered; what there is not, waits or goes by REST.
    fx.sim.fail_next(&[Fault::Secondary(Some(900))]);
    let answers = cache.get_batch(&wanted, &graphql_only).await;
    for (answer, fresh) in answers.iter().zip(&fresh) {
        let answer = answer.as_ref().unwrap();
        assert_eq!((answer.outcome, &answer.entry.body), (Outcome::Stale(StaleReason::Limited), fresh));
    }
    fx.clock.advance(901);
    fx.sim.take_counts();
    // GraphQL refuses a token: REST does not.
    fx.sim.put("/graphql", Doc::Status(403, r#"{"message":"Resource not accessible by integration"}"#.into()));
    fx.clock.advance(86_400 * 9);
    assert_eq!(bodies(&cache, &wanted, &Batching::default()).await, fresh);
    assert_eq!(fx.sim.take_counts().0, 1 + 3);
    fx.clock.advance(86_400 * 9);
    let refused = cache.get_batch(&wanted, &graphql_only).await;
    assert!(refused.iter().all(|answer| answer.as_ref().unwrap_err().to_string().contains("403")));
    // Without a token there is no GraphQL.
    fx.sim.take_counts();
    assert!(fx.cache(None).get_batch(&wanted, &Batching::default()).await.iter().all(Result::is_ok));
    assert!(fx.sim.log().iter().all(|logged| logged.method == "GET"));
}

#[tokio::test]
async fn graphql_that_is_down_costs_three_documents_and_what_rest_confirms_for_free_is_not_stale() {
    let fx = Fixture::new();
    let names = world::organisation(&fx.sim, 40);
    fx.sim.with(|state| state.limit = 100_000);
    let wanted: Vec<Wanted> = names.iter().map(|name| fx.wanted(&format!("/repos/{name}/languages"))).collect();
    let posts = |fx: &Fixture| fx.sim.log().iter().filter(|logged| logged.method == "POST").count();
    fx.sim.put("/graphql", Doc::Status(502, "{}".into()));
    let cache = fx.cache(Some("ghp_one"));
    let cold = bodies(&cache, &wanted, &Batching::default()).await;
    assert_eq!((posts(&fx), cold.len()), (3, 40));
    // What REST has said can be confirmed by REST: no answer is stale.
    fx.clock.advance(86_400 * 3);
    fx.sim.take_counts();
    let mut graphql_first = wanted.clone();
    for one in &mut graphql_first {
        one.rest_if_free = false;
    }
    for answer in cache.get_batch(&graphql_first, &Batching::default()).await {
        let answer = answer.unwrap();
        assert!(!matches!(answer.outcome, Outcome::Stale(_)) && answer.charged == 0, "{:?}", answer.outcome);
    }
    assert_eq!((posts(&fx), fx.sim.take_counts().1), (3, 3));
}

#[tokio::test]
async fn odd_answers_of_graphql_are_no_answers() {
    let fx = Fixture::new();
    let names = world::organisation(&fx.sim, 2);
    let wanted = fx.facets(&names[1..]);
    let right = bodies(&fx.cache(Some("ghp_two")), &wanted, &Batching { graphql: false, ..Batching::default() }).await;
    for (n, odd) in [
        "",
        "not json",
        "null",
        "[]",
        "{}",
        r#"{"data":null}"#,
        r#"{"data":[1]}"#,
        r#"{"data":"i0"}"#,
        r#"{"data":{"i0":null}}"#,
        r#"{"data":{"i0":[]}}"#,
        r#"{"data":{"i0":{}}}"#,
        r#"{"data":{"i0":{"databaseId":null,"languages":{"edges":null}}}}"#,
        r#"{"data":{"i0":{"languages":{"edges":[]},"issues":{"nodes":{}}}}}"#,
        r#"{"errors":7}"#,
        r#"{"errors":[{"path":[{}]}]}"#,
    ]
    .into_iter()
    .enumerate()
    {
        let token = format!("ghp_odd{n}");
        fx.sim.token(&token, "user:odd");
        fx.sim.put("/graphql", Doc::Status(200, odd.into()));
        assert_eq!(bodies(&fx.cache(Some(&token)), &wanted, &Batching::default()).await, right, "{odd}");
    }
}

#[test]
fn documents_are_valid_by_githubs_own_schema() {
    let Some(node) = node_dir() else { return };
    let all = [Facet::OrgRepos, Facet::Repo, Facet::Languages]
        .into_iter()
        .chain([State::Open, State::Closed, State::All].map(Facet::Issues));
    let mut documents = Vec::new();
    for facet in all {
        let name = if facet == Facet::OrgRepos { "" } else { "repo" };
        let item = Item { facet, owner: "acme".into(), name: name.into() };
        let parts = facet.parts();
        documents.push(document(&[(&item, &parts), (&item, &parts)]));
        let after: Vec<Part> =
            parts.into_iter().map(|part| Part { after: part.connection.map(|_| "x".into()), ..part }).collect();
        documents.push(document(&[(&item, &after)]));
    }
    // All facets of one repository under one alias.
    let item = Item { facet: Facet::Repo, owner: "acme".into(), name: "repo".into() };
    let parts: Vec<Part> =
        [Facet::Repo, Facet::Languages, Facet::Issues(State::Open)].into_iter().flat_map(Facet::parts).collect();
    assert!(parts.iter().any(|part| part.connection == Some(Connection::PullRequests(State::Open))));
    documents.push(document(&vec![(&item, parts.as_slice()); 100]));
    assert!(documents.iter().all(|text| text.len() < 100 << 10));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), serde_json::to_vec(&documents).unwrap()).unwrap();
    let script = node.join("documents.mjs");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/action/documents.mjs"), &script).unwrap();
    let output = Command::new("node").arg(&script).arg(file.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said.trim(), format!("{} documents are valid", documents.len()));
}
