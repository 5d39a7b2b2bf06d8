//! `octocache api`: one request, answered like `gh api` does.
//!
//! Knows: what the flags mean together, and the order of the output. Does not know: how anything is
//! sent (`api`).

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value;

use super::args::ApiArgs;
use super::{Context, Exit, block_on, print, request_config};
use crate::api::fields::{self, Field, Lookup};
use crate::api::template::{Surroundings, Template};
use crate::api::{Answered, Call, Caller, go, pretty, response};
use crate::cache::pages::MAX_PAGES;
use crate::cache::{Answer, Ask};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::mask::Masker;
use crate::plan::document;
use crate::plan::filter::Filter;
use crate::policy::LinkUse;
use crate::units::Span;

/// Files and standard input that become values or bodies.
const MAX_INPUT_BYTES: u64 = 100 << 20;

/// Failures are 1, as with gh; it has none for what is not in the cache.
pub(super) fn main(context: &Context, args: &ApiArgs) -> Result<Exit> {
    run(context, args).or_else(|error| {
        print::error(context.masker(), &error);
        Ok(if error.kind() == Kind::NotCached { Exit::Missing } else { Exit::Failed })
    })
}

/// Whether the arguments are those of `api`, whose exit codes are gh's.
pub(super) fn is_called() -> bool {
    std::env::args().nth(1).is_some_and(|command| command == "api")
}

fn run(context: &Context, args: &ApiArgs) -> Result<Exit> {
    let mut flags = context.flags.clone();
    args.mode.lower_into(&mut flags);
    flags.ttl = flags.ttl.or(args.cache);
    if let Some(host) = args.hostname.as_deref() {
        let api = Config::api_of_host(host).map_err(|error| error.within("--hostname"))?;
        flags.api_url = flags.api_url.or(Some(api.rest_base()));
    }
    let config = request_config(&flags)?;
    let mut printer = Printer::new(context, args, &config)?;
    let call = call(args, &config)?;
    if args.paginate && call.method != Method::GET && !call.is_graphql() {
        return Err(Error::usage("the `--paginate` option is not supported for non-GET requests"));
    }
    let (cache, github) = config.cache_and_github(&context.clock)?;
    let link = if args.include || args.paginate || context.verbose > 0 { LinkUse::Given } else { LinkUse::Unseen };
    let caller = Caller { ask: Ask { link, ..args.mode.ask(config.mode) }, cache, github };
    let result = block_on(async {
        caller.cache.hear().await;
        let result = pages(args, &caller, call, &mut printer).await;
        caller.cache.shared().await;
        caller.cache.flush();
        result
    })?;
    let last = result?;
    printer.finish()?;
    Ok(report(context.masker(), &last, args, &config))
}

/// The request that the flags describe.
fn call(args: &ApiArgs, config: &Config) -> Result<Call> {
    let mut files = Files { config, repository: None };
    let all = args.raw_field.iter().map(|text| Field::Raw(text.clone()));
    let all: Vec<Field> = all.chain(args.field.iter().map(|text| Field::Typed(text.clone()))).collect();
    let values = fields::read(&all, &mut files)?;
    let has_body = !all.is_empty() || args.input.is_some();
    let method = match &args.method {
        Some(method) => method.to_uppercase(),
        None if has_body => "POST".into(),
        None => "GET".into(),
    };
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| Error::usage(format!("net/http: invalid method {method:?}")))?;
    let is_graphql = args.endpoint == "graphql";
    let mut target = if is_graphql { args.endpoint.clone() } else { encoded(&files.fill_in(&args.endpoint)?) };
    let as_query = (method == Method::GET && !is_graphql) || args.input.is_some();
    if as_query && !values.is_empty() {
        let mark = if target.contains('?') { '&' } else { '?' };
        target = format!("{target}{mark}{}", fields::query(&values));
    }
    let body = match &args.input {
        Some(name) => Some(Bytes::from(read_input(name)?)),
        None if as_query || values.is_empty() => None,
        None if is_graphql => Some(fields::graphql_body(&values).into()),
        None => Some(fields::body(&values).into()),
    };
    Ok(Call { method, target, headers: headers(args)?, body })
}

