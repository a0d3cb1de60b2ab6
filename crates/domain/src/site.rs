//! Where servers stand: sites, racks and servers [0031], and which server an instance is on.
//!
//! The levels are three and fixed. What the configuration does not declare is still somewhere: an instance
//! that no server names is a server of its own, in a site that has its solution's name, in a rack that
//! nobody knows ([`Spot::rack`] is absent). What that lets a rule claim is in docs/decisions/0018.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, SolutionId};

/// How near: in one server, in one rack, in one site. The nearest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// One server.
    Server,
    /// One rack.
    Rack,
    /// One site.
    Site,
}

impl Level {
    /// All, the nearest first.
    pub const ALL: [Self; 3] = [Self::Server, Self::Rack, Self::Site];
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Rack => "rack",
            Self::Site => "site",
        })
    }
}

/// A server as the configuration declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Names of its instances; one that ends in `*` stands for all that begin so.
    pub instances: Vec<Arc<str>>,
    /// Virtual CPUs; what its instances say when absent.
    pub vcpus: Option<u32>,
    /// Memory, MiB; what its instances say when absent.
    pub memory_mb: Option<u64>,
    /// Bandwidth to its rack, Mbit/s; not limited when absent.
    pub nic_mbps: Option<u64>,
    /// How much of its CPUs and memory may be promised, percent (100: no more than there is).
    pub overcommit_percent: u32,
}

/// A rack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rack {
    /// Bandwidth to its site, Mbit/s; not limited when absent.
    pub uplink_mbps: Option<u64>,
    /// Its servers.
    pub servers: BTreeMap<Arc<str>, Server>,
}

/// A site.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Bandwidth to other sites, Mbit/s; not limited when absent.
    pub uplink_mbps: Option<u64>,
    /// Its racks.
    pub racks: BTreeMap<Arc<str>, Rack>,
}

/// A server's place: what a deployment plan gives to a member.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Spot {
    /// The site.
    pub site: Arc<str>,
    /// The rack; absent where nobody knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rack: Option<Arc<str>>,
    /// The server.
    pub server: Arc<str>,
}

impl Spot {
    /// The place at one level, as people name it: `SITE`, `SITE/RACK`, `SITE/RACK/SERVER`. None where the
    /// rack is asked for and not known.
    pub fn at(&self, level: Level) -> Option<String> {
        match (level, &self.rack) {
            (Level::Site, _) => Some(self.site.to_string()),
            (Level::Rack, rack) => rack.as_ref().map(|rack| format!("{}/{rack}", self.site)),
            (Level::Server, _) => Some(self.to_string()),
        }
    }

    /// Is it in the place of that name?
    pub fn is_in(&self, place: &str) -> bool {
        Level::ALL.iter().any(|level| self.at(*level).as_deref() == Some(place))
    }

    /// Are both in one place of that level? None where nobody knows.
    pub fn shares(&self, other: &Self, level: Level) -> Option<bool> {
        match (level, &self.rack, &other.rack) {
            _ if self == other => Some(true),
            (Level::Server, ..) => Some(false),
            (Level::Site, ..) => Some(self.site == other.site),
            (Level::Rack, ..) if self.site != other.site => Some(false),
            (Level::Rack, Some(one), Some(two)) => Some(one == two),
            (Level::Rack, ..) => None,
        }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rack {
            Some(rack) => write!(f, "{}/{rack}/{}", self.site, self.server),
            None => write!(f, "{}/{}", self.site, self.server),
        }
    }
}

/// All declared sites, and where each instance is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<Arc<str>, Site>", into = "BTreeMap<Arc<str>, Site>")]
pub struct Sites {
    by_name: BTreeMap<Arc<str>, Site>,
    exact: BTreeMap<Arc<str>, Spot>,
    prefixes: Vec<(Arc<str>, Spot)>,
}

impl TryFrom<BTreeMap<Arc<str>, Site>> for Sites {
    type Error = String;

    fn try_from(sites: BTreeMap<Arc<str>, Site>) -> Result<Self, String> {
        Self::new(sites)
    }
}

