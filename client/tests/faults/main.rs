//! What a client says and leaves behind when futures are dropped, servers misbehave or die, and
//! connections break at the worst moment.

mod cancel;
mod hostile;
mod kills;
mod outcomes;
mod replay;
