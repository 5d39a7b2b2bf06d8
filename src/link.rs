//! The `Link` header (RFC 8288), as far as GitHub uses it for pages.
//!
//! Knows: finding `rel="next"`. Does not know: which addresses may be followed (`request`).

/// The address of the next page, where there is one.
pub fn next(link: &str) -> Option<&str> {
    relation(link, "next")
}

/// The address of the last page, where that is known.
pub fn last(link: &str) -> Option<&str> {
    relation(link, "last")
}

/// The address of the page before, where there is one.
pub fn prev(link: &str) -> Option<&str> {
    relation(link, "prev")
}

/// All addresses.
pub fn targets(link: &str) -> impl Iterator<Item = &str> {
    link.split('<').skip(1).filter_map(|rest| rest.split_once('>').map(|(target, _)| target))
}

fn relation<'a>(link: &'a str, rel: &str) -> Option<&'a str> {
    let mut rest = link;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>')?;
        let target = &rest[start + 1..end];
        let params_end = rest[end..].find('<').map_or(rest.len(), |at| end + at);
        let named = rest[end + 1..params_end].split([';', ',']).any(|param| {
            param.trim().split_once('=').is_some_and(|(name, value)| {
                let value = value.trim().trim_matches('"');
                name.trim().eq_ignore_ascii_case("rel") && value.split(' ').any(|one| one.eq_ignore_ascii_case(rel))
            })
        });
        if named {
            return Some(target);
        }
        rest = &rest[params_end..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_next_page_among_others() {
        let link = r#"<https://h/x?page=1>; rel="prev", <https://h/x?page=3&q=a,b>; rel="next", <https://h/x?page=9>; rel="last""#;
        assert_eq!(next(link), Some("https://h/x?page=3&q=a,b"));
        assert_eq!(next(r#"<https://h/x?page=1>; rel="first""#), None);
        for broken in ["", "<", "<x", "x>; rel=next", "<x>; rel", "<<>>;;=,"] {
            assert_eq!(next(broken), None, "{broken}");
        }
    }
}
