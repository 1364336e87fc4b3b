//! grantd: host enforcement for AI agents.
//!
//! The way through is one: [`intake`] → [`admission`] → [`enforcer`] (ledger, [`compile`], [`kernel`])
//! → kernel programs → [`events`] → audit. Each module owns one piece of state; see `docs/architecture.md`.

pub mod admission;
pub mod canary;
pub mod clock;
pub mod compile;
pub mod config;
pub mod coverage;
pub mod ctl;
pub mod doctor;
pub mod enforcer;
pub mod events;
pub mod intake;
pub mod kernel;
pub mod keys;
pub mod ledger;
pub mod proc;
pub mod runtime;
pub mod text;
