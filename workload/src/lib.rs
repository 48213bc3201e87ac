//! Clients that use everything the client port offers, misuse some of it, and record all they do and
//! are told as a [`History`](quorate_checker::History).
//!
//! They judge nothing. All they wait for is bounded, all they draw comes from one seed, and time is
//! the runtime's: on a current-thread runtime with a simulated network, one seed is one run. They
//! must not know anything of the servers but their addresses.

mod client;
mod deeds;
mod dice;
mod link;
mod places;
mod plan;
mod raw;
mod recorder;
mod running;
mod stage;
mod strangers;
mod walk;
mod watches;
mod wire;

pub use deeds::Deed;
pub use dice::Dice;
pub use link::Answer;
pub use plan::{Habits, Whim, Workload};
pub use raw::{Connected, Manners, Pumped, Raw, Servers};
pub use recorder::Recorder;
pub use running::Running;
pub use strangers::Misdeed;
