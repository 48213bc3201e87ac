//! Client programs.
