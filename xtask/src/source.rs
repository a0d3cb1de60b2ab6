//! Just enough of Rust's grammar to look at names and lengths: comments and literals blanked out, and
//! the words that are left.

/// The same text with the contents of comments, strings and characters replaced by spaces; lines stay.
pub(crate) fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself when none begins there.
fn literal_end(chars: &[char], at: usize) -> usize {
    let next = chars.get(at + 1).copied().unwrap_or(' ');
    let in_word = at > 0 && is_word(chars[at - 1]);
    match (chars[at], next) {
        ('/', '/') => (at..chars.len()).find(|i| chars[*i] == '\n').unwrap_or(chars.len()),
        ('/', '*') => block_comment_end(chars, at),
        ('"', _) => quoted_end(chars, at, '"'),
        ('b' | 'c', '"') if !in_word => quoted_end(chars, at + 1, '"'),
        ('b', '\'') if !in_word => quoted_end(chars, at + 1, '\''),
        ('r', '"' | '#') if !in_word => raw_end(chars, at, at + 1),
        ('b' | 'c', 'r') if !in_word => raw_end(chars, at, at + 2),
        // A character; otherwise it is a lifetime or a label.
        ('\'', '\\') => quoted_end(chars, at, '\''),
        ('\'', _) if chars.get(at + 2) == Some(&'\'') => at + 3,
        _ => at,
    }
}

fn quoted_end(chars: &[char], open: usize, quote: char) -> usize {
    let mut at = open + 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

fn raw_end(chars: &[char], start: usize, hashes_at: usize) -> usize {
    let hashes = chars[hashes_at..].iter().take_while(|c| **c == '#').count();
    let open = hashes_at + hashes;
    if chars.get(open) != Some(&'"') {
        return start;
    }
    let closes =
        |at: usize| chars[at] == '"' && chars[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
    (open + 1..chars.len()).find(|at| closes(*at)).map_or(chars.len(), |at| at + 1 + hashes)
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let (mut depth, mut at) = (1, start + 2);
    while at < chars.len() && depth > 0 {
        match (chars[at], chars.get(at + 1).copied().unwrap_or(' ')) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at.min(chars.len())
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A word or a sign of the code, and its line, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

/// Words and signs of a text from [`code_only`].
pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut all = Vec::new();
    for (line, text) in (1..).zip(code.lines()) {
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let length = match first {
                c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                c => c.len_utf8(),
            };
            if !first.is_whitespace() {
                all.push(Token { text: &rest[..length], line });
            }
            rest = &rest[length..];
        }
    }
    all
}

/// Functions of a text: name, first line, number of lines.
pub(crate) fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let all = tokens(code);
    let mut found = Vec::new();
    for (at, pair) in all.windows(2).enumerate() {
        let [word, name] = pair else { continue };
        if word.text != "fn" || !name.text.starts_with(is_word) {
            continue;
        }
        if let Some(last) = body_end(&all[at + 2..]) {
            found.push((name.text.to_owned(), word.line, last - word.line + 1));
        }
    }
    found
}

/// The line of the brace that closes the function whose tokens follow its name; none without a body.
fn body_end(tokens: &[Token<'_>]) -> Option<usize> {
    let (mut brackets, mut braces) = (0_i32, 0_i32);
    for token in tokens {
        match token.text {
            "(" | "[" => brackets += 1,
            ")" | "]" => brackets -= 1,
            ";" if brackets == 0 && braces == 0 => return None,
            "{" => braces += 1,
            "}" => {
                braces -= 1;
                if braces == 0 {
                    return Some(token.line);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        let text = "let a = \"x // y\"; // job\nlet b = 'j'; /* job /* deep */ job\n*/ let c: &'job str = r#\"a \" job\"#; b\"\\\"job\"";
        let code = code_only(text);
        assert_eq!(code.lines().count(), text.lines().count());
        assert_eq!(code.matches("job").count(), 1, "the lifetime only: {code}");
        let words: Vec<&str> = tokens(&code).iter().map(|t| t.text).filter(|t| t.starts_with(is_word)).collect();
        assert_eq!(words, ["let", "a", "let", "b", "let", "c", "job", "str"]);
    }

    #[test]
    fn functions_are_measured_with_their_bodies() {
        let code = code_only(
            "trait T { fn short(&self, a: [u8; 4]); }\nfn long(\n  a: u8,\n) -> u8 {\n  {}\n  let f = |x| { x };\n  f(a)\n}\n",
        );
        assert_eq!(functions(&code), [("long".to_owned(), 2, 7)]);
    }
}
