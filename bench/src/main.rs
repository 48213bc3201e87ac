//! A load generator for any server that speaks ZooKeeper's protocol.

fn main() {}
