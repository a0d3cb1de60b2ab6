//! API tokens: 32 random bytes, kept as their BLAKE3 (a slow hash adds nothing to random bytes).

use std::collections::HashMap;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use skein_domain::{Timestamp, UserName};
use skein_store::TokenRow;

use crate::clock;
use crate::keys::write_private;

/// Known tokens by hash.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    by_hash: RwLock<HashMap<String, (String, UserName)>>,
}

/// BLAKE3 of a token.
pub(crate) fn hash(token: &str) -> String {
    blake3::hash(token.as_bytes()).to_hex().to_string()
}

impl Tokens {
    /// Makes a token for `user`; the caller stores the row, then calls [`Tokens::learn`].
    pub(crate) fn make(user: UserName, now: Timestamp) -> Result<(String, TokenRow), clock::NoRandom> {
        let random = clock::hex(&clock::random_32()?);
        let token = format!("skein-{random}");
        let row = TokenRow { id: random[..8].to_owned(), hash: hash(&token), user, created_at: now };
        Ok((token, row))
    }

    /// Accepts this token from now on.
    pub(crate) fn learn(&self, row: &TokenRow) {
        let mut known = self.by_hash.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(row.hash.clone(), (row.id.clone(), row.user.clone()));
    }

    /// Refuses this token from now on; false when it was not known.
    pub(crate) fn forget(&self, id: &str) -> bool {
        let mut known = self.by_hash.write().unwrap_or_else(PoisonError::into_inner);
        let before = known.len();
        known.retain(|_, (known_id, _)| known_id != id);
        known.len() < before
    }

    /// Whose token it is.
    pub(crate) fn user(&self, token: &str) -> Option<UserName> {
        // Looking up by hash leaks nothing about the token by its timing.
        self.by_hash.read().unwrap_or_else(PoisonError::into_inner).get(&hash(token)).map(|(_, user)| user.clone())
    }

    /// The local user's token: in `local.token` (mode 0600) for whoever owns the engine's folder.
    pub(crate) fn local(&self, dir: &Path, user: &UserName) -> anyhow::Result<String> {
        let path = dir.join("local.token");
        let token = match std::fs::read_to_string(&path) {
            Ok(text) if text.trim().starts_with("skein-") => text.trim().to_owned(),
            _ => {
                let token = format!("skein-{}", clock::hex(&clock::random_32()?));
                write_private(&path, format!("{token}\n").as_bytes())?;
                token
            }
        };
        self.learn(&TokenRow { id: "local".into(), hash: hash(&token), user: user.clone(), created_at: Timestamp(0) });
        Ok(token)
    }
}
