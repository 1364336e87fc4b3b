//! One attempt to get a grant admitted: well-formed until a test spoils it.

use std::time::Duration;

use grantd_grant::ids::{Audience, Issuer};
use grantd_grant::mint::{Draft, GrantDraft, GrantSigner, OktaTokenMinter, TokenDraft, push_body};
use grantd_grant::{
    BindError, GrantId, HostId, HostPolicy, OktaKeys, PeerUris, Push, Reason, Refusal,
    ReplayAnswer, ReplayOutcome, Subject, TxnId, UnixTime, VerifiedGrant,
};
use serde_json::{Value, json};

use crate::world::{ACTOR, AUDIENCE, CLIENT, CONTROL, HOST, NOW, OKTA, PUSHER, USER, WORLD};

pub(crate) struct Attempt {
    pub(crate) peer: Vec<String>,
    pub(crate) now: UnixTime,
    pub(crate) replay: ReplayAnswer,
    pub(crate) policy: Option<HostPolicy>,
    pub(crate) okta_keys: Option<OktaKeys>,
    header: Value,
    claims: Value,
    raw_claims: Option<Vec<u8>>,
    raw_header: Option<Vec<u8>>,
    raw_grant: Option<String>,
    raw_body: Option<Vec<u8>>,
    signer: &'static GrantSigner,
    token_header: Value,
    token_claims: Value,
    raw_token_claims: Option<Vec<u8>>,
    raw_token_header: Option<Vec<u8>>,
    raw_token: Option<String>,
    minter: &'static OktaTokenMinter,
    keep_ath: bool,
}

impl Attempt {
    /// An agent acting for a user through a client, to `10.20.0.0/24` on 8000 to 8010.
    pub(crate) fn new() -> Self {
        let okta = Issuer::new(OKTA).unwrap();
        let audience = Audience::new(AUDIENCE).unwrap();
        let token = TokenDraft::for_client(
            &okta,
            &audience,
            CLIENT,
            &["host.connect"],
            UnixTime(NOW.0 - 60),
            Duration::from_secs(3600),
        )
        .set("sub", "jo@example.org")
        .set("uid", USER)
        .set("act", json!({ "sub": ACTOR }));
        let grant = GrantDraft::new(
            &Issuer::new(CONTROL).unwrap(),
            &HostId::new(HOST).unwrap(),
            &GrantId::new("01JDGRANT").unwrap(),
            &TxnId::new("req-7781").unwrap(),
            &Subject::new(USER).unwrap(),
            &crate::world::name("coding-agent"),
            &okta,
            "",
            NOW,
            Duration::from_secs(600),
        )
        .allow(&crate::world::tcp("10.20.0.0/24", 8000, 8010))
        .set("cid", CLIENT)
        .set("act", json!({ "sub": ACTOR, "sub_profile": "ai_agent" }));
        Self {
            peer: vec![PUSHER.to_owned()],
            now: NOW,
            replay: ReplayAnswer::New,
            policy: None,
            okta_keys: None,
            header: json!({ "typ": "hostgrant+jwt", "alg": "EdDSA", "kid": "cp-ed" }),
            claims: grant.claims(),
            raw_claims: None,
            raw_header: None,
            raw_grant: None,
            raw_body: None,
            signer: &WORLD.ed25519,
            token_header: json!({ "alg": "RS256", "kid": "okta-1" }),
            token_claims: token.claims(),
            raw_token_claims: None,
            raw_token_header: None,
            raw_token: None,
            minter: &WORLD.okta,
            keep_ath: false,
        }
    }

    pub(crate) fn claim(mut self, claim: &str, value: impl Into<Value>) -> Self {
        self.claims[claim] = value.into();
        self
    }

    /// The claim at a JSON pointer, which must exist.
    pub(crate) fn claim_at(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        *self.claims.pointer_mut(pointer).expect("the claim exists") = value.into();
        self
    }

    pub(crate) fn without(mut self, claim: &str) -> Self {
        self.claims.as_object_mut().unwrap().remove(claim).expect("the claim exists");
        self
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header[name] = value.into();
        self
    }

    pub(crate) fn without_header(mut self, name: &str) -> Self {
        self.header.as_object_mut().unwrap().remove(name).expect("the parameter exists");
        self
    }

    pub(crate) fn signed_by(mut self, signer: &'static GrantSigner) -> Self {
        self.signer = signer;
        self.header("kid", signer.kid().as_str()).header("alg", signer.algorithm().as_str())
    }

    /// Signed by this key, with the header as it was.
    pub(crate) fn forged_by(mut self, signer: &'static GrantSigner) -> Self {
        self.signer = signer;
        self
    }

    /// Rewrites the grant's claims as text: for what a JSON value cannot express.
    pub(crate) fn edit_claims(mut self, from: &str, to: &str) -> Self {
        let text = self.claims.to_string();
        assert!(text.contains(from), "{from} is in {text}");
        self.raw_claims = Some(text.replacen(from, to, 1).into_bytes());
        self
    }

    pub(crate) fn raw_claims(mut self, bytes: &[u8]) -> Self {
        self.raw_claims = Some(bytes.to_vec());
        self
    }

    pub(crate) fn raw_header(mut self, text: &str) -> Self {
        self.raw_header = Some(text.as_bytes().to_vec());
        self
    }

