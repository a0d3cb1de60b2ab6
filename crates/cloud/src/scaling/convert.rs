//! Conversions of one value, from the common form to a cloud's and back.
//!
//! | word | to the cloud | |
//! |---|---|---|
//! | `words:LIST` `open:LIST` | by a list of words; `open`: other words stay as they are | arrays one by one |
//! | `actions:LIST` | each word becomes several; back when all of them are there | |
//! | `iso` | seconds as `PT5M` | |
//! | `times:N` `per:N` `part:N` | multiplied; divided and rounded up; divided exactly | |
//! | `int` `min:N` `max:N` `one_of:N,N*` | rounded; limited; the next one that is allowed (`*`: or a multiple of it) | |
//! | `by:PLACE` `plus:PLACE` | times, or plus, what stands at another place of the common form; `by:PLACE+min:60`: as it is there | |
//! | `text` `not` `neg` `b64` | a number as text; the opposite; with the other sign; text in base 64 | |
//! | `size` `sign:MORE,FEWER` | a change without its sign; only its sign, as a word | `size` stands first |
//! | `list` `first` `join` `lines` `objects:KEY` | one as a list; a list's first; joined by ',' or line ends; each as `{KEY: ...}` | |
//! | `like:PATTERN` | within other text: `*` is the value, `%` (only read, after a `\|`) any text | |
//! | `tagged` | an image as `name` or `name:tag` | |
//! | `unless:PLACE` | nothing, where a number stands at that place of the common form | |
//! | `number` | text as a number | |
//! | `pairs:KEY,TEXT` | each as `{KEY: [it, TEXT]}` | |
//! | `underscored` | '-' as '_' | only written |
//! | `cron` `quartz` | days and time as a cron expression of five fields; of six, seconds first | |

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use skein_domain::scaling::Day;

use super::difference::Why;
use super::path::Path;
use super::tree;

type Words = BTreeMap<String, Value>;

#[derive(Debug, Clone)]
pub(super) enum Conversion {
    Words { words: Words, open: bool },
    Actions(Words),
    Iso,
    Times(f64),
    Per(f64),
    Part(f64),
    Int,
    Min(f64),
    Max(f64),
    OneOf { all: Vec<f64>, multiples: bool },
    By { path: Path, as_theirs: Vec<Conversion> },
    Plus(Path),
    Unless(Path),
    Text,
    Not,
    Neg,
    B64,
    Size,
    Sign(String, String),
    List,
    First,
    Join(&'static str),
    Underscored,
    Objects(String),
    Pairs(String, String),
    Number,
    Like(Vec<String>),
    Tagged,
    Cron,
    Quartz,
}

/// A period that no document names, seconds: the common form's default.
const PERIOD_S: f64 = 60.0;

/// Tells the number at another place of the common form.
pub(super) type At<'a> = dyn Fn(&Path) -> Option<f64> + 'a;

/// What became of a value: none when it cannot be said, and why it is not what it was.
type Said = (Option<Value>, Option<Why>);

impl Conversion {
    pub(super) fn read(word: &str, lists: &BTreeMap<String, Words>) -> Result<Self, String> {
        let (name, with) = word.split_once(':').unwrap_or((word, ""));
        let number = || with.parse::<f64>().map_err(|_| format!("'{word}' needs a number"));
        let words = || lists.get(with).cloned().ok_or_else(|| format!("there is no list of words '{with}'"));
        Ok(match name {
            "words" => Self::Words { words: words()?, open: false },
            "open" => Self::Words { words: words()?, open: true },
            "actions" => Self::Actions(words()?),
            "iso" => Self::Iso,
            "times" => Self::Times(number()?),
            "per" => Self::Per(number()?),
            "part" => Self::Part(number()?),
            "int" => Self::Int,
            "min" => Self::Min(number()?),
            "max" => Self::Max(number()?),
            "one_of" => {
                let (numbers, multiples) = with.strip_suffix('*').map_or((with, false), |numbers| (numbers, true));
                let all = numbers.split(',').map(str::parse).collect::<Result<_, _>>();
                Self::OneOf { all: all.map_err(|_| format!("'{word}' needs numbers"))?, multiples }
            }
            "by" => {
                let mut parts = with.split('+');
                let path = Path::read(parts.next().unwrap_or_default())?;
                let as_theirs = parts.map(|part| Self::read(part, lists)).collect::<Result<_, _>>()?;
                Self::By { path, as_theirs }
            }
            "plus" => Self::Plus(Path::read(with)?),
            "unless" => Self::Unless(Path::read(with)?),
            "text" => Self::Text,
            "not" => Self::Not,
            "neg" => Self::Neg,
            "b64" => Self::B64,
            "size" => Self::Size,
            "sign" => {
                let (more, fewer) = with.split_once(',').ok_or_else(|| format!("'{word}' needs two words"))?;
                Self::Sign(more.to_owned(), fewer.to_owned())
            }
            "list" => Self::List,
            "first" => Self::First,
            "join" => Self::Join(","),
            "lines" => Self::Join("\n"),
            "underscored" => Self::Underscored,
            "objects" => Self::Objects(with.to_owned()),
            "pairs" => {
                let (key, second) = with.split_once(',').ok_or_else(|| format!("'{word}' needs two words"))?;
                Self::Pairs(key.to_owned(), second.to_owned())
            }
            "number" => Self::Number,
            "like" => Self::Like(with.split('|').map(|pattern| pattern.replace('~', " ")).collect()),
            "tagged" => Self::Tagged,
            "cron" => Self::Cron,
            "quartz" => Self::Quartz,
            _ => return Err(format!("'{word}' is no conversion")),
        })
    }

