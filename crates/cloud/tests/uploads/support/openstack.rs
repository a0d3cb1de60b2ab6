//! Keystone and Glance, the real ones, from their Python packages, each in a process with a folder of its own.

use std::path::Path;
use std::process::Command;

use super::emulator::{Emulator, find, free_port};
use super::skipped;

pub const PASSWORD: &str = "sssh";

pub struct OpenStack {
    pub keystone: Emulator,
    pub glance: Emulator,
}

const SERVE: &str = "import sys; port = sys.argv.pop(); module = sys.argv.pop(); sys.argv = ['x']
import importlib, waitress
waitress.serve(importlib.import_module(module).application, listen='127.0.0.1:' + port)";

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl OpenStack {
    pub async fn start() -> Option<Self> {
        let bin = find("glance-manage")?.parent()?.to_owned();
        let paste = bin.join("../etc/glance/glance-api-paste.ini");
        if !bin.join("keystone-manage").is_file() || !bin.join("python").is_file() || !paste.is_file() {
            skipped("glance is there, keystone or its files are not: its uploads were not tested");
            return None;
        }
        let keystone_port = free_port();
        let keystone = keystone(&bin, keystone_port).await;
        let glance = glance(&bin, &paste, keystone_port).await;
        Some(Self { keystone, glance })
    }
    pub fn keystone_url(&self) -> String {
        format!("http://{}/v3", self.keystone.address)
    }
}

fn serve(bin: &Path, module: &str, port: u16) -> Command {
    let mut command = Command::new(bin.join("python"));
    command.args(["-c", SERVE, module, &port.to_string()]);
    command
}

async fn keystone(bin: &Path, port: u16) -> Emulator {
    let dir = tempfile::tempdir().unwrap();
    let (at, conf) = (dir.path().display().to_string(), dir.path().join("keystone.conf"));
    let text = format!(
        "[database]\nconnection = sqlite:///{at}/keystone.sqlite\n[fernet_tokens]\nkey_repository = {at}/fernet\n\
         [credential]\nkey_repository = {at}/credential\n[token]\nprovider = fernet\n"
    );
    std::fs::write(&conf, text).unwrap();
    let manage = |arguments: &[&str]| {
        let mut command = Command::new(bin.join("keystone-manage"));
        run(command.arg("--config-file").arg(&conf).args(arguments).current_dir(dir.path()));
    };
    // Keys belong to the user and group of their folder.
    for keys in ["fernet", "credential"] {
        std::fs::create_dir(dir.path().join(keys)).unwrap();
    }
    let name =
        |flag| String::from_utf8(Command::new("id").arg(flag).output().unwrap().stdout).unwrap().trim().to_owned();
    let (user, group) = (name("-un"), name("-gn"));
    manage(&["db_sync"]);
    manage(&["fernet_setup", "--keystone-user", &user, "--keystone-group", &group]);
    manage(&["credential_setup", "--keystone-user", &user, "--keystone-group", &group]);
    let url = format!("http://127.0.0.1:{port}/v3");
    let mut bootstrap = vec!["bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", "here"];
    for flag in ["--bootstrap-admin-url", "--bootstrap-public-url", "--bootstrap-internal-url"] {
        bootstrap.extend([flag, &url]);
    }
    manage(&bootstrap);
    let mut command = serve(bin, "keystone.wsgi.api", port);
    command.env("OS_KEYSTONE_CONFIG_FILES", &conf);
    Emulator::start(command, port, dir).await
}

async fn glance(bin: &Path, paste: &Path, keystone: u16) -> Emulator {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let (at, paste) = (dir.path().display(), paste.display());
    let auth = format!("http://127.0.0.1:{keystone}/v3");
    let text = format!(
        "[DEFAULT]\nworker_self_reference_url = http://127.0.0.1:{port}\nenabled_import_methods = []\n\
         enabled_backends = f:file\n[database]\nconnection = sqlite:///{at}/glance.sqlite\n\
         [glance_store]\ndefault_backend = f\n[f]\nfilesystem_store_datadir = {at}/images\n\
         [os_glance_staging_store]\nfilesystem_store_datadir = {at}/staging\n\
         [os_glance_tasks_store]\nfilesystem_store_datadir = {at}/tasks\n\
         [paste_deploy]\nconfig_file = {paste}\nflavor = keystone\n\
         [keystone_authtoken]\nauth_type = password\nauth_url = {auth}\nwww_authenticate_uri = {auth}\n\
         username = admin\npassword = {PASSWORD}\nproject_name = admin\n\
         user_domain_name = Default\nproject_domain_name = Default\n"
    );
    for folder in ["images", "staging", "tasks"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    let conf = dir.path().join("glance-api.conf");
    std::fs::write(&conf, text).unwrap();
    run(Command::new(bin.join("glance-manage")).arg("--config-file").arg(&conf).arg("db_sync"));
    let mut command = serve(bin, "glance.wsgi.api", port);
    command.env("OS_GLANCE_CONFIG_DIR", dir.path());
    Emulator::start(command, port, dir).await
}
