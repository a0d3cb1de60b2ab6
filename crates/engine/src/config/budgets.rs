//! Budgets as people write them, checked.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use skein_domain::NanoUsd;
use skein_domain::decide::budget::{Budgets, Cap, CapAction, WARN_PERCENT};

use super::BadConfig;
use super::convert::{word, wrong};

/// The largest cap, USD: a thousand million.
const USD_MAX: f64 = 1e9;

/// The most that may be spent, and what happens then.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetsConfig {
    /// For each session.
    pub session: Option<CapConfig>,
    /// For each user and month (UTC), if not named in `users`.
    pub user: Option<CapConfig>,
    /// For these users, by name, and each month.
    pub users: BTreeMap<String, CapConfig>,
    /// For all users together and each month.
    pub month: Option<CapConfig>,
}

/// A cap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CapConfig {
    /// The most that may be spent, USD.
    pub usd: f64,
    /// `warn` (say so), `pause` (default: pause the session that would exceed it) or `refuse` (start nothing that
    /// would exceed it, and accept no session that is expected to).
    #[serde(default)]
    pub action: Option<String>,
    /// Say so at this share of it, percent (default 80).
    #[serde(default)]
    pub warn_percent: Option<u8>,
}

/// Dollars as a person gives them.
pub(crate) fn money(usd: f64) -> Result<NanoUsd, String> {
    if !usd.is_finite() || !(0.0..=USD_MAX).contains(&usd) {
        return Err(format!("{usd} is not an amount: give 0 to {USD_MAX} USD"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked just above")]
    Ok(NanoUsd((usd * 1e9).round() as i64))
}

fn cap(key: &str, config: &CapConfig) -> Result<Cap, BadConfig> {
    let action = config.action.as_deref();
    let warn_percent = config.warn_percent.unwrap_or(WARN_PERCENT);
    if !(1..=100).contains(&warn_percent) {
        return Err(wrong(format!("{key}.warn_percent"), "give 1 to 100"));
    }
    Ok(Cap {
        limit: money(config.usd).map_err(|why| wrong(format!("{key}.usd"), why))?,
        action: action
            .map_or(Ok(CapAction::default()), |text| word(&format!("{key}.action"), text, "warn, pause or refuse"))?,
        warn_percent,
    })
}

/// Every cap.
pub(super) fn budgets(config: &BudgetsConfig) -> Result<Budgets, BadConfig> {
    let one = |key: &str, given: &Option<CapConfig>| given.as_ref().map(|c| cap(key, c)).transpose();
    let of_user = |(user, given): (&String, &CapConfig)| {
        let key = format!("budgets.users.{user}");
        let name = user.parse().map_err(|e: skein_domain::id::BadId| wrong(&key, e.to_string()))?;
        Ok((name, cap(&key, given)?))
    };
    Ok(Budgets {
        session: one("budgets.session", &config.session)?,
        user: one("budgets.user", &config.user)?,
        users: config.users.iter().map(of_user).collect::<Result<_, _>>()?,
        month: one("budgets.month", &config.month)?,
    })
}
