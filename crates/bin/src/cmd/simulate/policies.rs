//! The policies that can be played: those with a name, and those of files.

use std::collections::BTreeSet;
use std::path::Path;

use skein_api::document;
use skein_engine::config::{PlayedPolicy, played_policy};
use skein_sim::{Defaults, Engine, FixedAtPeak, Keda, Rule, Scaled, Scenario, ServerlessOnly, play};

use super::report::Outcome;
use crate::failure::usage;
use crate::output::note;

/// Names, in the order of the table.
const NAMES: [&str; 6] = ["engine", "keda", "thresholds", "projection", "serverless-only", "fixed-at-peak"];

/// A policy, under the name that the table has for it.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Named(&'static str),
    Set(Box<PlayedPolicy>),
}

impl Policy {
    /// One as a configuration sets it.
    pub(super) fn set(name: &str, policy: PlayedPolicy) -> Self {
        Self { name: name.to_owned(), kind: Kind::Set(Box::new(policy)) }
    }

    fn named(name: &'static str) -> Self {
        Self { name: name.to_owned(), kind: Kind::Named(name) }
    }

    /// From its beginning: one that was played has learnt. None, and a word, where the scenario lacks what it needs.
    pub(super) fn play(&self, scenario: &Scenario) -> Option<Outcome> {
        if let Some(lacks) = self.lacks(scenario) {
            note(&format!("{}: {} is not played: there is no {lacks}", scenario.name, self.name));
            return None;
        }
        let mut engine = match &self.kind {
            Kind::Named("engine") => Some(Engine::new(Defaults::default())),
            Kind::Set(policy) if policy.thresholds.is_none() => Some(Engine::new(Defaults::from(&policy.capacity))),
            _ => None,
        };
        let (metrics, course) = match (&mut engine, &self.kind) {
            (Some(engine), _) => play(scenario, engine),
            (None, kind) => play(scenario, kind.rule().as_mut()),
        };
        if course.never > 0 {
            note(&format!("{}: {} left {} items without a place", scenario.name, self.name, course.never));
            return None;
        }
        let why = engine.and_then(|engine| engine.last).map(|capacity| capacity.to_string());
        Some(Outcome { policy: self.name.clone(), metrics, course, why })
    }

    fn lacks(&self, scenario: &Scenario) -> Option<&'static str> {
        let (machines, shared) = (!scenario.machines.is_empty(), !scenario.shared.is_empty());
        match &self.kind {
            Kind::Named("engine") => (!machines && !shared).then_some("machine and no shared solution"),
            Kind::Named("serverless-only") => (!shared).then_some("shared solution"),
            Kind::Set(policy) if policy.thresholds.is_none() => {
                (!machines && !shared).then_some("machine and no shared solution")
            }
            Kind::Named(_) | Kind::Set(_) => (!machines).then_some("machine"),
        }
    }
}

impl Kind {
    /// What is not the engine's own.
    fn rule(&self) -> Box<dyn Rule> {
        match self {
            Self::Named("keda") => Box::new(Keda::default()),
            Self::Named("projection") => Box::new(Scaled::by_projection()),
            Self::Named("serverless-only") => Box::new(ServerlessOnly::default()),
            Self::Named("fixed-at-peak") => Box::new(FixedAtPeak),
            Self::Named(_) => Box::new(Scaled::by_share()),
            Self::Set(policy) => Box::new(Scaled::new(policy.thresholds.unwrap_or_default())),
        }
    }
}

/// Those asked for, by names or files; `all_named` when no name is among them.
pub(super) fn asked(words: &[String], all_named: bool) -> anyhow::Result<Vec<Policy>> {
    let is_asked = |name: &&str| words.iter().any(|word| word == name);
    let mut named: Vec<&str> = NAMES.into_iter().filter(is_asked).collect();
    if named.is_empty() && all_named {
        named = NAMES.to_vec();
    }
    let mut policies: Vec<Policy> = NAMES.into_iter().filter(|name| named.contains(name)).map(Policy::named).collect();
    let mut taken: BTreeSet<String> = NAMES.into_iter().map(str::to_owned).collect();
    for word in words.iter().filter(|word| !NAMES.contains(&word.as_str())) {
        let policy = of_file(word)?;
        // The file's name is enough, unless another has it too.
        let stem = Path::new(word).file_stem().map_or(word.clone(), |stem| stem.to_string_lossy().into_owned());
        let name = if taken.contains(&stem) { word.clone() } else { stem };
        taken.insert(name.clone());
        policies.push(Policy::set(&name, policy));
    }
    Ok(policies)
}

fn of_file(word: &str) -> anyhow::Result<PlayedPolicy> {
    let path = Path::new(word);
    let bytes = std::fs::read(path).map_err(|error| {
        usage(format!("there is no policy '{word}' (there are: {}), and no such file: {error}", NAMES.join(", ")))
    })?;
    let wrong = |why: String| usage(format!("{word}: {why}"));
    let format = document::Format::of_path(path).map_err(|error| wrong(error.to_string()))?;
    let document = document::parse(&bytes, format).map_err(|error| wrong(error.to_string()))?;
    played_policy(document).map_err(|error| wrong(error.to_string()))
}
