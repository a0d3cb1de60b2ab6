//! A transport as data: what a configuration or a cloud's descriptor says.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AzurePages, EbsBlocks, Folder, Gcs, Glance, Limits, S3, Transport};
use crate::sign::{
    AwsKey, AzureKey, AzureSas, Bearer, GoogleServiceAccount, Keystone, KeystoneLogin, Signer, TokenSource,
};
use crate::{Endpoint, Result, Retry, Secret, Surroundings};

/// One place for uploads.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "transport", rename_all = "snake_case", deny_unknown_fields)]
pub enum Settings {
    /// A folder on this machine.
    File {
        /// The folder.
        dir: PathBuf,
    },
    /// A bucket of S3, or of a service that speaks its protocol.
    S3 {
        /// The service.
        endpoint: Endpoint,
        /// Its region.
        region: String,
        /// The bucket.
        bucket: String,
        /// Who asks.
        key: AwsKey,
        /// How much at a time.
        #[serde(default)]
        limits: Limits,
        /// How patiently.
        #[serde(default)]
        retry: Retry,
    },
    /// Snapshots of EBS, written block by block.
    EbsBlocks {
        /// The service of the blocks.
        ebs: Endpoint,
        /// The service of the snapshots.
        ec2: Endpoint,
        /// Their region.
        region: String,
        /// Who asks.
        key: AwsKey,
        /// How much at a time.
        #[serde(default)]
        limits: Limits,
        /// How patiently.
        #[serde(default)]
        retry: Retry,
    },
    /// Page blobs in a container of Azure, or one managed disk.
    AzurePages {
        /// The account's blob service; or a disk's address, without its signature.
        endpoint: Endpoint,
        /// The container; none: the endpoint is a disk.
        container: Option<String>,
        /// Who asks.
        login: AzureLogin,
        /// How much at a time.
        #[serde(default)]
        limits: Limits,
        /// How patiently.
        #[serde(default)]
        retry: Retry,
    },
    /// A bucket of Google Cloud Storage.
    Gcs {
        /// The service.
        endpoint: Endpoint,
        /// The bucket.
        bucket: String,
        /// Who asks.
        login: GoogleLogin,
        /// How much at a time.
        #[serde(default)]
        limits: Limits,
        /// How patiently.
        #[serde(default)]
        retry: Retry,
    },
    /// Images of a project of `OpenStack`.
    Glance {
        /// The image service.
        endpoint: Endpoint,
        /// Keystone, with its `/v3`.
        keystone: Endpoint,
        /// Who asks.
        login: KeystoneLogin,
        /// How much at a time.
        #[serde(default)]
        limits: Limits,
        /// How patiently.
        #[serde(default)]
        retry: Retry,
    },
}

/// Who asks Google.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum GoogleLogin {
    /// A token that somebody else renews.
    Token(Secret),
    /// A service account.
    ServiceAccount {
        /// The JSON file of its key, as text.
        key_json: Secret,
        /// Where tokens come from, if not from where the file says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_endpoint: Option<Endpoint>,
    },
}

impl GoogleLogin {
    fn signer(self, retry: Retry, around: &Surroundings) -> Result<Arc<dyn Signer>> {
        let source: Arc<dyn TokenSource> = match self {
            Self::Token(token) => Arc::new(token),
            Self::ServiceAccount { key_json, token_endpoint } => {
                Arc::new(GoogleServiceAccount::new(&key_json, token_endpoint.as_ref(), retry, around.clone())?)
            }
        };
        Ok(Arc::new(Bearer::new(source)))
    }
}

/// Who asks Azure.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum AzureLogin {
    /// The key of a storage account.
    Key {
        /// The account.
        account: String,
        /// Its key.
        key: Secret,
    },
    /// A shared access signature.
    Sas(Secret),
}

impl AzureLogin {
    fn signer(self) -> Result<Arc<dyn Signer>> {
        Ok(match self {
            Self::Key { account, key } => Arc::new(AzureKey::new(account, key)?),
            Self::Sas(text) => Arc::new(AzureSas::new(&text)?),
        })
    }
}

impl Settings {
    /// The transport.
    pub fn open(self, around: Surroundings) -> Result<Box<dyn Transport>> {
        Ok(match self {
            Self::File { dir } => Box::new(Folder::new(dir)),
            Self::S3 { endpoint, region, bucket, key, limits, retry } => {
                Box::new(S3::new(&endpoint, &region, &bucket, key, (limits, retry), around)?)
            }
            Self::EbsBlocks { ebs, ec2, region, key, limits, retry } => {
                Box::new(EbsBlocks::new((&ebs, &ec2), &region, key, (limits, retry), around)?)
            }
            Self::Gcs { endpoint, bucket, login, limits, retry } => {
                let signer = login.signer(retry, &around)?;
                Box::new(Gcs::new(&endpoint, &bucket, signer, (limits, retry), around)?)
            }
            Self::Glance { endpoint, keystone, login, limits, retry } => {
                let keystone = Keystone::new(&keystone, login, retry, around.clone())?;
                let signer = Arc::new(Bearer::openstack(Arc::new(keystone)));
                Box::new(Glance::new(&endpoint, signer, (limits, retry), around)?)
            }
            Self::AzurePages { endpoint, container, login, limits, retry } => {
                let (signer, how) = (login.signer()?, (limits, retry));
                Box::new(match container {
                    Some(container) => AzurePages::container(&endpoint, &container, signer, how, around)?,
                    None => AzurePages::disk(&endpoint, signer, how, around)?,
                })
            }
        })
    }
}