    /// To the cloud's form; `at` tells what stands at another place of the common form.
    pub(super) fn out(&self, value: Value, at: &At<'_>) -> Said {
        let number = value.as_f64();
        match self {
            Self::Words { words, open } => match value {
                Value::Array(all) => each_word(words, *open, all),
                one => word(words, *open, one),
            },
            Self::Actions(words) => actions(words, value),
            Self::Min(least) => limit(number, |n| n.max(*least), *least),
            Self::Max(most) => limit(number, |n| n.min(*most), *most),
            Self::OneOf { all, multiples } => {
                let last = all.last().copied().unwrap_or(1.0);
                let above = |n: f64| if *multiples { (n / last).ceil() * last } else { last };
                let next = |n: f64| all.iter().copied().find(|one| *one >= n).unwrap_or_else(|| above(n));
                limit(number, next, number.map_or(0.0, next))
            }
            Self::By { path, as_theirs } => {
                (number.zip(theirs(path, as_theirs, at)).map(|(n, by)| tree::number(n * by)), None)
            }
            Self::Plus(path) => {
                (number.zip(at(path)).map(|(n, more)| tree::number(((n + more) * 1e6).round() / 1e6)), None)
            }
            Self::Unless(path) => (Some(value).filter(|_| at(path).is_none()), None),
            Self::Int => rounded(number, f64::round),
            Self::Per(by) => rounded(number.map(|n| n / by), f64::ceil),
            Self::First => match value {
                Value::Array(all) if all.len() > 1 => {
                    let why = Why::TooMany { kept: 1 };
                    (all.into_iter().next(), Some(why))
                }
                Value::Array(all) => (all.into_iter().next(), None),
                one => (Some(one), None),
            },
            _ => (self.exact(value), None),
        }
    }

    /// Those that lose nothing.
    fn exact(&self, value: Value) -> Option<Value> {
        let number = value.as_f64();
        Some(match self {
            Self::Iso => Value::from(iso(value.as_u64()?)),
            Self::Times(by) => tree::number(number? * by),
            // Six decimals are a thousandth of a percent.
            Self::Part(by) => tree::number((number? / by * 1e6).round() / 1e6),
            Self::Text => Value::from(value.to_string()),
            Self::Not => Value::from(!value.as_bool()?),
            Self::Neg => tree::number(-number?),
            Self::B64 => Value::from(STANDARD.encode(value.as_str()?)),
            Self::Size => tree::number(number?.abs()),
            Self::Sign(more, fewer) => Value::from(if number? < 0.0 { fewer.clone() } else { more.clone() }),
            Self::List => Value::Array(vec![value]),
            Self::Join(by) => {
                Value::from(value.as_array()?.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(by))
            }
            Self::Underscored => Value::from(value.as_str()?.replace('-', "_")),
            Self::Objects(key) => value.as_array()?.iter().map(|one| json!({ key: one })).collect(),
            Self::Pairs(key, second) => value.as_array()?.iter().map(|one| json!({ key: [one, second] })).collect(),
            Self::Number => value.as_str()?.parse::<u64>().ok()?.into(),
            Self::Like(patterns) => match &value {
                Value::Array(all) => {
                    all.iter().filter_map(Value::as_str).map(|text| patterns[0].replace('*', text)).collect()
                }
                one => Value::from(patterns[0].replace('*', one.as_str()?)),
            },
            Self::Tagged => match (value["name"].as_str()?, value["tag"].as_str().unwrap_or("latest")) {
                (name, "latest") => Value::from(name),
                (name, tag) => Value::from(format!("{name}:{tag}")),
            },
            Self::Cron => Value::from(format!("{} {} * * {}", value["minute"], value["hour"], days(&value, cron_day)?)),
            Self::Quartz => {
                Value::from(format!("0 {} {} ? * {}", value["minute"], value["hour"], days(&value, short)?))
            }
            _ => return None,
        })
    }

