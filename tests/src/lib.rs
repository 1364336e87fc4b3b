//! Harness of the end-to-end tests, the demo and the benchmark: an Okta-shaped issuer, a stand-in
//! control plane, real servers, confined processes and grantd itself, all in network namespaces and
//! control groups that the run makes and removes.
//!
//! It speaks to grantd only as its users do (HTTPS, config file, command line, control socket, audit
//! spool, network) and reads the kernel maps for itself. [`world::scenario`] is where a test begins.

pub mod audit;
pub mod bpffs;
pub mod ca;
pub mod capture;
pub mod cgroup;
pub mod check;
pub mod cleanup;
pub mod clock;
pub mod config;
pub mod container;
pub mod control_plane;
pub mod ctl;
pub mod daemon;
pub mod escapes;
pub mod everyday;
pub mod grants;
pub mod guarded;
pub mod issuer;
pub mod jose;
pub mod kernel_view;
pub mod launch;
pub mod machine;
pub mod netns;
pub mod okta;
pub mod open;
pub mod peer;
pub mod pool;
pub mod probe;
pub mod programs;
pub mod server;
pub mod streams;
pub mod tmpfs;
pub mod ways;
pub mod workdir;
pub mod workload;
pub mod world;
