//! The repository names no machine: no absolute path of somebody's disk, no host of a private registry.

use super::Complaints;
use crate::repo::TextFile;

/// Hosts that build files may name.
const HOSTS: &[&str] = &[
    "github.com",
    "crates.io",
    "index.crates.io",
    "static.crates.io",
    "static.rust-lang.org",
    "rustup.rs",
    "127.0.0.1",
    "localhost",
];

/// Folders that exist on one machine only. Written in two parts, so that this file does not name them.
const FOLDERS: &[(&str, &str)] = &[("/wo", "rk/"), ("/ro", "ot/"), ("/ho", "me/"), ("/Us", "ers/")];

pub(crate) fn check(files: &[TextFile]) -> Complaints {
    let mut wrong = Vec::new();
    for file in files {
        for (number, line) in (1..).zip(file.text.lines()) {
            for (a, b) in FOLDERS {
                if names_folder(line, &format!("{a}{b}")) {
                    wrong.push(format!("{}:{number}: names a folder of one machine ({a}{b}...)", file.path));
                }
            }
            if is_build_file(&file.path) {
                let hosts = hosts(line).filter(|host| !HOSTS.contains(host));
                wrong.extend(hosts.map(|host| format!("{}:{number}: names the host '{host}'", file.path)));
            }
        }
    }
    wrong
}

/// Does the folder stand there as the beginning of a path, not as a later part of one?
fn names_folder(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | '*' | '/' | '$'))
    })
}

fn is_build_file(path: &str) -> bool {
    path.starts_with(".ci/")
        || path.starts_with(".cargo/")
        || path.ends_with("Cargo.toml")
        || path.ends_with("Cargo.lock")
}

fn hosts(line: &str) -> impl Iterator<Item = &str> {
    let end = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    let after = line.match_indices("://").map(|(at, sign)| &line[at + sign.len()..]);
    after.map(move |rest| rest.split(end).next().unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_a_machine_and_foreign_hosts_are_found() {
        let file = |path: &str, text: String| TextFile { path: path.to_owned(), text };
        let found = |path, text| check(&[file(path, text)]).len();
        assert_eq!(found("a.md", format!("see {}me/x", "/ho")), 1);
        assert_eq!(found("a.md", format!("a task's {}rk/x of its folder", "folder/wo")), 0);
        assert_eq!(found("Cargo.toml", "url = \"https://mirror.example.org/x\"".to_owned()), 1);
        assert_eq!(found("README.md", "https://example.org".to_owned()), 0);
    }
}
