//! What an attempt's process is started with, on an agent and in a function alike.

use std::collections::BTreeMap;
use std::path::Path;

use skein_wire::StartOrder;

use crate::folder::Folder;
use crate::spawner::{Launch, Programs};

/// PATH where neither we nor the order have one.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whose environment it is: `HOME` and `TMPDIR` as the process sees them.
pub(crate) fn environment(order: &StartOrder, home: &Path, tmp: &Path) -> BTreeMap<String, String> {
    let own = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let item = order.attempt.item;
    let base = [
        ("PATH", own("PATH", PATH_DEFAULT)),
        ("LANG", own("LANG", "C.UTF-8")),
        ("HOME", home.display().to_string()),
        ("TMPDIR", tmp.display().to_string()),
    ];
    let ours = [
        ("SKEIN_ENGINE", order.engine.to_string()),
        ("SKEIN_SESSION", item.session().to_string()),
        ("SKEIN_NODE", order.node.clone()),
        ("SKEIN_INDEX", item.index.to_string()),
        ("SKEIN_ATTEMPT", order.attempt.to_string()),
    ];
    let named = |(name, value): (&str, String)| (name.to_owned(), value);
    base.into_iter().map(named).chain(order.env.clone()).chain(ours.into_iter().map(named)).collect()
}

/// The launch of a command in its folder. Our own executable is first in PATH, so that a task can
/// call `skein`.
pub(crate) fn launch(order: &StartOrder, argv: Vec<String>, id: u64, folder: &Folder, programs: &Programs) -> Launch {
    let mut env = environment(order, &folder.work(), &folder.tmp());
    if let (Some(own), Some(path)) = (programs.exe.parent(), env.get_mut("PATH")) {
        *path = format!("{}:{path}", own.display());
    }
    Launch {
        id,
        argv,
        env,
        cwd: folder.work(),
        folders: vec![folder.work(), folder.tmp()],
        out: folder.out_log(),
        err: folder.err_log(),
        memory_mb: order.memory_mb,
        stdin: order.stdin,
    }
}
