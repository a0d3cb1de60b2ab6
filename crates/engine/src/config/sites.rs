//! Where servers stand: sites, their racks, and the servers in these.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use skein_domain::InstanceId;
use skein_domain::site::{Rack, Server, Site, Sites};

use super::convert::wrong;
use super::{BadConfig, Config, OWN};

/// Most that may be promised of a server, percent of what it has.
const OVERCOMMIT_PERCENT_MAX: u32 = 10_000;
/// Most servers of all sites.
const SERVERS_MAX: usize = 4096;

/// A site: a building, a room, a region.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SiteConfig {
    /// Bandwidth to other sites, Mbit/s (default: not limited).
    pub uplink_mbps: Option<u64>,
    /// Racks by name.
    pub racks: BTreeMap<String, RackConfig>,
}

/// A rack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RackConfig {
    /// Bandwidth to the site's other racks, Mbit/s (default: not limited).
    pub uplink_mbps: Option<u64>,
    /// Servers by name.
    pub servers: BTreeMap<String, ServerConfig>,
}

/// A server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Names of the instances that are on it; one that ends in `*` stands for all that begin so.
    pub instances: Vec<String>,
    /// Virtual CPUs (default: what its instances say).
    pub vcpus: Option<u32>,
    /// MiB (default: what its instances say).
    pub memory_mb: Option<u64>,
    /// Bandwidth of its network card, Mbit/s (default: not limited).
    pub nic_mbps: Option<u64>,
    /// How much of its CPUs and memory may be promised, percent (default 100).
    pub overcommit_percent: Option<u32>,
}

pub(super) fn settle(config: &Config) -> Result<Arc<Sites>, BadConfig> {
    let mut sites = BTreeMap::new();
    for (name, site) in &config.sites {
        let key = format!("sites.{name}");
        checked(&key, name)?;
        if name == OWN || config.solutions.contains_key(name) {
            let why =
                "it has the name of a solution, whose undeclared instances are a site of that name: give it another";
            return Err(wrong(key, why));
        }
        let mut racks = BTreeMap::new();
        for (name, rack) in &site.racks {
            let key = format!("{key}.racks.{name}");
            checked(&key, name)?;
            racks.insert(Arc::from(name.as_str()), rack_of(&key, rack)?);
        }
        sites.insert(Arc::from(name.as_str()), Site { uplink_mbps: site.uplink_mbps, racks });
    }
    let servers: usize =
        config.sites.values().flat_map(|site| site.racks.values()).map(|rack| rack.servers.len()).sum();
    if servers > SERVERS_MAX {
        return Err(wrong(
            "sites",
            format!("{servers} servers; the limit is {SERVERS_MAX}: leave out what runs no members"),
        ));
    }
    Sites::new(sites).map(Arc::new).map_err(|why| wrong("sites", why))
}

fn rack_of(key: &str, rack: &RackConfig) -> Result<Rack, BadConfig> {
    let mut servers = BTreeMap::new();
    for (name, server) in &rack.servers {
        let key = format!("{key}.servers.{name}");
        checked(&key, name)?;
        let overcommit_percent = server.overcommit_percent.unwrap_or(100);
        if !(100..=OVERCOMMIT_PERCENT_MAX).contains(&overcommit_percent) {
            return Err(wrong(format!("{key}.overcommit_percent"), format!("give 100 to {OVERCOMMIT_PERCENT_MAX}")));
        }
        for instance in &server.instances {
            // A lone `*` takes every instance that no other server names.
            let stem = instance.strip_suffix('*').unwrap_or(instance);
            if !(stem.is_empty() && instance == "*") {
                checked(&format!("{key}.instances"), stem)?;
            }
        }
        let (instances, vcpus) = (server.instances.iter().map(|name| Arc::from(name.as_str())).collect(), server.vcpus);
        let (memory_mb, nic_mbps) = (server.memory_mb, server.nic_mbps);
        servers.insert(Arc::from(name.as_str()), Server { instances, vcpus, memory_mb, nic_mbps, overcommit_percent });
    }
    Ok(Rack { uplink_mbps: rack.uplink_mbps, servers })
}

/// Names of places are as those of instances: `/` stands between them.
fn checked(key: &str, name: &str) -> Result<(), BadConfig> {
    InstanceId::new(name).map(drop).map_err(|e| wrong(key, format!("'{name}': {}", e.rule)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(json: &str) -> Result<Arc<Sites>, BadConfig> {
        settle(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_bad_site_is_refused_by_its_key() {
        for (json, part) in [
            (r#"{"sites": {"own": {}}}"#, "sites.own"),
            (r#"{"sites": {"a/b": {}}}"#, "sites.a/b"),
            (
                r#"{"sites": {"a": {"racks": {"r": {"servers": {"s": {"overcommit_percent": 50}}}}}}}"#,
                "overcommit_percent",
            ),
            (r#"{"sites": {"a": {"racks": {"r": {"servers": {"s": {"instances": ["x", "x"]}}}}}}}"#, "'x' is on"),
            (r#"{"sites": {"a": {"racks": {"r": {"servers": {"s": {"instances": ["no way"]}}}}}}}"#, "no way"),
        ] {
            let why = settled(json).unwrap_err().to_string();
            assert!(why.contains(part), "{part} in {why}");
        }
        let good = r#"{"sites": {"a": {"racks": {"r": {"servers": {"s": {"instances": ["x-*"], "vcpus": 4}}}}}}}"#;
        assert_eq!(settled(good).unwrap().servers().count(), 1);
    }
}
