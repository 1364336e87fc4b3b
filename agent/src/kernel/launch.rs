//! What `grantctl run` asks of the kernel to start a command that cannot leave its workload: the system
//! calls for which neither the standard library nor nix has a function.

mod calls;
mod capabilities;
mod filter;
mod landlock;
mod process;

pub use calls::{Answer, DENIED, Denied, FAMILIES};
pub use capabilities::{drop_all, shrink};
pub use filter::{Arch, Filter};
pub use landlock::{Isolation, isolate};
pub use process::{Child, start};
