//! The recipes while connections break at any step, sessions expire, and servers are killed.
