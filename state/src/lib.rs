//! The replicated tree, its sessions and watches, as plain synchronous functions.
