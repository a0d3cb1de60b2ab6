//! What the demo leaves: a table of attempts, totals by place, files, one object for programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use skein_api::{AttemptView, Client, SessionDetail};

use super::Say;
use crate::cmd::session::attempts_table;
use crate::output::Table;
use crate::results;
use crate::show;

/// The files that people came for.
const RESULTS: [&str; 3] = ["figures.json", "load.svg", "checksums.txt"];

/// A session that is over.
pub(crate) struct Summary {
    /// Its id.
    pub(crate) session: String,
    /// How it ended.
    pub(crate) state: String,
    detail: SessionDetail,
    attempts: Vec<AttemptView>,
    files: Vec<PathBuf>,
    took: Duration,
}

/// Sums over the attempts at one place.
#[derive(Default)]
struct Totals {
    kind: String,
    attempts: u64,
    run_ms: u64,
    cpu_ms: u64,
    cost: i64,
    cold_starts: u64,
}

impl Summary {
    /// Asks for the attempts and brings the result files to `dir/results`.
    pub(crate) async fn collect(
        client: &Client,
        detail: SessionDetail,
        dir: &Path,
        took: Duration,
    ) -> anyhow::Result<Self> {
        let (session, state) = (detail.summary.session.clone(), detail.summary.state.clone());
        let attempts = results::attempts(client, &session).await?;
        let left = results::files(&attempts);
        let mut files = Vec::new();
        for name in RESULTS {
            if let Some(found) = left.iter().find(|found| found.file.path == name) {
                files.push(results::download(client, &found.file, &dir.join("results")).await?);
            }
        }
        Ok(Self { session, state, detail, attempts, files, took })
    }

    fn totals(&self) -> BTreeMap<&str, Totals> {
        let mut places: BTreeMap<&str, Totals> = BTreeMap::new();
        for attempt in &self.attempts {
            let totals = places.entry(&attempt.place).or_default();
            totals.kind.clone_from(&attempt.kind);
            totals.attempts += 1;
            totals.run_ms += attempt.run_ms.unwrap_or_default();
            totals.cpu_ms += attempt.cpu_ms.unwrap_or_default();
            totals.cost += attempt.cost_nano_usd.unwrap_or_default();
            totals.cold_starts += u64::from(attempt.cold_start_ms.is_some());
        }
        places
    }

    /// For people.
    pub(crate) fn say(&self, say: Say, dir: &Path) {
        say.line(&format!("\n{}\n", attempts_table(&self.detail, &self.attempts).render()));
        let mut table =
            Table::new(&["place", "kind", "attempts", "run", "cpu", "cold starts", "cost"]).right(&[2, 3, 4, 5, 6]);
        for (place, totals) in self.totals() {
            table.row([
                place.to_owned(),
                totals.kind.clone(),
                totals.attempts.to_string(),
                show::duration(totals.run_ms),
                show::duration(totals.cpu_ms),
                totals.cold_starts.to_string(),
                show::usd(totals.cost),
            ]);
        }
        say.line(&table.render());
        let summary = &self.detail.summary;
        let took = u64::try_from(self.session_us() / 1000).unwrap_or_default();
        say.line(&format!(
            "\nsession {} {} after {}: {}; it would cost {}",
            self.session,
            self.state,
            show::duration(took),
            show::counts(&summary.items),
            show::usd(self.detail.cost_nano_usd)
        ));
        for file in &self.files {
            say.line(&format!("  {}", show::path(file)));
        }
        if self.state != "succeeded" {
            say.line(&format!("logs: skein up --dir {0}, then skein logs {1} --dir {0}", dir.display(), self.session));
        }
    }

    fn session_us(&self) -> i64 {
        let summary = &self.detail.summary;
        summary.ended_at.unwrap_or(summary.created_at) - summary.created_at
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let places: BTreeMap<&str, u64> =
            self.totals().into_iter().map(|(place, totals)| (place, totals.attempts)).collect();
        let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
        for attempt in &self.attempts {
            *kinds.entry(&attempt.kind).or_default() += 1;
        }
        let session_ms = u64::try_from(self.session_us() / 1000).unwrap_or_default();
        json!({
            "session": self.session,
            "state": self.state,
            "attempts_by_place": places,
            "attempts_by_kind": kinds,
            "files": self.files,
            "seconds": Duration::from_millis(session_ms).as_secs_f64(),
            "seconds_in_all": self.took.as_secs_f64(),
            "cost_usd": skein_domain::NanoUsd(self.detail.cost_nano_usd).usd(),
            "items": self.detail.summary.items,
        })
    }
}
