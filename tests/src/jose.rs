//! JOSE signing for everything that a test mints: Okta tokens, client assertions, grants, revocations.
//!
//! Written from the RFCs and not with the crates under test, so that a shared misreading shows up as
//! a failing test. It signs whatever it is given; judging is the business of the other side.

use anyhow::{Context, Result, anyhow, bail, ensure};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RsaKeyPair,
    UnparsedPublicKey,
};
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::machine;

/// A private key with its `kid`.
pub struct SigningKey {
    kid: String,
    secret: Secret,
}

enum Secret {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// A fresh RSA key of 2048 bits, for RS256.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn rsa(kid: &str) -> Result<Self> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| anyhow!("no RSA key"))?;
        Ok(Self { kid: kid.to_owned(), secret: Secret::Rsa(pair) })
    }

    /// An RSA key for RS256 that a deployment has anew on a real machine. On an emulated one, where making
    /// it takes seconds, the deployments of one run have the same under each id.
    ///
    /// # Errors
    /// When the key cannot be made, read or kept.
    pub fn rsa_of_deployment(kid: &str) -> Result<Self> {
        let Some(directory) = machine::keys() else { return Self::rsa(kid) };
        let kept = directory.join(kid);
        let pair = if kept.exists() {
            let bytes = std::fs::read(&kept)?;
            RsaKeyPair::from_pkcs8(&bytes).map_err(|_| anyhow!("no key: {}", kept.display()))?
        } else {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| anyhow!("no RSA key"))?;
            let bytes: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| anyhow!("no RSA key"))?;
            std::fs::write(&kept, bytes.as_ref())?;
            pair
        };
        Ok(Self { kid: kid.to_owned(), secret: Secret::Rsa(pair) })
    }

    /// A fresh P-256 key, for ES256.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn p256(kid: &str) -> Result<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map_err(|_| anyhow!("no P-256 key"))?;
        Ok(Self { kid: kid.to_owned(), secret: Secret::P256(pair) })
    }

    /// A fresh Ed25519 key, for EdDSA.
    ///
    /// # Errors
    /// When the key cannot be made.
    pub fn ed25519(kid: &str) -> Result<Self> {
        let pair = Ed25519KeyPair::generate().map_err(|_| anyhow!("no Ed25519 key"))?;
        Ok(Self { kid: kid.to_owned(), secret: Secret::Ed25519(pair) })
    }

    /// The key's id.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The `alg` that the key is for.
    #[must_use]
    pub fn alg(&self) -> &'static str {
        match self.secret {
            Secret::Rsa(_) => "RS256",
            Secret::P256(_) => "ES256",
            Secret::Ed25519(_) => "EdDSA",
        }
    }

    /// The public half as a JWK with `kid`, `use` and `alg`.
    ///
    /// # Errors
    /// When the public key cannot be read.
    pub fn jwk(&self) -> Result<Value> {
        let mut jwk = match &self.secret {
            Secret::Rsa(pair) => {
                let (n, e) = rsa_numbers(pair.public_key().as_ref())?;
                json!({"kty": "RSA", "n": b64(n), "e": b64(e)})
            }
            Secret::P256(pair) => {
                // Uncompressed point: 0x04, x, y.
                let point = pair.public_key().as_ref();
                let (x, y) = point.get(1..65).context("P-256 point")?.split_at(32);
                json!({"kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y)})
            }
            Secret::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref())})
            }
        };
        set(&mut jwk, "kid", json!(self.kid));
        set(&mut jwk, "use", json!("sig"));
        set(&mut jwk, "alg", json!(self.alg()));
        Ok(jwk)
    }

    /// A compact JWS over `claims` with exactly `typ`, `alg` and `kid` in the header.
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign(&self, typ: &str, claims: &Value) -> Result<String> {
        self.sign_with(&json!({"typ": typ, "alg": self.alg(), "kid": self.kid}), claims)
    }

    /// A compact JWS with any header. The header's `alg` decides how the key is used as far as the
    /// key can (RS256 and RS384 for RSA); another `alg` is written as it is and the key's own
    /// algorithm signs.
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign_with(&self, header: &Value, claims: &Value) -> Result<String> {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    /// A compact JWS over texts that need not be JSON: duplicate keys, odd numbers, garbage.
    ///
    /// # Errors
    /// When signing fails.
    pub fn sign_text(&self, header: &str, claims: &str) -> Result<String> {
        let input = format!("{}.{}", b64(header.as_bytes()), b64(claims.as_bytes()));
        let sha384 = header.contains("RS384");
        let signature = self.signature(input.as_bytes(), sha384)?;
        Ok(format!("{input}.{}", b64(&signature)))
    }

    fn signature(&self, message: &[u8], sha384: bool) -> Result<Vec<u8>> {
        let rng = SystemRandom::new();
        match &self.secret {
            Secret::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let padding = if sha384 { &RSA_PKCS1_SHA384 } else { &RSA_PKCS1_SHA256 };
                pair.sign(padding, &rng, message, &mut signature)
                    .map_err(|_| anyhow!("RSA signing failed"))?;
                Ok(signature)
            }
            Secret::P256(pair) => Ok(pair
                .sign(&rng, message)
                .map_err(|_| anyhow!("P-256 signing failed"))?
                .as_ref()
                .to_vec()),
            Secret::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

/// Modulus and exponent of a DER `RSAPublicKey` (RFC 8017, appendix A.1.1), without leading zeros.
fn rsa_numbers(der: &[u8]) -> Result<(&[u8], &[u8])> {
    let (sequence, _) = der_element(der, 0x30)?;
    let (modulus, rest) = der_element(sequence, 0x02)?;
    let (exponent, _) = der_element(rest, 0x02)?;
    Ok((modulus.strip_prefix(&[0]).unwrap_or(modulus), exponent))
}

/// The content of the DER element with this tag at the start of `der`, and what follows it.
fn der_element(der: &[u8], tag: u8) -> Result<(&[u8], &[u8])> {
    let [found, first, rest @ ..] = der else { bail!("DER ends early") };
    ensure!(*found == tag, "DER tag {found:#x} where {tag:#x} belongs");
    let (length, content) = match first {
        0..0x80 => (usize::from(*first), rest),
        _ => {
            let (bytes, content) = rest
                .split_at_checked(usize::from(first & 0x7f))
                .context("a DER length ends early")?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), content)
        }
    };
    content.split_at_checked(length).context("a DER element ends early")
}

