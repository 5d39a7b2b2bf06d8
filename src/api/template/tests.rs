//! Templates, against what Go gives.

use super::*;

fn run(template: &str, json: &str) -> Result<String, String> {
    let surroundings = Surroundings { now: Timestamp::from_secs(1_700_000_000), colour: false };
    let mut template = Template::parse(template, surroundings)?;
    let out = template.run(json.as_bytes())?;
    Ok(out + &template.finish())
}

#[test]
fn what_go_gives() {
    let json = r#"{"n":1500,"f":1.25,"big":1234567,"s":"a<b","t":true,"x":null,"l":[{"k":"one"},{"k":"two"}],"e":[],"m":{"b":1,"a":"x"}}"#;
    for (template, wanted) in [
        (
            "{{.n}} {{.f}} {{.big}} {{.s}} {{.t}} {{.x}} {{.none}}",
            "1500 1.25 1.234567e+06 a<b true <no value> <no value>",
        ),
        ("{{.l}} {{.m}}", "[map[k:one] map[k:two]] map[a:x b:1]"),
        ("{{range .l}}{{.k}},{{end}}", "one,two,"),
        ("{{range $i, $v := .l}}{{$i}}={{$v.k}} {{end}}", "0=one 1=two "),
        ("{{range $k, $v := .m}}{{$k}}={{$v}} {{end}}", "a=x b=1 "),
        ("{{range .e}}x{{else}}none{{end}}", "none"),
        ("{{if .t}}yes{{else}}no{{end}}{{if .x}}yes{{else if .n}}n{{else}}no{{end}}", "yesn"),
        ("{{with .m}}{{.a}}{{$.n}}{{end}}{{with .x}}x{{else}}-{{end}}", "x1500-"),
        ("{{$v := .n}}{{$v}}{{if true}}{{$v = 2}}{{end}}{{$v}}", "15002"),
        ("a  {{- .s -}}  b\n{{- /* c */ -}}\n c", "aa<bbc"),
        ("{{len .l}} {{index .l 1}} {{(index .l 0).k}} {{index .m \"a\"}}", "2 map[k:two] one x"),
        (
            "{{eq .s \"a<b\"}} {{ne .t true}} {{and .t .s}} {{or .x .n}} {{not .x}} {{gt (len .l) 1}}",
            "true false a<b 1500 true true",
        ),
        ("{{printf \"%s-%5.1f|%-4s|%v|%q\" .s .f \"x\" .l \"q\"}}", "a<b-  1.2|x   |[map[k:one] map[k:two]]|\"q\""),
        ("{{print 1 2 \"a\" \"b\" 3}}{{println .t 1}}", "1 2ab3true 1\n"),
        ("{{.l | pluck \"k\" | join \", \"}}", "one, two"),
        ("{{truncate 6 \"abcdefghij\"}} {{truncate 3 \"abcdef\"}} {{truncate 9 .x}}|", "abc... abc |"),
        (
            "{{timeago \"2023-11-14T21:13:20Z\"}}, {{timeago \"2023-11-14T22:13:00Z\"}}, {{timeago \"2021-11-14T21:13:20Z\"}}",
            "1 hour ago, just now, 2 years ago",
        ),
        ("{{timefmt \"Mon Jan _2 15:04:05 2006 MST\" \"2023-01-04T05:06:07Z\"}}", "Wed Jan  4 05:06:07 2023 UTC"),
        ("{{range .l}}{{tablerow .k $.n}}{{end}}", "one  1500\ntwo  1500\n"),
        ("{{define \"t\"}}<{{.}}>{{end}}{{template \"t\" .s}}{{block \"u\" .n}}[{{.}}]{{end}}", "<a<b>[1500]"),
        ("{{range .l}}{{if eq .k \"two\"}}{{break}}{{end}}{{.k}}{{end}}", "one"),
        ("{{html .s}} {{urlquery \"a b\"}} {{`raw\\n`}} {{\"q\\n\"}}|", "a&lt;b a+b raw\\n q\n|"),
        ("{{slice \"abcdef\" 1 3}} {{autocolor \"red\" .n}} {{color \"green\" \"x\"}}", "bc 1500 x"),
    ] {
        assert_eq!(run(template, json).as_deref(), Ok(wanted), "{template}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    for (template, words) in [
        ("{{", "unclosed action"),
        ("{{.a", "unclosed action"),
        ("{{if .a}}", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{nope .a}}", "function \"nope\" not defined"),
        ("{{\"a}}", "unterminated quoted string"),
        ("{{.s.x}}", "can't evaluate field x in string"),
        ("{{eq .n 1}}", "incompatible types"),
        ("{{$x}}", "undefined variable"),
        ("{{range .n}}{{end}}", "range can't iterate"),
        ("{{template \"none\"}}", "no template"),
        ("{{define \"a\"}}{{template \"a\"}}{{end}}{{template \"a\"}}", "maximum template depth"),
        ("{{index .l 9}}", "out of range"),
        ("{{| len}}", "missing value"),
        ("{{(.a}}", "unclosed left paren"),
        ("{{len .a | }}", "missing value"),
    ] {
        let error = run(template, r#"{"s":"a","n":1,"l":[]}"#).unwrap_err();
        assert!(error.contains(words), "{template}: {error}");
    }
    let deep = "{{if true}}".repeat(5_000);
    assert!(run(&deep, "{}").is_err());
    let parens = format!("{{{{{}1{}}}}}", "(".repeat(5_000), ")".repeat(5_000));
    assert!(run(&parens, "{}").is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_is_a_panic(text in "(\\{\\{|\\}\\}|-|if|range|end|else|\\.a|\\$x|:=|\\||\\(|\\)|\"|'|`| |len|printf|%|1|\\n|/\\*|\\*/){0,25}") {
        let _whatever = run(&text, r#"{"a":[1,"x"]}"#);
    }
}
