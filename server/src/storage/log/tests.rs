//! The log on a disk in memory: every kind of fault, and what must hold after it.
