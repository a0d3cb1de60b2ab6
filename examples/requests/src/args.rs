//! Argument values shared by subcommands.

use std::str::FromStr;

/// A range of whole numbers written `A..B`, both ends included, from 1 to 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub first: u32,
    pub last: u32,
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text
            .split_once("..")
            .and_then(|(first, last)| Some(Self { first: first.parse().ok()?, last: last.parse().ok()? }));
        match parsed {
            Some(span) if 1 <= span.first && span.first <= span.last && span.last <= 10_000 => Ok(span),
            _ => Err(format!("`{text}` is not a range: write A..B with 1 <= A <= B <= 10000, such as 1..160")),
        }
    }
}

/// One of several equal shares of the work, written `K/N` with K from 0 to N-1: item K of an
/// array of N items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub index: u32,
    pub of: u32,
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text
            .split_once('/')
            .and_then(|(index, of)| Some(Self { index: index.parse().ok()?, of: of.parse().ok()? }));
        match parsed {
            Some(share) if share.index < share.of => Ok(share),
            _ => Err(format!("`{text}` is not a share: write K/N with 0 <= K < N, such as 0/8 for the first of eight")),
        }
    }
}

impl Share {
    /// Every N-th value of the span, beginning with the K-th: shares cost about the same, which
    /// consecutive stretches would not.
    pub(crate) fn of(self, span: Span) -> impl Iterator<Item = u32> {
        (span.first..=span.last).skip(self.index as usize).step_by(self.of.max(1) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_include_both_ends() {
        assert_eq!("3..5".parse(), Ok(Span { first: 3, last: 5 }));
        for bad in ["", "3", "0..4", "5..4", "1..10001", "a..b", "1..=4"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_cover_a_span_once() {
        let span = Span { first: 1, last: 13 };
        let mut all: Vec<u32> = (0..4).flat_map(|index| Share { index, of: 4 }.of(span)).collect();
        all.sort_unstable();
        assert_eq!(all, (1..=13).collect::<Vec<_>>());
        for bad in ["4/4", "1", "-1/2", "1/0"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }
}