fn headers(args: &ApiArgs) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    if !args.preview.is_empty() {
        let names: Vec<String> =
            args.preview.iter().map(|name| format!("application/vnd.github.{name}-preview+json")).collect();
        headers.extend(HeaderValue::try_from(names.join(", ")).map(|names| (http::header::ACCEPT, names)));
    }
    for header in &args.header {
        let bad = || Error::usage(format!("header {header:?} requires a value separated by ':'"));
        let (name, value) = header.split_once(':').ok_or_else(bad)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| bad())?;
        let mut value = HeaderValue::try_from(value.trim()).map_err(|_| bad())?;
        value.set_sensitive(name == http::header::AUTHORIZATION);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Characters that cannot stand in an address, in percent form, as Go writes them.
fn encoded(target: &str) -> String {
    let fits = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
    let mut out = String::with_capacity(target.len());
    for c in target.chars() {
        if fits(c) {
            out.push(c);
        } else {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().for_each(|byte| out.push_str(&format!("%{byte:02X}")));
        }
    }
    out
}

fn read_input(name: &str) -> Result<Vec<u8>> {
    if name == "-" {
        return print::read_stdin(MAX_INPUT_BYTES);
    }
    let path = std::path::Path::new(name);
    let bytes = crate::files::read_bounded(path, MAX_INPUT_BYTES)?;
    bytes.map(|bytes| bytes.to_vec()).ok_or_else(|| Error::usage(format!("open {name}: no such file or directory")))
}

/// Files and this repository, looked for when a value refers to them.
struct Files<'a> {
    config: &'a Config,
    repository: Option<std::collections::BTreeMap<String, String>>,
}

impl Lookup for Files<'_> {
    fn file(&mut self, name: &str) -> Result<String> {
        String::from_utf8(read_input(name)?).map_err(|_| Error::usage(format!("{name} is not text")))
    }

    /// `{owner}`, `{repo}`, `{branch}`, and the older `:owner` forms; other braces stay.
    fn fill_in(&mut self, text: &str) -> Result<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', ':']) {
            out.push_str(&rest[..at]);
            let found = ["owner", "repo", "branch"].into_iter().find_map(|name| {
                let braced = format!("{{{name}}}");
                let old = format!(":{name}");
                if rest[at..].starts_with(&braced) {
                    return Some((name, braced.len()));
                }
                let after = rest[at..].strip_prefix(&old)?.chars().next();
                after.is_none_or(|c| !(c.is_alphanumeric() || c == '_')).then_some((name, old.len()))
            });
            if let Some((name, used)) = found {
                out.push_str(&self.value(name)?);
                rest = &rest[at + used..];
            } else {
                out.push_str(&rest[at..=at]);
                rest = &rest[at + 1..];
            }
        }
        out.push_str(rest);
        Ok(out)
    }
}

impl Files<'_> {
    fn value(&mut self, name: &str) -> Result<String> {
        let config = self.config;
        let known = self.repository.get_or_insert_with(|| config.repository_vars());
        let found = if name == "branch" { config.branch() } else { known.get(name).cloned() };
        found.ok_or_else(|| {
            Error::usage(format!("unable to expand placeholder in path: there is no {{{name}}} here"))
                .hint("set GH_REPO=OWNER/REPO, or run inside a clone")
        })
    }
}

/// Sends the call, and goes on while there are pages; each is printed as it comes. The last one, or the
/// first that failed, decides how this ends.
async fn pages(args: &ApiArgs, caller: &Caller, mut call: Call, printer: &mut Printer<'_>) -> Result<Answered> {
    if !args.paginate {
        let answered = caller.send(&call).await?;
        printer.page(&call, &answered)?;
        return Ok(answered);
    }
    if let Some(first) = caller.listing(&call)? {
        let mut last = None;
        for page in caller.pages(&first).await? {
            printer.page(&call, &page)?;
            last = Some(page);
        }
        return last.ok_or_else(|| Error::new(Kind::Internal, "a listing has no page"));
    }
    for _ in 0..MAX_PAGES {
        let answered = caller.send(&call).await?;
        printer.page(&call, &answered)?;
        let next = if call.is_graphql() { next_cursor(&answered.body) } else { None };
        let link = crate::link::next(answered.header("link")).map(str::to_owned);
        match (next, link) {
            _ if answered.status > 299 => return Ok(answered),
            (Some(cursor), _) => call.body = Some(with_cursor(call.body.as_deref().unwrap_or_default(), &cursor)?),
            (None, Some(link)) if !call.is_graphql() => call = caller.next_page(&call, &link)?,
            _ => return Ok(answered),
        }
    }
    Err(Error::new(Kind::TooLarge, format!("more than {MAX_PAGES} pages")))
}

