//! The XHTML of a Narrative (R4 narrative page): one well-formed `div` of formatting elements, nothing active.
//! Knows nothing of resources.

use std::ops::Range;

const ELEMENTS: &[&str] = &[
    "a",
    "abbr",
    "acronym",
    "address",
    "b",
    "bdo",
    "big",
    "blockquote",
    "br",
    "caption",
    "cite",
    "code",
    "col",
    "colgroup",
    "dd",
    "del",
    "dfn",
    "div",
    "dl",
    "dt",
    "em",
    "font",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "i",
    "img",
    "ins",
    "kbd",
    "li",
    "map",
    "area",
    "ol",
    "p",
    "pre",
    "q",
    "s",
    "samp",
    "small",
    "span",
    "strike",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "tr",
    "tt",
    "u",
    "ul",
    "var",
];

const ATTRIBUTES: &[&str] = &[
    "abbr",
    "accesskey",
    "align",
    "alt",
    "axis",
    "bgcolor",
    "border",
    "cellpadding",
    "cellspacing",
    "char",
    "charoff",
    "charset",
    "cite",
    "class",
    "color",
    "colspan",
    "coords",
    "datetime",
    "dir",
    "face",
    "frame",
    "headers",
    "height",
    "href",
    "hreflang",
    "id",
    "lang",
    "longdesc",
    "name",
    "nowrap",
    "rel",
    "rev",
    "rowspan",
    "rules",
    "scope",
    "shape",
    "size",
    "span",
    "src",
    "start",
    "style",
    "summary",
    "tabindex",
    "target",
    "title",
    "type",
    "usemap",
    "valign",
    "value",
    "width",
    "xml:lang",
    "xml:space",
    "xmlns",
];

const NAMESPACE: &str = "http://www.w3.org/1999/xhtml";
const MAX_NESTING: usize = 128;

/// A fault of the narrative, in plain words.
type Fault = &'static str;

/// Whether `text` is a narrative that may be kept and shown.
pub(crate) fn check(text: &str) -> Result<(), Fault> {
    scan(text, &mut |_| {})
}

/// The places of every `href` and `src` value in a narrative, in order; none where it is faulty.
pub(crate) fn links(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    match scan(text, &mut |range| found.push(range)) {
        Ok(()) => found,
        Err(_) => Vec::new(),
    }
}

