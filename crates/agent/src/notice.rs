//! Spot notices: the cloud says, two minutes or less before, that it takes an instance away.
//!
//! AWS answers 404 at `spot/instance-action` until there is one
//! (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>, which says
//! to look every 5 s), and wants a token of `IMDSv2` first. Google's `instance/preempted` answers `FALSE`
//! or `TRUE` (<https://cloud.google.com/compute/docs/instances/create-use-preemptible>).

use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use crate::core::Input;
use crate::lane::plain_client;
use crate::rim::Event;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Most characters of a notice that are passed on.
const NOTICE_CHARS_MAX: usize = 300;

/// Looks until there is a notice, and tells the core once.
pub(crate) async fn watch(url: String, events: UnboundedSender<Event>) {
    let client = match plain_client() {
        Ok(client) => client,
        Err(why) => return tracing::error!(why, "spot notices cannot be looked for"),
    };
    loop {
        match look(&client, &url).await {
            Ok(Some(text)) => {
                let why = format!("its cloud takes it away: {text}");
                tracing::warn!(why, "a spot notice");
                // The agent may have ended meanwhile.
                return events.send(Event::Core(Input::Noticed(why))).unwrap_or_default();
            }
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, url, "no answer about spot notices"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn look(client: &reqwest::Client, url: &str) -> reqwest::Result<Option<String>> {
    let mut request = client.get(url).timeout(ANSWER_MAX).header("Metadata-Flavor", "Google");
    if let Some(token) = token(client, url).await {
        request = request.header("X-aws-ec2-metadata-token", token);
    }
    let answer = request.send().await?;
    if !answer.status().is_success() {
        return Ok(None);
    }
    let text: String = answer.text().await?.trim().chars().take(NOTICE_CHARS_MAX).collect();
    Ok((!text.is_empty() && !text.eq_ignore_ascii_case("false")).then_some(text))
}

/// The token that `IMDSv2` wants; whoever has no such thing is asked without.
async fn token(client: &reqwest::Client, url: &str) -> Option<String> {
    let mut at = reqwest::Url::parse(url).ok()?;
    at.set_path("/latest/api/token");
    let ask = client.put(at).timeout(ANSWER_MAX).header("X-aws-ec2-metadata-token-ttl-seconds", "60");
    let answer = ask.send().await.ok()?.error_for_status().ok()?;
    answer.text().await.ok()
}
