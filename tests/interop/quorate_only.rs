//! What Quorate promises beyond, or other than, Apache ZooKeeper 3.8: nothing to compare with.
