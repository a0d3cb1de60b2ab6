//! Finding the engine: the one that was named, or the one in the engine's folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use skein_api::Client;

use crate::engine_dir::{self, DirArg};

/// Longest wait for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest wait for the first sign of life of the engine in the folder.
const HEALTH_MAX: Duration = Duration::from_secs(5);

/// Which engine a command talks to.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct Connect {
    /// Engine to talk to [default: the one that is up in --dir]
    #[arg(long, value_name = "URL", env = "SKEIN_URL", hide_env_values = true, global = true)]
    pub(crate) engine: Option<String>,
    /// API token; better in SKEIN_TOKEN, where no process list shows it [default: the local user's]
    #[arg(long, value_name = "TOKEN", env = "SKEIN_TOKEN", hide_env_values = true, global = true)]
    token: Option<String>,
    /// Certificate of the engine's CA (PEM), for https [default: ca.pem in --dir, else the system's]
    #[arg(long, value_name = "FILE", env = "SKEIN_CA", hide_env_values = true, global = true)]
    ca: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) dir: DirArg,
}

impl Connect {
    /// A client of the engine, or why there is none and what to do.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        if let Some(client) = self.find().await? {
            return Ok(client);
        }
        let dir = self.dir.path()?;
        Err(anyhow!(
            "no engine is up in {}; start one with 'skein up', or name another with --engine URL or --dir DIR",
            dir.display()
        ))
    }

    /// A client of the engine; none when none was named and none is up in the folder.
    pub(crate) async fn find(&self) -> anyhow::Result<Option<Client>> {
        let dir = self.dir.path();
        let ca = self.ca.clone().or_else(|| dir.as_ref().ok().and_then(|dir| engine_dir::ca_file(dir)));
        if let Some(url) = &self.engine {
            return Ok(Some(client(url, &self.token_for(url, dir)?, ca.as_deref())?));
        }
        let dir = dir?;
        let Some(url) = up_in(&dir, ca.as_deref()).await? else { return Ok(None) };
        let token = self.token_for(&url, Ok(dir))?;
        Ok(Some(client(&url, &token, ca.as_deref())?))
    }

    /// The token that was given, or the local user's when the engine is the folder's own.
    fn token_for(&self, url: &str, dir: anyhow::Result<PathBuf>) -> anyhow::Result<String> {
        if let Some(token) = &self.token {
            return Ok(token.clone());
        }
        let same = |a: &str, b: &str| a.trim_end_matches('/') == b.trim_end_matches('/');
        let dir = dir.ok().filter(|dir| matches!(engine_dir::engine_file(dir), Ok(Some(file)) if same(&file.url, url)));
        let dir = dir.ok_or_else(|| {
            anyhow!(
                "the engine at {url} wants a token: give one with SKEIN_TOKEN ('skein token new USER' there makes one)"
            )
        })?;
        engine_dir::local_token(&dir)
    }
}

/// Where the engine in this folder answers, when one is up.
pub(crate) async fn up_in(dir: &Path, ca: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(file) = engine_dir::engine_file(dir)? else { return Ok(None) };
    // Without a token: another program may have taken the port since.
    let stranger = client(&file.url, "", ca)?;
    let health = tokio::time::timeout(HEALTH_MAX, stranger.health()).await;
    Ok(matches!(health, Ok(Ok(_))).then_some(file.url))
}

/// A client with a token.
pub(crate) fn client(url: &str, token: &str, ca: Option<&Path>) -> anyhow::Result<Client> {
    Ok(Client::new(http(url, ca)?, url, token))
}

/// An HTTP client for this URL: loopback goes round proxies, https trusts `ca` alone when there is one.
pub(crate) fn http(url: &str, ca: Option<&Path>) -> anyhow::Result<reqwest::Client> {
    let parsed = reqwest::Url::parse(url).with_context(|| format!("'{url}' is no URL; write http://HOST:PORT"))?;
    let mut builder = reqwest::Client::builder().connect_timeout(CONNECT_MAX);
    let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
    if host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
        builder = builder.no_proxy();
    }
    match (parsed.scheme(), ca) {
        // Loading the system's certificates takes time, and fails where there are none.
        ("http", _) => builder = builder.tls_certs_only([]),
        (_, Some(path)) => {
            let pem = std::fs::read(path).with_context(|| format!("cannot read the certificate {}", path.display()))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem);
            let certificates =
                certificates.with_context(|| format!("{} holds no certificate (PEM)", path.display()))?;
            builder = builder.tls_certs_only(certificates);
        }
        _ => {}
    }
    builder.build().context("no HTTPS is possible here; name the engine's CA with --ca")
}
