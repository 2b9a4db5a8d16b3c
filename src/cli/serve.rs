//! `serve`: offers what a build left behind to machines on the network.
//!
//! Owns: the arguments and what is said at the start. The server is `serve`'s.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Globals, output};
use crate::error::Result;
use crate::serve::Server;

/// Offer a folder of images over HTTP: images, checksums, netboot files, seeds
///
/// Answers GET and HEAD, with ranges; the entity tag of a file is its SHA-256. Names that begin with a dot are not there,
/// and nothing outside the folder is. A seed in `openstack/latest/` can be read in cloud-init's NoCloud form, too, beside
/// that folder. Only this machine is answered unless `--listen` says otherwise. Ends with Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  imagebuilder serve out
  imagebuilder serve out --listen 10.23.24.1:8099          for nodes that boot from the network, or by Redfish
  curl -C - -O http://127.0.0.1:8080/ephemeral.iso         goes on where it stopped")]
pub struct Args {
    /// The folder
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Address and port; port 0 takes one that is free
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
}

pub fn run(args: &Args, globals: &Globals) -> Result<()> {
    let reporter = globals.reporter();
    let server = Server::bind(&args.folder, args.listen)?;
    let address = server.address()?;
    if !address.ip().is_loopback() {
        reporter.warning(format!(
            "everybody who reaches {address} can read all of {}, seeds with their secrets included",
            args.folder.display()
        ));
    }
    output::print(&format!("serving {} on http://{address}/\n", args.folder.display()))?;
    server.run(&reporter)
}
