//! Removing secret values from a stream of bytes that comes in pieces.

/// What stands in a secret's place.
const MASK: &[u8] = b"***";

/// Replaces every occurrence of its secrets, also one that is split between two pieces.
#[derive(Debug, Clone)]
pub struct Redactor {
    /// Longest first, so that the longest of several that begin alike is taken.
    secrets: Vec<Vec<u8>>,
    /// Does any secret begin with this byte?
    begins: Box<[bool; 256]>,
    /// The end of what came so far, as long as it may be the beginning of a secret.
    held: Vec<u8>,
}

impl Redactor {
    /// A redactor of these values; empty ones are left out. A value of several lines is looked for
    /// as a whole and line by line, since programs print lines.
    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut secrets: Vec<Vec<u8>> = Vec::new();
        for value in values {
            let trimmed = value.trim_end_matches(['\r', '\n']);
            let lines = trimmed.lines().filter(|_| trimmed.contains('\n'));
            secrets.extend(lines.chain([trimmed]).filter(|v| !v.is_empty()).map(|v| v.as_bytes().to_vec()));
        }
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        let mut begins = Box::new([false; 256]);
        for secret in &secrets {
            begins[usize::from(secret[0])] = true;
        }
        Self { secrets, begins, held: Vec::new() }
    }

    /// Takes the next piece; appends to `out` what is safe to show by now.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        if self.secrets.is_empty() {
            out.extend_from_slice(piece);
            return;
        }
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(piece);
        let held_from = self.scan(&bytes, false, out);
        bytes.drain(..held_from);
        self.held = bytes;
    }

    /// The stream is over: what was held back is shown, as it is no whole secret.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let bytes = std::mem::take(&mut self.held);
        self.scan(&bytes, true, out);
    }

    /// Returns from where on the bytes may be the beginning of a secret.
    fn scan(&self, bytes: &[u8], last: bool, out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        while let Some(&first) = bytes.get(at) {
            if !self.begins[usize::from(first)] {
                let plain = bytes[at..].iter().position(|b| self.begins[usize::from(*b)]).unwrap_or(bytes.len() - at);
                out.extend_from_slice(&bytes[at..at + plain]);
                at += plain;
                continue;
            }
            let rest = &bytes[at..];
            if !last && self.secrets.iter().any(|s| s.len() > rest.len() && s.starts_with(rest)) {
                return at;
            }
            if let Some(secret) = self.secrets.iter().find(|s| rest.starts_with(s)) {
                out.extend_from_slice(MASK);
                at += secret.len();
            } else {
                out.push(first);
                at += 1;
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(secrets: &[&str], pieces: &[&[u8]]) -> String {
        let mut redactor = Redactor::new(secrets.iter().copied());
        let mut out = Vec::new();
        for piece in pieces {
            redactor.push(piece, &mut out);
        }
        redactor.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn secrets_go_also_at_boundaries() {
        assert_eq!(redacted(&["hunter2"], &[b"the hunt", b"er2 and hunter", b"s"]), "the *** and hunters");
        assert_eq!(redacted(&["aab"], &[b"aa", b"ab"]), "a***");
        assert_eq!(redacted(&["ab", "abcd"], &[b"ab", b"cd ab", b"x"]), "*** ***x");
        assert_eq!(redacted(&["", "x"], &[b"axb"]), "a***b");
        assert_eq!(redacted(&[], &[b"axb"]), "axb");
        assert_eq!(redacted(&["line1\nline2\n"], &[b"say line2 and line1\nline2!"]), "say *** and ***!");
    }

    /// Whatever the pieces: the same result as in one piece, and no secret in it.
    #[test]
    fn pieces_make_no_difference() {
        let secrets = ["abab", "bca", "abc", "ccccc"];
        let mut state = 7_u32;
        let mut draw = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) % below
        };
        for _ in 0..2_000 {
            let text: Vec<u8> = (0..draw(60)).map(|_| b"abcd"[draw(4) as usize]).collect();
            let whole = redacted(&secrets, &[&text]);
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut rest = &text[..];
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((1 + draw(7) as usize).min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            assert_eq!(redacted(&secrets, &pieces), whole, "{pieces:?}");
            assert!(secrets.iter().all(|s| !whole.contains(s)), "{whole}");
        }
    }
}