    pub(crate) fn raw_grant(mut self, text: impl Into<String>) -> Self {
        self.raw_grant = Some(text.into());
        self
    }

    pub(crate) fn raw_body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.raw_body = Some(bytes.into());
        self
    }

    pub(crate) fn token_claim(mut self, claim: &str, value: impl Into<Value>) -> Self {
        self.token_claims[claim] = value.into();
        self
    }

    pub(crate) fn token_without(mut self, claim: &str) -> Self {
        self.token_claims.as_object_mut().unwrap().remove(claim).expect("the claim exists");
        self
    }

    pub(crate) fn token_header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.token_header[name] = value.into();
        self
    }

    pub(crate) fn token_without_header(mut self, name: &str) -> Self {
        self.token_header.as_object_mut().unwrap().remove(name).expect("the parameter exists");
        self
    }

    pub(crate) fn raw_token_header(mut self, text: &str) -> Self {
        self.raw_token_header = Some(text.as_bytes().to_vec());
        self
    }

    pub(crate) fn edit_token_claims(mut self, from: &str, to: &str) -> Self {
        let text = self.token_claims.to_string();
        assert!(text.contains(from), "{from} is in {text}");
        self.raw_token_claims = Some(text.replacen(from, to, 1).into_bytes());
        self
    }

    pub(crate) fn raw_token_claims(mut self, bytes: &[u8]) -> Self {
        self.raw_token_claims = Some(bytes.to_vec());
        self
    }

    pub(crate) fn raw_token(mut self, text: impl Into<String>) -> Self {
        self.raw_token = Some(text.into());
        self
    }

    pub(crate) fn token_signed_by(mut self, minter: &'static OktaTokenMinter) -> Self {
        self.minter = minter;
        self
    }

    /// The grant is bound to another token than the one that travels with it.
    pub(crate) fn bound_to_other_token(mut self) -> Self {
        self.keep_ath = true;
        self
    }

    pub(crate) fn at(mut self, now: UnixTime) -> Self {
        self.now = now;
        self
    }

    pub(crate) fn with_policy(mut self, policy: HostPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// The Okta token as text.
    pub(crate) fn token(&self) -> String {
        if let Some(token) = &self.raw_token {
            return token.clone();
        }
        let header = self.raw_token_header.clone();
        let header = header.unwrap_or_else(|| self.token_header.to_string().into_bytes());
        let claims = self.raw_token_claims.clone();
        let claims = claims.unwrap_or_else(|| self.token_claims.to_string().into_bytes());
        self.minter.mint_raw(&header, &claims).unwrap()
    }

    /// The grant as text, bound to `token`.
    pub(crate) fn grant(&self, token: &str) -> String {
        if let Some(grant) = &self.raw_grant {
            return grant.clone();
        }
        let mut claims = self.claims.clone();
        if let Some(ath) = claims.pointer_mut("/okta/ath")
            && ath.is_string()
            && !self.keep_ath
        {
            *ath = grantd_grant::mint::token_hash(token).into();
        }
        let header = self.raw_header.clone();
        let header = header.unwrap_or_else(|| self.header.to_string().into_bytes());
        let claims = self.raw_claims.clone().unwrap_or_else(|| claims.to_string().into_bytes());
        self.signer.sign_raw(&header, &claims).unwrap()
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let token = self.token();
        self.raw_body.clone().unwrap_or_else(|| push_body(&self.grant(&token), &token))
    }

    /// All of checks 1 to 15.
    pub(crate) fn run(&self) -> Result<VerifiedGrant, Refusal> {
        let policy = self.policy.as_ref().unwrap_or(&WORLD.policy);
        let okta_keys = self.okta_keys.as_ref().unwrap_or(&WORLD.okta_keys);
        let pusher = policy.check_pusher(&PeerUris::new(self.peer.clone()))?;
        let signed = Push::parse(&self.body())?.verify(&pusher, &WORLD.keys, policy, self.now)?;
        let fresh = match signed.check_replay(self.replay) {
            Ok(fresh) => fresh,
            Err(ReplayOutcome::Refused(refusal)) => return Err(refusal),
            Err(ReplayOutcome::AlreadyAccepted(id)) => panic!("{id} counted as a repetition"),
        };
        fresh.bind(okta_keys, policy, self.now).map_err(|error| match error {
            BindError::Refused(refusal) => refusal,
            BindError::UnknownKey(kid) => fresh.refuse_unknown_key(&kid),
        })
    }

    /// The attempt must be refused for exactly this reason.
    #[track_caller]
    pub(crate) fn refused(&self, reason: Reason) {
        match self.run() {
            Ok(grant) => panic!("admitted, but {reason} was due: {grant:?}"),
            Err(refusal) => assert_eq!(refusal.reason, reason, "{refusal}"),
        }
    }

    /// The attempt must be admitted.
    #[track_caller]
    pub(crate) fn admitted(&self) -> VerifiedGrant {
        self.run().unwrap_or_else(|refusal| panic!("refused: {refusal}"))
    }
}

/// A detail of RFC 9396 with these endpoints.
pub(crate) fn tcp_to(endpoints: Value) -> Value {
    json!([{ "type": "network_connect", "actions": ["connect"], "protocol": "tcp",
             "endpoints": endpoints }])
}