/// The public key as an HMAC secret: what a verifier that trusts the header's `alg` falls for.
///
/// # Errors
/// When the public key cannot be read.
pub fn hs256_keyed_with_public_key(key: &SigningKey, claims: &Value) -> Result<String> {
    let header = json!({"alg": "HS256", "kid": key.kid});
    let input =
        format!("{}.{}", b64(header.to_string().as_bytes()), b64(claims.to_string().as_bytes()));
    let public = key.jwk()?;
    let secret = public.get("n").and_then(Value::as_str).context("an RSA key")?;
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), input.as_bytes());
    Ok(format!("{input}.{}", b64(tag.as_ref())))
}

/// A JWS that says `alg: none` and has `signature` as its third part.
#[must_use]
pub fn unsigned(kid: &str, claims: &Value, signature: &str) -> String {
    let header = json!({"alg": "none", "kid": kid});
    format!(
        "{}.{}.{signature}",
        b64(header.to_string().as_bytes()),
        b64(claims.to_string().as_bytes())
    )
}

/// The same JWS with other claims and the old signature.
///
/// # Errors
/// When `jws` has no claims.
pub fn with_claims_changed(
    jws: &str,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<String> {
    let [header, _, signature] = parts(jws)?;
    let mut claims = claims(jws)?;
    change(claims.as_object_mut().context("claims are an object")?);
    Ok(format!("{header}.{}.{signature}", b64(claims.to_string().as_bytes())))
}

/// The same JWS with the first bit of its signature flipped.
///
/// # Errors
/// When `jws` has no signature.
pub fn with_signature_changed(jws: &str) -> Result<String> {
    let [header, claims, signature] = parts(jws)?;
    let mut bytes = unb64(signature)?;
    *bytes.first_mut().context("an empty signature")? ^= 0x80;
    Ok(format!("{header}.{claims}.{}", b64(&bytes)))
}

/// The claims of a JWS, unverified.
///
/// # Errors
/// When `jws` is not a JWS of JSON.
pub fn claims(jws: &str) -> Result<Value> {
    let [_, claims, _] = parts(jws)?;
    serde_json::from_slice(&unb64(claims)?).context("the claims of a JWS")
}

/// Verifies a client assertion of RFC 7523 against its client's public JWK and gives its claims.
///
/// # Errors
/// When the signature does not fit.
pub fn verify_rs256(jws: &str, jwk: &Value) -> Result<Value> {
    let [header, claims, signature] = parts(jws)?;
    let parsed: Value = serde_json::from_slice(&unb64(header)?).context("the header of a JWS")?;
    ensure!(parsed.get("alg").and_then(Value::as_str) == Some("RS256"), "alg is not RS256");
    let number = |name: &str| -> Result<Vec<u8>> {
        unb64(jwk.get(name).and_then(Value::as_str).context("an RSA JWK")?)
    };
    let public = PublicKeyComponents { n: number("n")?, e: number("e")? };
    public
        .verify(
            &RSA_PKCS1_2048_8192_SHA256,
            format!("{header}.{claims}").as_bytes(),
            &unb64(signature)?,
        )
        .map_err(|_| anyhow!("the signature does not verify"))?;
    serde_json::from_slice(&unb64(claims)?).context("the claims of a JWS")
}

/// Verifies an ES256 JWS against a public JWK and gives its claims.
///
/// # Errors
/// When the signature does not fit.
pub fn verify_es256(jws: &str, jwk: &Value) -> Result<Value> {
    let [header, claims, signature] = parts(jws)?;
    let mut point = vec![4];
    for name in ["x", "y"] {
        point.extend(unb64(jwk.get(name).and_then(Value::as_str).context("an EC JWK")?)?);
    }
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(format!("{header}.{claims}").as_bytes(), &unb64(signature)?)
        .map_err(|_| anyhow!("the signature does not verify"))?;
    serde_json::from_slice(&unb64(claims)?).context("the claims of a JWS")
}

/// base64url without padding of the SHA-256 of `text`: `ath`.
#[must_use]
pub fn sha256_b64(text: &str) -> String {
    b64(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

/// base64url without padding.
#[must_use]
pub fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn unb64(text: &str) -> Result<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).context("base64url")
}

/// The three parts of a compact JWS.
///
/// # Errors
/// When there are not three.
pub fn parts(jws: &str) -> Result<[&str; 3]> {
    let parts: Vec<&str> = jws.split('.').collect();
    match parts.as_slice() {
        [header, claims, signature] => Ok([header, claims, signature]),
        other => bail!("a compact JWS has three parts, this has {}", other.len()),
    }
}

/// Sets one member of an object; anything else is left alone.
pub fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.insert(name.to_owned(), value);
    }
}

