//! `wiremesh key new` and `wiremesh key show`.

use crate::args::KeyArgs;
use crate::failure::Failure;
use crate::{keys, say};
use std::path::{Path, PathBuf};
use wiremesh::SecretKey;
use wiremesh::address::overlay_address;

pub fn new(args: KeyArgs) -> Result<(), Failure> {
    let path = path(args)?;
    let secret = keys::generate()?;
    keys::create(&path, &secret)?;
    describe(&path, &secret)
}

pub fn show(args: KeyArgs) -> Result<(), Failure> {
    let path = path(args)?;
    describe(&path, &keys::read(&path)?)
}

fn path(args: KeyArgs) -> Result<PathBuf, Failure> {
    args.key.map_or_else(keys::default_path, Ok)
}

fn describe(path: &Path, secret: &SecretKey) -> Result<(), Failure> {
    let id = keys::node_id(secret)?;
    say::print(format!(
        "node id   {id}\nbase32    {}\naddress   {}\nkey file  {}\n",
        id.to_base32(),
        overlay_address(&id),
        path.display()
    ))
}