/// The cursor of the first `pageInfo` that says that there is more.
fn next_cursor(body: &[u8]) -> Option<String> {
    fn first(value: &Value) -> Option<&Value> {
        match value {
            Value::Object(fields) => fields.get("pageInfo").or_else(|| fields.values().find_map(first)),
            Value::Array(items) => items.iter().find_map(first),
            _ => None,
        }
    }
    let value: Value = serde_json::from_slice(body).ok()?;
    let info = first(&value)?;
    let more = info["hasNextPage"].as_bool()?;
    info["endCursor"].as_str().filter(|_| more).map(str::to_owned)
}

fn with_cursor(body: &[u8], cursor: &str) -> Result<Bytes> {
    let mut body: Value =
        serde_json::from_slice(body).map_err(|cause| Error::usage("the body is no JSON").because(cause))?;
    body["variables"]["endCursor"] = cursor.into();
    Ok(go::json(&body, go::Style { ints: true, ..go::Style::default() }).into())
}

/// What is printed of the pages.
struct Printer<'a> {
    args: &'a ApiArgs,
    filter: Option<Filter>,
    template: Option<Template>,
    colour: bool,
    terminal: bool,
    verbose: bool,
    masker: Masker,
    /// Pages so far, where they are joined at the end.
    joined: Vec<Bytes>,
    printed: usize,
}

impl<'a> Printer<'a> {
    fn new(context: &Context, args: &'a ApiArgs, config: &Config) -> Result<Self> {
        let (terminal, colour) = print::stdout_looks(context.color, config.environment());
        let surroundings = Surroundings { now: context.clock.now(), colour };
        Ok(Self {
            args,
            filter: match &args.jq {
                Some(text) => {
                    Some(Filter::bounded_with_environment(text, &super::evaluator(true)).map_err(Error::usage)?)
                }
                None => None,
            },
            template: match &args.template {
                Some(text) => Some(Template::parse(text, surroundings).map_err(Error::usage)?),
                None => None,
            },
            colour,
            terminal,
            verbose: context.verbose > 0,
            masker: context.masker().clone(),
            joined: Vec::new(),
            printed: 0,
        })
    }

    fn page(&mut self, call: &Call, answered: &Answered) -> Result<()> {
        if self.args.outcome
            && let Some(answer) = &answered.answer
        {
            print::note(&self.masker, &outcome(answer));
        }
        if self.verbose {
            print::out(dump(call, answered).as_bytes())?;
        }
        let pages_apart = self.printed > 0 && self.args.include;
        self.printed += 1;
        if self.args.include {
            let gap = if pages_apart { "\n" } else { "" };
            print::out(format!("{gap}{}", head(answered)).as_bytes())?;
        }
        if self.args.silent || answered.status == 204 {
            return Ok(());
        }
        let is_json = response::is_json(answered.header("content-type"));
        // As gh does, before filters and templates see it.
        let body = if is_json { response::visible(&answered.body) } else { answered.body.as_ref().into() };
        let failed = said(call.is_graphql(), answered).is_some();
        if let Some(template) = self.template.as_mut().filter(|_| !failed) {
            let text = template.run(&body).map_err(|why| Error::new(Kind::Usage, why))?;
            return print::out(text.as_bytes());
        }
        if let Some(filter) = self.filter.as_ref().filter(|_| !failed) {
            return filtered(filter, &body, self.terminal);
        }
        if self.args.paginate && !self.args.include && is_json && !failed {
            self.joined.push(body.into_owned().into());
            return Ok(());
        }
        if is_json && self.colour { print::out(&pretty::coloured(&body)) } else { print::out(&body) }
    }

