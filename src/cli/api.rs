//! `octocache api`: one request, answered like `gh api` does.

use bytes::Bytes;

use super::args::ApiArgs;
use super::{Context, Exit, block_on, print, request_config};
use crate::cache::Answer;
use crate::error::{Error, Kind, Result};
use crate::plan::document;
use crate::plan::filter::Filter;
use crate::plan::template::{Escape, Template};
use crate::request::Request;
use crate::units::Span;

pub(super) fn main(context: &Context, args: &ApiArgs) -> Result<Exit> {
    if !args.method.eq_ignore_ascii_case("GET") {
        return Err(Error::usage(format!("the method {} is not supported here", args.method.escape_debug()))
            .hint("octocache answers GET; use `gh api` for the others"));
    }
    let filter = args.jq.as_deref().map(Filter::compile).transpose().map_err(Error::usage)?;
    let mut flags = context.flags.clone();
    args.mode.lower_into(&mut flags);
    let config = request_config(&flags)?;
    let cache = config.cache(None, &context.clock);
    let path = fill_in(&args.endpoint, || config.repository_vars())?;
    let mut request = Request::get(&config.api, &path)?;
    for header in &args.header {
        let (name, value) = header.split_once(':').ok_or_else(|| {
            Error::usage(format!("`{}` is no header", header.escape_debug())).hint("write `name: value`")
        })?;
        request = match name.trim().to_ascii_lowercase().as_str() {
            "accept" => request.accepting(value.trim()),
            "x-github-api-version" => request.version(value.trim()),
            _ => {
                return Err(Error::usage(format!("the header `{}` cannot be set", name.escape_debug()))
                    .hint("Accept and X-GitHub-Api-Version can"));
            }
        };
    }
    let ask = args.mode.ask(config.mode);
    let answers = block_on(async {
        if args.paginate {
            let request = request.with_default_param("per_page", "100");
            cache.get_pages(&request, &ask).await
        } else {
            cache.get(&request, &ask).await.map(|answer| vec![answer])
        }
    });
    cache.flush();
    let answers = answers??;
    if args.outcome {
        for answer in &answers {
            print::note(&outcome(answer));
        }
    }
    write(args, &answers, filter.as_ref())?;
    Ok(finish(&answers))
}

/// The path with `{owner}` and `{repo}` (or gh's `:owner`, `:repo`) in place; git is asked only
/// when they are there.
fn fill_in(endpoint: &str, vars: impl FnOnce() -> std::collections::BTreeMap<String, String>) -> Result<String> {
    let endpoint = endpoint.replace("/:owner/:repo", "/{owner}/{repo}");
    if !endpoint.contains('{') {
        return Ok(endpoint);
    }
    let template = Template::parse(&endpoint).map_err(Error::usage)?;
    let vars = vars();
    template.fill(Escape::Url, |name| vars.get(name).cloned()).map_err(|name| {
        Error::usage(format!("{{{name}}} has no value")).hint("set GH_REPO=OWNER/REPO, or run inside a clone")
    })
}

fn write(args: &ApiArgs, answers: &[Answer], filter: Option<&Filter>) -> Result<()> {
    if args.include {
        for answer in answers {
            print::out(head(answer).as_bytes())?;
        }
    }
    if args.silent {
        return Ok(());
    }
    // An error's body is shown as it is, like gh does.
    let good = answers.iter().all(|answer| answer.entry.status < 300);
    if let Some(filter) = filter.filter(|_| good) {
        for answer in answers {
            for output in filter.run(&answer.entry.body).map_err(|why| Error::new(Kind::Usage, why))? {
                // Strings are printed raw, everything else as JSON.
                let raw = serde_json::from_slice::<String>(&output).map_or(output, String::into_bytes);
                print::out(&[&raw[..], b"\n"].concat())?;
            }
        }
        return Ok(());
    }
    let bodies: Vec<Bytes> = answers.iter().map(|answer| answer.entry.body.clone()).collect();
    match bodies.as_slice() {
        [one] => print::out(one),
        many => match document::join(many) {
            Ok(joined) => print::out(&joined),
            Err(_) => many.iter().try_for_each(|body| print::out(body)),
        },
    }
}

fn head(answer: &Answer) -> String {
    let status = http::StatusCode::from_u16(answer.entry.status).ok();
    let reason = status.and_then(|status| status.canonical_reason()).unwrap_or_default();
    let mut text = format!("HTTP/1.1 {} {reason}\n", answer.entry.status);
    for (name, value) in answer.entry.headers.iter() {
        text.push_str(&format!("{}: {value}\r\n", canonical(name)));
    }
    text.push_str("\r\n");
    text
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

fn finish(answers: &[Answer]) -> Exit {
    #[derive(serde::Deserialize)]
    struct Refusal {
        message: String,
    }
    let Some(bad) = answers.iter().find(|answer| answer.entry.status >= 300) else { return Exit::Done };
    let message = serde_json::from_slice::<Refusal>(&bad.entry.body).map(|body| body.message);
    print::note(&match message {
        Ok(message) => format!("octocache: {message} (HTTP {})", bad.entry.status),
        Err(_) => format!("octocache: HTTP {}", bad.entry.status),
    });
    Exit::Failed
}
