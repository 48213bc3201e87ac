//! A client of Quorate and Apache ZooKeeper.