impl From<Sites> for BTreeMap<Arc<str>, Site> {
    fn from(sites: Sites) -> Self {
        sites.by_name
    }
}

impl Sites {
    /// Takes the sites. An error names an instance that two servers claim.
    pub fn new(sites: BTreeMap<Arc<str>, Site>) -> Result<Self, String> {
        let mut all = Self { by_name: sites, ..Self::default() };
        let spots: Vec<(Spot, Vec<Arc<str>>)> =
            all.servers().map(|(spot, server)| (spot, server.instances.clone())).collect();
        for (spot, named) in spots {
            for name in named {
                let before = match name.strip_suffix('*') {
                    Some(prefix) => {
                        let before = all.prefixes.iter().find(|(other, _)| &**other == prefix).map(|(_, s)| s.clone());
                        all.prefixes.push((prefix.into(), spot.clone()));
                        before
                    }
                    None => all.exact.insert(name.clone(), spot.clone()),
                };
                if let Some(before) = before {
                    return Err(format!("instance '{name}' is on '{before}' and on '{spot}': name it once"));
                }
            }
        }
        // The longest prefix counts.
        all.prefixes.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        Ok(all)
    }

    /// The sites by name.
    pub fn by_name(&self) -> &BTreeMap<Arc<str>, Site> {
        &self.by_name
    }

    /// Declared servers with their places.
    pub fn servers(&self) -> impl Iterator<Item = (Spot, &Server)> {
        self.by_name.iter().flat_map(|(site, of_site)| {
            of_site.racks.iter().flat_map(move |(rack, of_rack)| {
                of_rack.servers.iter().map(move |(server, facts)| {
                    (Spot { site: site.clone(), rack: Some(rack.clone()), server: server.clone() }, facts)
                })
            })
        })
    }

    /// The server that an instance is on: the declared one, else one of its own.
    pub fn spot_of(&self, instance: &InstanceId, solution: &SolutionId) -> Spot {
        let name = instance.as_str();
        let by_prefix = || self.prefixes.iter().find(|(prefix, _)| name.starts_with(&**prefix)).map(|(_, spot)| spot);
        let declared = self.exact.get(name).or_else(by_prefix);
        declared.cloned().unwrap_or_else(|| Spot { site: solution.as_str().into(), rack: None, server: name.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(instances: &[&str]) -> Server {
        let instances = instances.iter().map(|name| Arc::from(*name)).collect();
        Server { instances, vcpus: None, memory_mb: None, nic_mbps: None, overcommit_percent: 100 }
    }

    fn sites(servers: &[(&str, &[&str])]) -> Result<Sites, String> {
        let servers = servers.iter().map(|(name, instances)| (Arc::from(*name), server(instances))).collect();
        let racks = BTreeMap::from([(Arc::from("r1"), Rack { uplink_mbps: None, servers })]);
        Sites::new(BTreeMap::from([(Arc::from("north"), Site { uplink_mbps: None, racks })]))
    }

    #[test]
    fn an_instance_is_where_it_is_named_or_a_server_of_its_own_whose_rack_nobody_knows() {
        let sites = sites(&[("s1", &["web-*"]), ("s2", &["web-db*", "one"])]).unwrap();
        let at = |name: &str| sites.spot_of(&InstanceId::new(name).unwrap(), &SolutionId::new("own").unwrap());
        assert_eq!(at("web-1").to_string(), "north/r1/s1");
        assert_eq!(at("web-db7").to_string(), "north/r1/s2");
        assert_eq!(at("other").to_string(), "own/other");
        assert!(at("one").is_in("north/r1") && at("one").is_in("north") && !at("one").is_in("north/r1/s1"));
        assert_eq!(at("other").shares(&at("more"), Level::Rack), None);
        assert_eq!(at("other").shares(&at("one"), Level::Rack), Some(false));
    }

    #[test]
    fn an_instance_that_two_servers_claim_is_refused_by_name() {
        let why = sites(&[("s1", &["a"]), ("s2", &["a"])]).unwrap_err();
        assert!(why.contains("'a'") && why.contains("north/r1/s1") && why.contains("north/r1/s2"), "{why}");
    }
}
