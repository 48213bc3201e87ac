//! Hostile clients: whatever they send is answered or ends their own connection, and nobody else's.

mod bounds;
mod bytes;
mod cases;
mod layout;
mod neighbour;
mod sessions;
mod spoil;
mod strangers;
