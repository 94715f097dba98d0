//! The arguments of the commands that meet other WireGuard programs.

use clap::Args;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use wiremesh::Endpoint;

/// Names under which this program is called by those who know other programs, or as
/// `WG_QUICK_USERSPACE_IMPLEMENTATION`, which is one word: they mean `wiremesh wg --daemon`.
const OTHER_NAMES: [&str; 3] = ["wiremesh-wg", "wireguard-go", "boringtun-cli"];

/// The command line, with a name of another program put into words of ours.
pub fn from_other_name(mut words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let program = words.next().unwrap_or_default();
    let name = Path::new(&program).file_name().unwrap_or_default();
    let ours: &[&str] = match OTHER_NAMES.iter().any(|other| name == *other) {
        true => &["wg", "--daemon"],
        false => &[],
    };
    let ours = ours.iter().map(OsString::from);
    std::iter::once(program.clone())
        .chain(ours)
        .chain(words)
        .collect()
}

/// Arguments of `wg`.
#[derive(Args, Debug)]
#[command(after_help = "\
Makes the interface and waits for `wg` to configure it: plain WireGuard, any keys, any allowed IPs.
It ends when the interface or its socket in /var/run/wireguard is removed. LOG_LEVEL is error, info
or debug. With a link to it that is called wiremesh-wg it does for wg-quick what wireguard-go does:
returns once `wg` can configure the interface.

Examples:
  wiremesh wg wg0
  wg setconf wg0 /etc/wireguard/wg0.conf
  ln -s $(command -v wiremesh) /usr/local/bin/wiremesh-wg
  WG_QUICK_USERSPACE_IMPLEMENTATION=wiremesh-wg wg-quick up wg0")]
pub struct WgArgs {
    /// Name of the interface, 1 to 15 bytes
    #[arg(value_name = "IFNAME", value_parser = interface_name)]
    pub interface: String,
    /// Stay in the foreground, which is the default unless it is called by another name
    #[arg(short, long)]
    pub foreground: bool,
    /// Return once the interface can be configured, and go on in the background
    #[arg(long)]
    pub daemon: bool,
    /// The one that goes on in the background.
    #[arg(long, hide = true)]
    pub detached: bool,
}

/// Arguments of `import`.
#[derive(Args, Debug)]
#[command(after_help = "\
Writes config.toml, the key and preshared keys into a folder and changes nothing else. Its peers
are marked as stock, which is level L1. PreUp, PostUp, PreDown and PostDown are never run.

Examples:
  wiremesh import /etc/wireguard/wg0.conf
  wiremesh import wg0.conf --into ~/office && wiremesh up --config ~/office/config.toml")]
pub struct ImportArgs {
    /// The configuration that `wg-quick` uses
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Folder for the new files [default: $XDG_CONFIG_HOME/wiremesh]
    #[arg(long, value_name = "FOLDER")]
    pub into: Option<PathBuf>,
}

/// Arguments of `export`.
#[derive(Args, Debug)]
#[command(after_help = "\
A new NAME gets fresh keys, and our configuration a [[peer]] that is marked as stock: WireGuard as
it is, level L1. The key of a NAME that is there already is not known here; its place is left open.

Examples:
  wiremesh export --peer phone --endpoint home.example:51820 --qr
  wiremesh export --peer laptop --address 10.0.0.7 --output laptop.conf")]
pub struct ExportArgs {
    /// Name of the client
    #[arg(long, value_name = "NAME")]
    pub peer: String,
    /// Where the client reaches this node [default: the first `advertise` of the configuration]
    #[arg(long, value_name = "HOST:PORT")]
    pub endpoint: Option<Endpoint>,
    /// A further address of the client, beside that which follows from its key; repeatable
    #[arg(long, value_name = "ADDRESS")]
    pub address: Vec<IpAddr>,
    /// Show it as a QR code, as WireGuard on phones reads it
    #[arg(long)]
    pub qr: bool,
    /// Write it to a new file, mode 0600 [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Our configuration [default: $XDG_CONFIG_HOME/wiremesh/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What the kernel takes as a name, and is one file name.
fn interface_name(text: &str) -> Result<String, String> {
    let fits = (1..=15).contains(&text.len())
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"/:%".contains(&byte));
    match fits {
        true => Ok(text.to_owned()),
        false => Err("use 1 to 15 letters, digits and signs, no / : % and no spaces".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_mean_a_daemon() {
        let words = |line: &[&str]| from_other_name(line.iter().map(OsString::from));
        assert_eq!(
            words(&["/usr/bin/wiremesh-wg", "wg0"]),
            ["/usr/bin/wiremesh-wg", "wg", "--daemon", "wg0"]
        );
        assert_eq!(
            words(&["wireguard-go", "-f", "wg0"]),
            ["wireguard-go", "wg", "--daemon", "-f", "wg0"]
        );
        assert_eq!(
            words(&["./wiremesh", "wg", "wg0"]),
            ["./wiremesh", "wg", "wg0"]
        );
    }

    #[test]
    fn names_of_interfaces_are_checked() {
        for good in ["wg0", "a", "0123456789abcde", "vpn-1.x"] {
            assert!(interface_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "0123456789abcdef",
            ".",
            "..",
            "a/b",
            "a b",
            "wg%d",
            "\u{e9}",
        ] {
            assert!(interface_name(bad).is_err(), "{bad}");
        }
    }
}
