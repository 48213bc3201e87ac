//! ZooKeeper's wire protocol: jute, frames, records and the types they are made of.