/// A fresh id that sorts by time, as control planes and issuers give.
#[must_use]
pub fn fresh_id(prefix: &str) -> String {
    let wall = crate::clock::wall();
    let stamp = uuid::Timestamp::from_unix(uuid::NoContext, wall.as_secs(), wall.subsec_nanos());
    format!("{prefix}{}", uuid::Uuid::new_v7(stamp).simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_verifies_and_what_is_changed_does_not() -> Result<()> {
        let rsa = SigningKey::rsa("r1")?;
        let jws = rsa.sign("JWT", &json!({"a": 1}))?;
        assert_eq!(verify_rs256(&jws, &rsa.jwk()?)?, json!({"a": 1}));
        assert!(verify_rs256(&with_signature_changed(&jws)?, &rsa.jwk()?).is_err());
        let changed = with_claims_changed(&jws, |claims| {
            claims.insert("a".to_owned(), json!(2));
        })?;
        assert!(verify_rs256(&changed, &rsa.jwk()?).is_err());

        let p256 = SigningKey::p256("e1")?;
        let jws = p256.sign("hostgrant+jwt", &json!({"b": true}))?;
        assert_eq!(verify_es256(&jws, &p256.jwk()?)?, json!({"b": true}));
        assert!(verify_es256(&with_signature_changed(&jws)?, &p256.jwk()?).is_err());
        Ok(())
    }

    #[test]
    fn a_jwk_never_holds_the_private_half() -> Result<()> {
        for key in [SigningKey::rsa("a")?, SigningKey::p256("b")?, SigningKey::ed25519("c")?] {
            let jwk = key.jwk()?;
            for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
                assert!(jwk.get(private).is_none(), "{private} in {jwk}");
            }
        }
        Ok(())
    }
}