fn scan(text: &str, link: &mut dyn FnMut(Range<usize>)) -> Result<(), Fault> {
    let mut reader = Reader { text, at: 0 };
    let mut open: Vec<&str> = Vec::new();
    let mut says_something = false;
    reader.space();
    if !reader.rest().starts_with("<div") {
        return Err("the narrative must be one `div`");
    }
    loop {
        let rest = reader.rest();
        if let Some(comment) = rest.strip_prefix("<!--") {
            let end = comment
                .find("--")
                .filter(|end| comment.get(*end..).is_some_and(|c| c.starts_with("-->")));
            let Some(end) = end else {
                return Err("a comment in the narrative does not end well");
            };
            reader.at += end + "<!---->".len();
        } else if rest.starts_with("</") {
            reader.at += 2;
            let name = reader.name();
            reader.space();
            reader.expect(">")?;
            if open.pop() != Some(name) {
                return Err("the narrative's tags do not match");
            }
            if open.is_empty() {
                reader.space();
                let end = reader.rest().is_empty();
                return match (end, says_something) {
                    (false, _) => Err("something follows the narrative's `div`"),
                    (true, false) => Err("the narrative says nothing"),
                    (true, true) => Ok(()),
                };
            }
        } else if rest.starts_with('<') {
            reader.at += 1;
            let name = reader.name();
            if !ELEMENTS.contains(&name) {
                return Err("an element in the narrative is not allowed there");
            }
            let closed = reader.attributes(open.is_empty(), link)?;
            says_something |= name == "img";
            if !closed {
                open.push(name);
            } else if open.is_empty() {
                return Err("the narrative says nothing");
            }
            if open.len() > MAX_NESTING {
                return Err("the narrative is nested too deeply");
            }
        } else if rest.is_empty() {
            return Err("the narrative ends before its `div` does");
        } else {
            let end = rest.find('<').unwrap_or(rest.len());
            let words = rest.get(..end).unwrap_or_default();
            entities(words)?;
            says_something |= !words.trim().is_empty();
            reader.at += end;
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn expect(&mut self, word: &str) -> Result<(), Fault> {
        if self.rest().starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            Err("a tag in the narrative is not well formed")
        }
    }

    fn name(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_')))
            .unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    /// The attributes of a tag and its end; whether it closed itself.
    fn attributes(&mut self, root: bool, link: &mut dyn FnMut(Range<usize>)) -> Result<bool, Fault> {
        let mut seen: Vec<&str> = Vec::new();
        let mut namespace = false;
        loop {
            let before = self.at;
            self.space();
            let spaced = self.at > before;
            let rest = self.rest();
            let closed = rest.starts_with("/>");
            if closed || rest.starts_with('>') {
                self.at += if closed { 2 } else { 1 };
                return if root && !namespace {
                    Err("the narrative's `div` must be in the XHTML namespace")
                } else {
                    Ok(closed)
                };
            }
            let name = self.name();
            if name.is_empty() || !spaced || seen.contains(&name) {
                return Err("a tag in the narrative is not well formed");
            }
            seen.push(name);
            self.space();
            self.expect("=")?;
            self.space();
            let value = self.quoted()?;
            let written = self.text.get(value.clone()).unwrap_or_default();
            if !ATTRIBUTES.contains(&name) {
                return Err("an attribute in the narrative is not allowed there");
            }
            match name {
                "xmlns" if written == NAMESPACE => namespace = true,
                "xmlns" => return Err("the narrative's `div` must be in the XHTML namespace"),
                "href" | "src" | "cite" | "longdesc" | "usemap" => {
                    safe_link(written)?;
                    if matches!(name, "href" | "src") {
                        link(value);
                    }
                }
                "style" => safe_style(written)?,
                _ => {}
            }
        }
    }

    fn quoted(&mut self) -> Result<Range<usize>, Fault> {
        let Some(quote @ ('"' | '\'')) = self.rest().chars().next() else {
            return Err("a tag in the narrative is not well formed");
        };
        let start = self.at + 1;
        let Some(len) = self.text.get(start..).and_then(|rest| rest.find(quote)) else {
            return Err("a tag in the narrative is not well formed");
        };
        let value = self.text.get(start..start + len).unwrap_or_default();
        if value.contains('<') {
            return Err("a tag in the narrative is not well formed");
        }
        entities(value)?;
        self.at = start + len + 1;
        Ok(start..start + len)
    }
}

/// Only XML's own entities and character numbers; others would need a DTD.
fn entities(text: &str) -> Result<(), Fault> {
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        rest = rest.get(at + 1..).unwrap_or_default();
        let Some(end) = rest.find(';') else {
            return Err("an entity in the narrative does not end");
        };
        let name = rest.get(..end).unwrap_or_default();
        let known = matches!(name, "amp" | "lt" | "gt" | "quot" | "apos") || character(name).is_some();
        if !known {
            return Err("an entity in the narrative is not one of XML's own");
        }
    }
    Ok(())
}

/// The character that `#65` or `#x41` stands for.
fn character(name: &str) -> Option<char> {
    let number = name.strip_prefix('#')?;
    let code = match number.strip_prefix('x') {
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => u32::from_str_radix(hex, 16).ok()?,
        None if number.bytes().all(|b| b.is_ascii_digit()) => number.parse().ok()?,
        _ => return None,
    };
    char::from_u32(code).filter(|c| *c >= ' ' || matches!(c, '\t' | '\r' | '\n'))
}

/// The text with its entities resolved, white space and case gone: what a browser would make of it.
fn squeezed(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(rest.get(..at).unwrap_or_default());
        rest = rest.get(at + 1..).unwrap_or_default();
        let Some((name, after)) = rest.split_once(';') else {
            break;
        };
        match name {
            "amp" => out.push('&'),
            "lt" => out.push('<'),
            "gt" => out.push('>'),
            "quot" => out.push('"'),
            "apos" => out.push('\''),
            number => out.extend(character(number)),
        }
        rest = after;
    }
    out.push_str(rest);
    out.retain(|c| !c.is_whitespace() && !c.is_control());
    out.to_ascii_lowercase()
}

