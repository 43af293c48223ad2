//! nginx: `auth_request`.

use std::path::Path;
use std::process::Command;

use super::front::{Addresses, Proxy, Tells, read, write};

pub(super) const NGINX: Proxy =
    Proxy { install: "apt-get install nginx", command, grpc: false, http2: false, tells: Tells::Status };

/// Returns the file that the example is a part of: everything in `directory`, one process.
pub(super) fn around(directory: &Path, example: &Path) -> String {
    let path = |kind| format!("{kind}_temp_path {}/{kind};", directory.display());
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(path).join("\n");
    format!(
        "daemon off;\nmaster_process off;\npid {0}/pid;\nerror_log stderr notice;\nevents {{}}\nhttp {{\n{paths}\naccess_log off;\ninclude {1};\n}}\n",
        directory.display(),
        example.display()
    )
}

/// Returns nginx with a main configuration file.
pub(super) fn nginx(directory: &Path, main: &Path) -> Command {
    let mut command = Command::new("nginx");
    // Until it has read its configuration it would log below /var.
    command.args(["-e", "stderr", "-p"]).arg(directory).arg("-c").arg(main);
    command
}

fn command(directory: &Path, addresses: Addresses) -> Command {
    let example = write(directory, "doorward.conf", &addresses.put_into(&read("nginx/doorward.conf")));
    let main = write(directory, "nginx.conf", &around(directory, &example));
    nginx(directory, &main)
}
