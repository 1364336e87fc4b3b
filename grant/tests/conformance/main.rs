//! What the grant core promises, one test per promise. Every module has a positive control: the same
//! attempt without the fault is admitted, so that no refusal is for another cause.

#[cfg(test)]
mod attempt;
#[cfg(test)]
mod ceiling;
#[cfg(test)]
mod destinations;
#[cfg(test)]
mod grant_claims;
#[cfg(test)]
mod grant_form;
#[cfg(test)]
mod key_sets;
#[cfg(test)]
mod okta_rows;
#[cfg(test)]
mod order;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod revocation;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod stored;
#[cfg(test)]
mod token_claims;
#[cfg(test)]
mod token_form;
#[cfg(test)]
mod world;