    /// Back to the common form; `current` is what stands there already.
    pub(super) fn back(&self, value: Value, current: Option<&Value>, at: &At<'_>) -> Option<Value> {
        let number = value.as_f64();
        Some(match self {
            Self::Words { words, open } => match value {
                Value::Array(all) => all.into_iter().filter_map(|one| word_back(words, *open, one)).collect(),
                one => word_back(words, *open, one)?,
            },
            Self::Actions(words) => {
                let given: Vec<&str> = value.as_array()?.iter().filter_map(Value::as_str).collect();
                let whole = |of: &Value| {
                    of.as_array().is_some_and(|all| all.iter().filter_map(Value::as_str).all(|a| given.contains(&a)))
                };
                words.iter().filter(|(_, of)| whole(of)).map(|(word, _)| word.clone()).collect()
            }
            Self::Iso => Value::from(from_iso(value.as_str()?)?),
            Self::Times(by) => tree::number(number? / by),
            Self::Per(by) => tree::number(number? * by),
            Self::Part(by) => tree::number((number? * by * 1e3).round() / 1e3),
            Self::Int
            | Self::Min(_)
            | Self::Max(_)
            | Self::OneOf { .. }
            | Self::Size
            | Self::Underscored
            | Self::Unless(_) => value,
            Self::By { path, as_theirs } => {
                let by = theirs(path, as_theirs, at).unwrap_or(PERIOD_S).max(1.0);
                tree::number((number? / by).floor().max(1.0))
            }
            Self::Plus(path) => tree::number(((number? - at(path)?) * 1e6).round() / 1e6),
            Self::Text => tree::number(value.as_str().map_or(number, |text| text.parse().ok())?),
            Self::Not => Value::from(!value.as_bool()?),
            Self::Neg => tree::number(-number?),
            Self::B64 => Value::from(String::from_utf8(STANDARD.decode(value.as_str()?).ok()?).ok()?),
            Self::Sign(_, fewer) => {
                let size = current?.as_f64()?;
                tree::number(if value.as_str()? == fewer { -size } else { size })
            }
            Self::List => value.as_array()?.first()?.clone(),
            Self::First => Value::Array(vec![value]),
            Self::Join(by) => value.as_str()?.split(by).map(str::trim).filter(|text| !text.is_empty()).collect(),
            Self::Objects(key) => value.as_array()?.iter().filter_map(|one| one.get(key)).cloned().collect(),
            Self::Pairs(key, _) => value.as_array()?.iter().filter_map(|one| one.get(key)?.get(0)).cloned().collect(),
            Self::Number => Value::from(value.to_string()),
            Self::Like(patterns) => match &value {
                Value::Array(all) => all.iter().filter_map(|one| unlike(patterns, one.as_str()?)).collect(),
                one => Value::from(unlike(patterns, one.as_str()?)?),
            },
            Self::Tagged => {
                let text = value.as_str()?;
                let (name, tag) = text.rsplit_once(':').unwrap_or((text, "latest"));
                json!({"name": name, "tag": tag})
            }
            Self::Cron => from_cron(value.as_str()?, 0)?,
            Self::Quartz => from_cron(value.as_str()?, 1)?,
        })
    }
}

/// What stands at another place, as the cloud has it.
fn theirs(path: &Path, conversions: &[Conversion], at: &At<'_>) -> Option<f64> {
    let ours = tree::number(at(path)?);
    conversions.iter().try_fold(ours, |value, conversion| conversion.out(value, at).0)?.as_f64()
}

/// By a list; `*` in it is for every other word, and `WORD>` is only written: neither is read back.
fn word(words: &Words, open: bool, value: Value) -> Said {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match words.get(&text).or_else(|| words.get(&format!("{text}>"))).or_else(|| words.get("*")) {
        Some(theirs) => (Some(theirs.clone()), None),
        None if open => (Some(value), None),
        None => (None, Some(Why::NoWord { words: known(words) })),
    }
}

fn each_word(words: &Words, open: bool, all: Vec<Value>) -> Said {
    let mut why = None;
    let said = all.into_iter().filter_map(|one| {
        let (said, missing) = word(words, open, one);
        why = why.take().or(missing);
        said
    });
    let said: Value = said.collect();
    (Some(said).filter(|said| !tree::is_empty(said)), why)
}

fn word_back(words: &Words, open: bool, value: Value) -> Option<Value> {
    let ours = words.iter().find(|(ours, theirs)| *ours != "*" && !ours.ends_with('>') && tree::same(theirs, &value));
    let read = |ours: &String| match ours.as_str() {
        "true" => Value::from(true),
        "false" => Value::from(false),
        ours => Value::from(ours),
    };
    ours.map(|(ours, _)| read(ours)).or_else(|| open.then_some(value))
}

fn known(words: &Words) -> Vec<String> {
    words.keys().map(|word| word.trim_end_matches('>').to_owned()).collect()
}

fn actions(words: &Words, value: Value) -> Said {
    let (mut all, mut why) = (Vec::<Value>::new(), None);
    for one in value.as_array().into_iter().flatten() {
        match one.as_str().and_then(|word| words.get(word)).and_then(Value::as_array) {
            Some(actions) => all.extend(actions.iter().filter(|a| !all.contains(a)).cloned().collect::<Vec<_>>()),
            None => why = Some(Why::NoWord { words: known(words) }),
        }
    }
    (Some(Value::Array(all)).filter(|all| !tree::is_empty(all)), why)
}

fn limit(number: Option<f64>, to: impl Fn(f64) -> f64, limit: f64) -> Said {
    let Some(number) = number else { return (None, None) };
    let limited = to(number);
    let differs = (limited - number).abs() > f64::EPSILON;
    (Some(tree::number(limited)), differs.then(|| Why::Limited { limit: tree::number(limit).to_string() }))
}

fn rounded(number: Option<f64>, by: impl Fn(f64) -> f64) -> Said {
    let Some(number) = number else { return (None, None) };
    let rounded = by(number);
    (Some(tree::number(rounded)), ((rounded - number).abs() > f64::EPSILON).then_some(Why::Rounded))
}

/// The text that `*` stands for. `%` at the beginning of a pattern is any text.
fn unlike(patterns: &[String], text: &str) -> Option<String> {
    patterns.iter().find_map(|pattern| {
        let (before, after) = pattern.split_once('*')?;
        let rest = match before.strip_prefix('%') {
            Some(mark) => &text[text.rfind(mark)? + mark.len()..],
            None => text.strip_prefix(before)?,
        };
        rest.strip_suffix(after).map(str::to_owned)
    })
}

fn iso(seconds: u64) -> String {
    match seconds {
        0 => "PT0S".to_owned(),
        s if s % 3600 == 0 => format!("PT{}H", s / 3600),
        s if s % 60 == 0 => format!("PT{}M", s / 60),
        s => format!("PT{s}S"),
    }
}

/// Days, hours, minutes and seconds of an ISO 8601 duration.
fn from_iso(text: &str) -> Option<u64> {
    let (mut sum, mut number, mut time) = (0_u64, String::new(), false);
    for c in text.strip_prefix('P')?.chars() {
        let unit = match c {
            'T' => {
                time = true;
                continue;
            }
            '0'..='9' => {
                number.push(c);
                continue;
            }
            'D' if !time => 86_400,
            'H' if time => 3600,
            'M' if time => 60,
            'S' if time => 1,
            _ => return None,
        };
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        number.clear();
    }
    number.is_empty().then_some(sum)
}

fn day_names() -> Vec<(Value, u64)> {
    Day::ALL.iter().zip(1..).map(|(day, at)| (json!(day), at)).collect()
}

fn cron_day(_: &str, at: u64) -> String {
    (at % 7).to_string()
}
fn short(name: &str, _: u64) -> String {
    name.get(..3).unwrap_or(name).to_uppercase()
}

/// Days of a cron expression; every one is `*`.
fn days(at: &Value, write: impl Fn(&str, u64) -> String) -> Option<String> {
    let asked = at["days"].as_array()?;
    let all = day_names();
    if asked.len() == all.len() {
        return Some("*".to_owned());
    }
    let named =
        all.iter().filter(|(day, _)| asked.contains(day)).filter_map(|(day, at)| Some(write(day.as_str()?, *at)));
    Some(named.collect::<Vec<_>>().join(","))
}

/// Days and time of an expression that names both plainly; `lead` fields come before the minute.
fn from_cron(text: &str, lead: usize) -> Option<Value> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let at = |n: usize| fields.get(n + lead).copied();
    let (minute, hour): (u8, u8) = (at(0)?.parse().ok()?, at(1)?.parse().ok()?);
    let free = |field: Option<&str>| matches!(field, Some("*" | "?"));
    if !free(at(2)) || !free(at(3)) || fields.len() > 5 + 2 * lead || (lead == 1 && fields[0] != "0") {
        return None;
    }
    let all = day_names();
    let number = |text: &str| -> Option<u64> {
        let named = all.iter().find(|(day, _)| day.as_str().is_some_and(|day| short(day, 0) == text.to_uppercase()));
        named
            .map(|(_, at)| *at)
            .or_else(|| text.parse::<u64>().ok().filter(|n| *n <= 7).map(|n| if n == 0 { 7 } else { n }))
    };
    let mut wanted = Vec::new();
    for part in at(4)?.split(',') {
        match part.split_once('-') {
            _ if part == "*" || part == "?" => wanted.extend(1..=7),
            Some((from, to)) => wanted.extend(number(from)?..=number(to)?),
            None => wanted.push(number(part)?),
        }
    }
    let days: Vec<Value> = all.into_iter().filter(|(_, at)| wanted.contains(at)).map(|(day, _)| day).collect();
    Some(json!({"days": days, "hour": hour, "minute": minute}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both_ways(word: &str, ours: Value, theirs: Value) {
        let conversion = Conversion::read(word, &BTreeMap::new()).unwrap();
        assert_eq!(conversion.out(ours.clone(), &|_| None).0, Some(theirs.clone()), "{word}");
        assert_eq!(conversion.back(theirs, None, &|_| None), Some(ours), "{word}");
    }

    #[test]
    fn units_and_shapes_go_both_ways() {
        for (seconds, text) in [(0, "PT0S"), (45, "PT45S"), (300, "PT5M"), (3600, "PT1H"), (5400, "PT90M")] {
            both_ways("iso", json!(seconds), json!(text));
        }
        both_ways("times:1024", json!(3), json!(3072));
        both_ways("part:100", json!(75.555), json!(0.75555));
        both_ways("part:100", json!(0.001), json!(0.00001));
        both_ways("b64", json!("#!/bin/sh\n"), json!("IyEvYmluL3NoCg=="));
        both_ways("tagged", json!({"name": "web", "tag": "v2"}), json!("web:v2"));
        both_ways("join", json!(["a", "b"]), json!("a,b"));
        both_ways("objects:id", json!(["a", "b"]), json!([{"id": "a"}, {"id": "b"}]));
        both_ways("like:zones/*/x", json!("a"), json!("zones/a/x"));
        let at = json!({"days": ["monday", "friday", "sunday"], "hour": 8, "minute": 30});
        both_ways("cron", at.clone(), json!("30 8 * * 1,5,0"));
        both_ways("quartz", at, json!("0 30 8 ? * MON,FRI,SUN"));
    }

    #[test]
    fn foreign_ways_to_say_it_are_read_and_what_cannot_be_said_is_not() {
        let weekdays = from_cron("0 8 * * MON-FRI", 0).unwrap();
        assert_eq!(weekdays["days"].as_array().unwrap().len(), 5);
        assert_eq!(from_cron("*/5 8 * * 1", 0), None, "every five minutes is no time of the day");
        assert_eq!(from_cron("0 8 1 * *", 0), None, "a day of the month");
        assert_eq!(from_iso("P1DT2H"), Some(93_600));
        assert_eq!(from_iso("P1M"), None, "a month has no length");
        let arn = ["${P.*.Arn}".to_owned(), "%:policyName/*".to_owned()];
        assert_eq!(unlike(&arn, "arn:aws:x:policyName/up").as_deref(), Some("up"));
        let fewer = Conversion::read("sign:More,Fewer", &BTreeMap::new()).unwrap();
        assert_eq!(fewer.back(json!("Fewer"), Some(&json!(2)), &|_| None), Some(json!(-2)));
    }
}