    /// What waits for the last page: joined arrays, tables.
    fn finish(&mut self) -> Result<()> {
        if let Some(template) = &mut self.template {
            print::out(template.finish().as_bytes())?;
        }
        let pages = std::mem::take(&mut self.joined);
        let whole: Bytes = if self.args.slurp {
            [&b"["[..], &pages.join(&b","[..]), b"]"].concat().into()
        } else {
            match document::join(&pages) {
                Ok(joined) if pages.len() > 1 && pages[0].starts_with(b"[") => joined,
                _ => pages.concat().into(),
            }
        };
        if pages.is_empty() {
            return Ok(());
        }
        if self.colour { print::out(&pretty::coloured(&whole)) } else { print::out(&whole) }
    }
}

/// Prints the outputs of a filter as gh does.
fn filtered(filter: &Filter, body: &[u8], terminal: bool) -> Result<()> {
    let mut printed = Ok(());
    let outputs = filter.run_each(&go::filter_input(body), |output| {
        printed = print::line(&go::filter_line(output, go::Style { indent: terminal, ..go::Style::default() }));
        printed.is_ok()
    });
    printed?;
    outputs.map_err(|why| Error::new(Kind::Usage, why))
}

fn head(answered: &Answered) -> String {
    let status = http::StatusCode::from_u16(answered.status).ok();
    let reason = status.and_then(|status| status.canonical_reason()).unwrap_or_default();
    let mut text = format!("HTTP/1.1 {} {reason}\n", answered.status);
    let mut names: Vec<(String, String)> = answered
        .headers
        .keys()
        .map(|name| {
            let values = answered.headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
            (canonical(name.as_str()), values.collect::<Vec<_>>().join(", "))
        })
        .filter(|(name, _)| name != "Status")
        .collect();
    names.sort();
    for (name, value) in names {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text
}

/// Request and answer for people; no token is in what we have here.
fn dump(call: &Call, answered: &Answered) -> String {
    let mut text = format!("> {} {} HTTP/1.1\n", call.method, call.target);
    for (name, value) in &call.headers {
        let value = if value.is_sensitive() {
            "████████████████████"
        } else {
            value.to_str().unwrap_or_default()
        };
        text.push_str(&format!("> {}: {value}\n", canonical(name.as_str())));
    }
    if let Some(body) = &call.body {
        text.push_str(&format!("\n{}\n", String::from_utf8_lossy(body)));
    }
    text.push('\n');
    for line in head(answered).lines().filter(|line| !line.is_empty()) {
        text.push_str(&format!("< {line}\n"));
    }
    text + "\n"
}

/// `x-github-media-type` as gh prints it: `X-Github-Media-Type`.
fn canonical(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let mut chars = word.chars();
        chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
    });
    words.collect::<Vec<_>>().join("-")
}

fn outcome(answer: &Answer) -> String {
    let reason = answer.outcome.reason().map_or_else(String::new, |reason| format!(" ({reason})"));
    let tier = answer.tier.map_or_else(String::new, |tier| format!(" from {}", tier.as_str()));
    format!(
        "{}{reason}{tier}, {} old, fresh for {}, {} requests",
        answer.outcome.as_str(),
        Span(answer.age_secs),
        Span(answer.ttl_secs),
        answer.requests
    )
}

fn said(is_graphql: bool, answered: &Answered) -> Option<String> {
    let body = response::visible(&answered.body);
    response::error(answered.status, is_graphql, answered.header("content-type"), &body)
}

/// What gh says on stderr of an answer that is an error.
fn report(masker: &Masker, last: &Answered, args: &ApiArgs, config: &Config) -> Exit {
    let is_graphql = args.endpoint == "graphql";
    let Some(said) = said(is_graphql, last) else {
        return Exit::Done;
    };
    print::note(masker, &format!("gh: {said}"));
    let scopes = |name: &str| Some(last.header(name)).filter(|scopes| !scopes.is_empty());
    let host = if config.api.host() == "api.github.com" { "github.com" } else { config.api.host() };
    let hint = response::scopes_hint(last.status, scopes("x-accepted-oauth-scopes"), scopes("x-oauth-scopes"), host);
    if let Some(hint) = hint {
        print::note(masker, &hint);
    }
    Exit::Failed
}
