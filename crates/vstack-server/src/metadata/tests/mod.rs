//! The role on a real socket with real storage nodes around it.

mod any_three;
mod bad_input;
mod cluster;
mod consensus;
mod inventory;
mod library;
mod lifecycle;
mod manifests;
mod nodes;
mod plain_clients;
mod policy;
mod races;
mod recovery;
mod redundancy;
mod remembered;