fn safe_link(written: &str) -> Result<(), Fault> {
    let link = squeezed(written);
    let scheme = link
        .split(['/', '?', '#'])
        .next()
        .and_then(|head| head.split_once(':'))
        .map(|(scheme, _)| scheme);
    match scheme {
        None | Some("http" | "https" | "mailto" | "tel" | "urn" | "cid") => Ok(()),
        Some("data") if link.starts_with("data:image/") && !link.starts_with("data:image/svg") => Ok(()),
        Some(_) => Err("a link in the narrative has a scheme that is not allowed"),
    }
}

fn safe_style(written: &str) -> Result<(), Fault> {
    let style = squeezed(written);
    let active = [
        "url(",
        "expression(",
        "@import",
        "behavior",
        "-moz-binding",
        "javascript:",
        "\\",
        "/*",
    ];
    if active.iter().any(|word| style.contains(word)) {
        return Err("a style in the narrative is not allowed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn div(inner: &str) -> String {
        format!("<div xmlns=\"{NAMESPACE}\">{inner}</div>")
    }

    #[test]
    fn formatted_text_is_taken() {
        for inner in [
            "plain &amp; simple &#160; &#xA0;",
            "<p style='color: red'>a<br/>b</p><table border=\"1\"><tr><td>x</td></tr></table>",
            "<a href=\"Patient/1\">x</a><img src=\"#pic\" alt=\"y\"/>",
            "<!-- a comment --> text",
            "<img src='data:image/png;base64,AAAA' alt=''/>",
        ] {
            assert_eq!(check(&div(inner)), Ok(()), "{inner}");
        }
    }

    #[test]
    fn anything_active_or_broken_is_refused() {
        for inner in [
            "<script>alert(1)</script>",
            "<SCRIPT>x</SCRIPT>",
            "<p onclick=\"x()\">a</p>",
            "<p ONCLICK='x()'>a</p>",
            "<a href=\"javascript:x()\">a</a>",
            "<a href=\"java&#115;cript:x()\">a</a>",
            "<a href=\" JaVa\tScript:x()\">a</a>",
            "<a href='data:text/html,x'>a</a>",
            "<a href='vbscript:x'>a</a>",
            "<img src='data:image/svg+xml,x'/>",
            "<p style=\"background: url(http://x)\">a</p>",
            "<p style='width: expression(x)'>a</p>",
            "<iframe src='http://x'/>",
            "<object/>",
            "<form/>",
            "<input/>",
            "<style>a</style>",
            "<link/>",
            "<svg/>",
            "<base href='x'/>",
            "<p>a",
            "<p>a</b>",
            "a & b",
            "&nbsp;",
            "&#0;",
            "&#xg;",
            "<p a>b</p>",
            "<p class=x>b</p>",
            "<p class='a' class='b'>c</p>",
            "<p class='a'class='b'>c</p>",
            "<![CDATA[x]]>",
            "<?php x?>",
            "<!DOCTYPE x>",
            "<!-- a -- b -->x",
            "<p class='<'>a</p>",
            "",
            "  ",
            "<p> </p>",
            "<p xmlns='http://x'>a</p>",
            "<x:p>a</x:p>",
        ] {
            assert!(check(&div(inner)).is_err(), "{inner}");
        }
        for whole in [
            "",
            "text",
            "<p>a</p>",
            "<div>a</div>",
            "<div xmlns='http://x'>a</div>",
        ] {
            assert!(check(whole).is_err(), "{whole}");
        }
        assert!(check(&format!("{}x", div("a"))).is_err());
        assert!(check(&format!("<!DOCTYPE html>{}", div("a"))).is_err());
        assert!(check(&div(&"<p>".repeat(100_000))).is_err());
    }

    #[test]
    fn the_links_of_a_narrative_are_found() {
        let text = div("<a href=\"urn:a\">x</a><img src='b'/>");
        let found: Vec<&str> = links(&text).into_iter().map(|r| &text[r]).collect();
        assert_eq!(found, ["urn:a", "b"]);
    }
}
