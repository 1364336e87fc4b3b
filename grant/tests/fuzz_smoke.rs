//! Every fuzz entry point over a few thousand mutated seeds, the same ones in each run. `fuzz/` looks
//! further with coverage guidance; this keeps the entry points alive wherever tests run.

#[cfg(test)]
mod smoke {
    use grantd_grant::fuzzing;

    const ROUNDS: u32 = 4000;
    const GRANT: &str = r#"{"ver":1,"iss":"https://c","aud":"spiffe://e/h","jti":"j","txn":"t","iat":1,
        "nbf":1,"exp":2,"sub":"s","cid":"c","act":{"sub":"a","sub_profile":"p"},"okta":{"iss":"https://o",
        "ath":"47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"},"workload":"w","replaces":"k",
        "boot_id":"3f1c2b7e-0000-4a4b-8c8d-1234567890ab","approval":{"by":"b","at":1,"id":"i"},
        "authorization_details":[{"type":"network_connect","actions":["connect"],"protocol":"tcp",
        "endpoints":[{"host":"*.a.example","ports":[1,{"from":2,"to":3}]},{"cidr":"10.0.0.0/8","ports":[4]}]}]}"#;
    const TOKEN: &str = r#"{"alg":"RS256","kid":"k","iss":"i","aud":["a"],"sub":"s","iat":1,"exp":2,"jti":"j",
        "cid":"c","uid":"u","act":{"sub":"a"},"scp":["x"],"groups":["g"],"auth_time":1,"nbf":1}"#;
    const JWS: &str =
        "eyJ0eXAiOiJob3N0Z3JhbnQrand0IiwiYWxnIjoiRWREU0EiLCJraWQiOiJrIn0.eyJ2ZXIiOjF9.AAAA";
    const BODY: &str = r#"{"grant":"a.b.c","subject_token":"d.e.f"}"#;
    const JWKS: &str = r#"{"keys":[{"kty":"RSA","use":"sig","alg":"RS256","kid":"k","n":"_w","e":"AQAB"},
        {"kty":"EC","crv":"P-256","x":"AA","y":"AA","kid":"l"}]}"#;
    const PINNED: &str = r#"{"keys":[{"kid":"k","alg":"EdDSA","kty":"OKP","crv":"Ed25519","nbf":1,"exp":2,
        "x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    const REVOKE: &str = r#"{"ver":1,"iss":"i","aud":"a","jti":"j","iat":1,"exp":2,"seq":3,
        "revoke":[{"jti":"x"},{"all":true}],"issued_before":4}"#;
    const LIST: &str = r#"{"ver":1,"iss":"i","aud":"a","iat":1,"exp":2,"seq":3,
        "revoked":[{"revoke":{"sub":"x"},"issued_before":4}]}"#;

    /// Xorshift: the same sequence in each run.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % sides.max(1) as u64).unwrap()
        }
    }

    fn mutate(seed: &[u8], dice: &mut Dice) -> Vec<u8> {
        const TOKENS: [&str; 14] = [
            "null",
            "[]",
            "{}",
            "\"\"",
            "-1",
            "1e308",
            "18446744073709551615",
            "\\u0000",
            "\u{200b}",
            "\"",
            ",",
            "*.",
            "::ffff:",
            "/0",
        ];
        let mut data = seed.to_vec();
        for _ in 0..=dice.roll(4) {
            let at = dice.roll(data.len());
            match dice.roll(6) {
                0 if at < data.len() => data[at] ^= 1 << dice.roll(8),
                1 if at < data.len() => drop(data.remove(at)),
                2 => data.insert(at, u8::try_from(dice.roll(256)).unwrap()),
                3 => drop(data.splice(at..at, TOKENS[dice.roll(TOKENS.len())].bytes())),
                4 => data.truncate(at),
                _ => {
                    let end = (at + dice.roll(24)).min(data.len());
                    let copy = data[at..end].to_vec();
                    let to = dice.roll(data.len());
                    drop(data.splice(to..to, copy));
                }
            }
        }
        data
    }

    fn run(entry: fn(&[u8]), seeds: &[&str]) {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
        for seed in seeds {
            entry(seed.as_bytes());
            for _ in 0..ROUNDS {
                entry(&mutate(seed.as_bytes(), &mut dice));
            }
        }
    }

    #[test]
    fn no_push_body_panics() {
        run(fuzzing::push_body, &[BODY, ""]);
    }

    #[test]
    fn no_grant_panics_or_is_accepted_without_destinations() {
        run(fuzzing::grant_jws, &[JWS, "", ".."]);
        run(fuzzing::grant_claims, &[GRANT]);
    }

    #[test]
    fn no_okta_token_panics() {
        run(fuzzing::okta_token, &[JWS, TOKEN]);
    }

    #[test]
    fn no_key_set_panics() {
        run(fuzzing::jwks, &[JWKS, PINNED]);
        run(fuzzing::control_plane_keys, &[PINNED, JWKS]);
    }

    #[test]
    fn no_revocation_panics_or_is_accepted_empty() {
        run(fuzzing::revocation, &[REVOKE, BODY]);
        run(fuzzing::revocation_list, &[LIST, JWS]);
    }

    #[test]
    fn no_host_has_two_spellings() {
        let seeds = [
            "db-1.internal",
            "*.pkg.example.com",
            "10.20.0.0/24",
            "2001:db8::/32",
            "::ffff:10.0.0.1",
            "192.0.2.1",
            "xn--bcher-kva.example",
        ];
        run(fuzzing::destination, &seeds);
    }

    #[test]
    fn no_endpoint_panics() {
        run(fuzzing::endpoint, &[r#"{"host":"a.example","ports":[1,{"from":2,"to":3}]}"#]);
    }
}
