//! A deployment plan as a tree: sites, racks, servers, and the members on them.

use std::collections::BTreeMap;

use skein_api::{DeployedMember, DeploymentView};

use crate::{output, show};

/// Pipes shown one by one.
const PIPES_SHOWN_MAX: usize = 100;

/// Prints it.
pub(crate) fn print(deployment: &DeploymentView) {
    for line in lines(deployment) {
        output::line(&line);
    }
}

/// Members by server, servers by rack.
type Racks<'d> = BTreeMap<Option<&'d str>, BTreeMap<&'d str, Vec<String>>>;

fn lines(deployment: &DeploymentView) -> Vec<String> {
    if let Some(because) = &deployment.because {
        return vec![format!("deployment: waits for servers: {because}")];
    }
    let proved = if deployment.proved { "the best there is" } else { "the best found, not proved best" };
    let servers = show::count(deployment.servers as usize, "server");
    let mut lines =
        vec![format!("deployment: {servers}, {} Mbit/s x levels crossed ({proved})", deployment.crossed_mbps)];
    let mut tree: BTreeMap<&str, Racks<'_>> = BTreeMap::new();
    for member in &deployment.members {
        let racks = tree.entry(&member.site).or_default();
        let servers = racks.entry(member.rack.as_deref()).or_default();
        servers.entry(&member.server).or_default().push(text(member));
    }
    for (site, racks) in tree {
        lines.push(format!("  {site}"));
        for (rack, servers) in racks {
            lines.push(format!("    {}", rack.unwrap_or("(rack not known)")));
            for (server, members) in servers {
                lines.push(format!("      {server}: {}", members.join(", ")));
            }
        }
    }
    for pipe in deployment.pipes.iter().take(PIPES_SHOWN_MAX) {
        lines.push(format!("  pipe {} - {}: {} Mbit/s, {}", pipe.from, pipe.to, pipe.mbps, pipe.way));
    }
    if deployment.pipes.len() > PIPES_SHOWN_MAX {
        lines.push(format!("  and {} pipes more (--json has all)", deployment.pipes.len() - PIPES_SHOWN_MAX));
    }
    lines.extend(deployment.rules.iter().map(|rule| format!("  {}: held by {}", rule.rule, rule.by)));
    lines
}

fn text(member: &DeployedMember) -> String {
    format!("{} ({}, {} vCPU, {} MiB)", member.name, member.kind, member.vcpus, member.memory_mb)
}

#[cfg(test)]
mod tests {
    use super::*;
    use skein_api::{DeployedPipe, HeldRuleView};

    fn member(name: &str, rack: Option<&str>, server: &str) -> DeployedMember {
        DeployedMember {
            name: name.to_owned(),
            kind: "task".to_owned(),
            site: "north".to_owned(),
            rack: rack.map(str::to_owned),
            server: server.to_owned(),
            vcpus: 1,
            memory_mb: 64,
        }
    }

    #[test]
    fn members_stand_under_their_servers_and_rules_with_what_holds_them() {
        let pipe = DeployedPipe { from: "a".into(), to: "c".into(), mbps: 9, way: "in one site".into() };
        let shown = lines(&DeploymentView {
            state: "planned".into(),
            because: None,
            members: vec![member("a", Some("r1"), "s1"), member("b", Some("r1"), "s1"), member("c", None, "s9")],
            rules: vec![HeldRuleView { rule: "diversity (server) of group 'g'".into(), by: "x | y".into() }],
            pipes: vec![pipe],
            crossed_mbps: 18,
            servers: 2,
            proved: true,
        });
        assert_eq!(
            shown,
            [
                "deployment: 2 servers, 18 Mbit/s x levels crossed (the best there is)",
                "  north",
                "    (rack not known)",
                "      s9: c (task, 1 vCPU, 64 MiB)",
                "    r1",
                "      s1: a (task, 1 vCPU, 64 MiB), b (task, 1 vCPU, 64 MiB)",
                "  pipe a - c: 9 Mbit/s, in one site",
                "  diversity (server) of group 'g': held by x | y",
            ]
        );
    }
}
