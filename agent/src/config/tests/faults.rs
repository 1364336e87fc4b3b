//! Each class of fault, alone and together.

use super::*;

/// One fault: what was changed, the key that the message must name, and a word it must say.
struct Case(String, &'static str, &'static str);

fn case(from: &str, to: &str, key: &'static str, says: &'static str) -> Case {
    Case(changed(from, to), key, says)
}

fn added(section: &str, lines: &str, key: &'static str, says: &'static str) -> Case {
    Case(with(section, lines), key, says)
}

fn assert_each_is_the_only_fault(cases: Vec<Case>) {
    for Case(text, key, says) in cases {
        let found = faults(&text);
        assert_eq!(found.len(), 1, "not exactly one fault at {key} ({says}): {found:#?}");
        let fault = &found[0];
        assert_eq!(fault.key, key, "{fault}");
        assert!(fault.line.is_some(), "a person has to search for the line: {fault}");
        let whole = fault.to_string();
        assert!(whole.contains(says), "{whole:?} does not say {says:?}");
        assert!(!fault.expected.is_empty(), "{whole:?} does not say what would be right");
    }
}

#[test]
fn a_wrong_identity_is_named() {
    let id = r#""spiffe://example.org/host/build-7""#;
    assert_each_is_the_only_fault(vec![
        case(id, r#""https://example.org/host""#, "host_id", "SPIFFE"),
        case(id, r#""spiffe://Example.org/host""#, "host_id", "SPIFFE"),
        case(id, "7", "host_id", "of type integer"),
    ]);
    let found = faults(&changed(&format!("host_id = {id}\n"), ""));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].key.as_str(), found[0].problem.as_str()), ("host_id", "is missing"));
}

#[test]
fn an_issuer_that_anyone_could_imitate_is_refused() {
    let issuer = r#""https://acme.okta.com/oauth2/aus123""#;
    let key = "okta.issuer";
    assert_each_is_the_only_fault(vec![
        case(issuer, r#""http://acme.okta.com/oauth2/aus123""#, key, "not https"),
        case(issuer, r#""http://127.0.0.1:8080""#, key, "not https"),
        case(issuer, r#""acme.okta.com""#, key, "https"),
        case(issuer, r#""https://acme.okta.com/?x=1""#, key, "no query"),
        case(issuer, r#""https://user@acme.okta.com/oauth2/aus123""#, key, "user name"),
        case(issuer, r#""https://ACME.okta.com/oauth2/aus123""#, key, "https://acme.okta.com"),
        case(issuer, r#""https://acme.okta.com:443/oauth2""#, key, "usual form"),
        case(issuer, r#""""#, key, "https"),
    ]);
}

#[test]
fn development_http_is_for_this_machine_only() {
    let issuer = r#"issuer = "https://acme.okta.com/oauth2/aus123""#;
    let with_issuer =
        |url: &str| changed(issuer, &format!("issuer = \"{url}\"\ndevelopment_http = true"));
    for url in ["http://127.0.0.1:8080", "http://127.0.0.1:8080/oauth2/aus1", "http://[::1]:8080"] {
        assert_eq!(faults(&with_issuer(url)), Vec::new(), "{url} cannot be used for development");
    }
    for url in [
        "https://acme.okta.com/oauth2/aus123",
        "http://acme.okta.com",
        "http://localhost:8080",
        "http://10.0.0.1:8080",
        "https://127.0.0.1:8080",
    ] {
        let found = faults(&with_issuer(url));
        assert_eq!(found.len(), 1, "{url} was accepted over development_http: {found:?}");
        assert_eq!(found[0].key, "okta.issuer");
    }
}

#[test]
fn an_audience_that_other_apps_tokens_carry_is_refused() {
    let audience = r#""api://grantd""#;
    assert_each_is_the_only_fault(vec![
        case(audience, r#""api://default""#, "okta.audience", "any app"),
        case(audience, r#""""#, "okta.audience", "audience"),
        case(audience, "[]", "okta.audience", "of type array"),
        added("[okta]", "required_scopes = []", "okta.required_scopes", "is empty"),
        added("[okta]", r#"required_scopes = ["a b"]"#, "okta.required_scopes[0]", "scope"),
    ]);
}

#[test]
fn keys_may_come_only_from_the_issuers_own_origin() {
    let key = "okta.jwks_uri";
    assert_each_is_the_only_fault(vec![
        added("[okta]", r#"jwks_uri = "https://evil.example/keys""#, key, "https://acme.okta.com"),
        added("[okta]", r#"jwks_uri = "http://acme.okta.com/keys""#, key, "is not on"),
        added("[okta]", r#"jwks_uri = "https://acme.okta.com:8443/keys""#, key, "is not on"),
        added("[okta]", r#"jwks_uri = "/keys""#, key, "URL"),
        added("[okta]", r#"ca = "ca.pem""#, "okta.ca", "absolute"),
        added("[okta]", r#"proxy = "socks5://proxy:1""#, "okta.proxy", "http or https"),
        added("[okta]", r#"proxy = "http://u:p@proxy:1""#, "okta.proxy", "password"),
        added("[okta]", r#"staleness = "8d""#, "okta.staleness", "7d"),
    ]);
}

#[test]
fn the_listener_is_fully_described() {
    let key = "control_plane.listen";
    let listen = r#""0.0.0.0:7443""#;
    let peers = r#"["spiffe://example.org/control-plane"]"#;
    let dial = r#"dial = "https://control.example.org:7443""#;
    assert_each_is_the_only_fault(vec![
        case(listen, r#""0.0.0.0""#, key, "port"),
        case(listen, r#""localhost:7443""#, key, "IP address"),
        case(listen, r#""0.0.0.0:0""#, key, "port 0"),
        case(r#"listen = "0.0.0.0:7443""#, "", key, "is missing"),
        case(peers, "[]", "control_plane.peers", "is empty"),
        case(peers, r#"["control-plane"]"#, "control_plane.peers[0]", "URI"),
        case(
            r#""/etc/grantd/control-plane.jwks""#,
            r#""keys.jwks""#,
            "control_plane.keys",
            "absolute",
        ),
        case(
            r#""/etc/grantd/tls/ca.pem""#,
            r#""/etc/../ca.pem""#,
            "control_plane.tls.client_ca",
            "..",
        ),
        case(
            r#"key = "/etc/grantd/tls/host.key", "#,
            "",
            "control_plane.tls.key",
            "LoadCredential",
        ),
        case(
            r#""/etc/grantd/tls/host.key""#,
            r#""credential:tls.key""#,
            "control_plane.tls.key",
            "LoadCredential",
        ),
        case(
            r#""/etc/grantd/tls/host.key""#,
            r#""credential:../x""#,
            "control_plane.tls.key",
            "credential name",
        ),
        added("[control_plane]", dial, "control_plane.dial", "not supported yet"),
    ]);
}

#[test]
fn a_workload_lives_in_a_subtree_of_its_own_below_the_slice() {
    let cgroup = r#""agents.slice/coding-agent.service""#;
    let key = "workload[0].cgroup";
    assert_each_is_the_only_fault(vec![
        case(cgroup, r#""/agents.slice/x""#, key, "begins with /"),
        case(cgroup, r#""system.slice/x.service""#, key, "not below the slice"),
        case(cgroup, r#""agents.slicer/x""#, key, "not below the slice"),
        case(cgroup, r#""agents.slice""#, key, "slice itself"),
        case(cgroup, r#""agents.slice/../x""#, key, ".."),
        case(cgroup, r#""agents.slice//x""#, key, "empty part"),
        case(cgroup, r#""agents.slice/a/b/c/d/e""#, key, "4 levels"),
        case(
            r#"slice = "agents.slice""#,
            r#"slice = "/agents.slice""#,
            "enforcement.slice",
            "begins",
        ),
    ]);
    let kept = "keeps for cgroups of its own";
    assert_each_is_the_only_fault(
        ["agents.slice/grantd-canary", "agents.slice/grantd-new/agent.service"]
            .map(|own| case(cgroup, &format!("\"{own}\""), "workload[0].cgroup", kept))
            .into(),
    );
    let deeper = changed(cgroup, r#""agents.slice/a/grantd-agent.service""#);
    assert_eq!(faults(&deeper), Vec::new(), "only names right below the slice are kept");
    let deepest = changed(cgroup, r#""agents.slice/a/b/c/d""#);
    assert_eq!(faults(&deepest), Vec::new(), "four levels are as deep as promised");
}

#[test]
fn two_workloads_never_share_a_name_or_a_process() {
    let second = |name: &str, cgroup: &str| {
        format!(
            "{GOOD}\n[[workload]]\nname = \"{name}\"\ncgroup = \"{cgroup}\"\nsubjects = [{{ uid = \"u\" }}]\n"
        )
    };
    assert_eq!(faults(&second("other", "agents.slice/other.service")), Vec::new());
    assert_each_is_the_only_fault(vec![
        Case(second("coding-agent", "agents.slice/o"), "workload[1].name", "earlier workload"),
        Case(
            second("other", "agents.slice/coding-agent.service"),
            "workload[1].cgroup",
            "earlier workload",
        ),
        Case(
            second("other", "agents.slice/coding-agent.service/sub"),
            "workload[1].cgroup",
            "earlier workload",
        ),
    ]);
}

#[test]
fn a_workload_without_clear_subjects_or_limits_is_refused() {
    let subjects = r#"[{ cid = "0oa4client" }]"#;
    let ttl = r#"max_ttl = "15m""#;
    assert_each_is_the_only_fault(vec![
        case(subjects, "[]", "workload[0].subjects", "is empty"),
        case(subjects, "[{}]", "workload[0].subjects[0]", "none or several"),
        case(subjects, r#"[{ cid = "a", uid = "b" }]"#, "workload[0].subjects[0]", "several"),
        case(subjects, r#"[{ cid = "a b" }]"#, "workload[0].subjects[0].cid", "client id"),
        case(r#"name = "coding-agent""#, r#"name = "Coding Agent""#, "workload[0].name", "a-z"),
        case(ttl, r#"max_ttl = "61m""#, "workload[0].max_ttl", "60m"),
        case(ttl, r#"max_ttl = "15""#, "workload[0].max_ttl", "duration"),
        case(ttl, "max_ttl = 900", "workload[0].max_ttl", "of type integer"),
        case(ttl, r#"max_ttl = "0s""#, "workload[0].max_ttl", "no time"),
        added("[[workload]]", "max_live_grants = 0", "workload[0].max_live_grants", "from 1"),
        added(
            "[[workload]]",
            "grant_rate = { grants = 5 }",
            "workload[0].grant_rate.per",
            "missing",
        ),
        added("[[workload]]", r#"user = "a b""#, "workload[0].user", "user name"),
        added("[[workload]]", r#"hide = ["run/x"]"#, "workload[0].hide[0]", "absolute path"),
        added("[[workload]]", "hide = []", "workload[0].hide", "is empty"),
        added("[[workload]]", r#"unhide = ["/"]"#, "workload[0].unhide[0]", "the root itself"),
        added("[[workload]]", r#"unit = "x.service""#, "workload[0].unit", "later release"),
        added("[[workload]]", "max_sockets = 0", "workload[0].max_sockets", "from 1"),
    ]);
}

#[test]
fn a_listener_that_would_let_nobody_or_the_unknown_in_is_refused() {
    let listen = |rule: &str| format!("listen = [{{ {rule} }}]");
    let [port, from] = ["workload[0].listen[0].port", "workload[0].listen[0].from"];
    let ten = r#"from = ["10.0.0.0/8"]"#;
    let case = |rule: &str, key, says| added("[[workload]]", &listen(rule), key, says);
    assert_each_is_the_only_fault(vec![
        case(&format!(r#"port = 0, protocol = "tcp", {ten}"#), port, "from 1"),
        case(r#"port = 80, protocol = "tcp""#, from, "missing"),
        case(r#"port = 80, protocol = "tcp", from = []"#, from, "is empty"),
        case(
            r#"port = 80, protocol = "tcp", from = ["db-1.internal"]"#,
            "workload[0].listen[0].from[0]",
            "is a name",
        ),
        case(
            r#"port = 80, protocol = "tcp", from = ["10.0.0.1/8"]"#,
            "workload[0].listen[0].from[0]",
            "CIDR",
        ),
        case(
            &format!(r#"port = 80, protocol = "sctp", {ten}"#),
            "workload[0].listen[0].protocol",
            "tcp",
        ),
    ]);
}

#[test]
fn a_misspelt_subject_is_told_twice_as_unknown_and_as_missing() {
    let found = faults(&changed(r#"[{ cid = "0oa4client" }]"#, r#"[{ email = "a" }]"#));
    let keys: Vec<&str> = found.iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(keys, ["workload[0].subjects[0]", "workload[0].subjects[0].email"]);
}

#[test]
fn a_ceiling_entry_that_would_cover_nothing_or_too_much_is_refused() {
    let allow = r#"[{ host = "db-1.internal", ports = [5432], protocol = "tcp" }]"#;
    let scopes = r#"scopes = ["net.prod-db"]"#;
    let ports = "ports = [5432]";
    let host = r#"host = "db-1.internal""#;
    let at = "ceiling[0].allow[0]";
    assert_each_is_the_only_fault(vec![
        case(scopes, "", "ceiling[0]", "neither scopes nor groups"),
        case(scopes, "scopes = []", "ceiling[0].scopes", "is empty"),
        case(
            r#"workloads = ["coding-agent"]"#,
            r#"workloads = ["x"]"#,
            "ceiling[0].workloads[0]",
            "no [[workload]]",
        ),
        case(
            r#"workloads = ["coding-agent"]"#,
            "workloads = []",
            "ceiling[0].workloads",
            "is empty",
        ),
        case(allow, "[]", "ceiling[0].allow", "is empty"),
        case(ports, "ports = []", "ceiling[0].allow[0].ports", "is empty"),
        case(ports, "ports = [0]", "ceiling[0].allow[0].ports[0]", "from 1 to 65535"),
        case(ports, "ports = [65536]", "ceiling[0].allow[0].ports[0]", "from 1 to 65535"),
        case(ports, "ports = [{ from = 9, to = 8 }]", "ceiling[0].allow[0].ports[0]", "above"),
        case(r#"protocol = "tcp""#, r#"protocol = "sctp""#, "ceiling[0].allow[0].protocol", "udp"),
        case(host, r#"host = "DB-1.internal""#, "ceiling[0].allow[0].host", "lower-case"),
        case(host, r#"host = "*.com""#, "ceiling[0].allow[0].host", "public suffix"),
        case(host, r#"host = "224.0.0.1""#, "ceiling[0].allow[0].host", "multicast"),
        case(host, r#"cidr = "10.0.0.1/8""#, "ceiling[0].allow[0].cidr", "bits"),
        case(host, r#"cidr = "0.0.0.0/0""#, "ceiling[0].allow[0].cidr", "cannot be granted"),
        case(host, r#"host = "a.example", cidr = "10.0.0.0/8""#, at, "none or both"),
        case(r#"max_ttl = "10m""#, r#"max_ttl = "2h""#, "ceiling[0].max_ttl", "60m"),
        added("[[ceiling]]", r#"approval = "maybe""#, "ceiling[0].approval", "required"),
        added("[[ceiling]]", "approvals = 1", "ceiling[0].approvals", "unknown key"),
    ]);
}

#[test]
fn what_this_release_cannot_do_is_refused_rather_than_ignored() {
    let dns = format!("{GOOD}\n[dns]\nupstream = [\"10.0.0.2:53\"]\n");
    let sink = format!("{GOOD}\n[[audit.sink]]\ntype = \"https\"\nurl = \"https://c.example\"\n");
    assert_each_is_the_only_fault(vec![
        Case(dns, "dns", "later release"),
        Case(sink, "audit.sink", "later release"),
        added(
            "[[workload]]",
            r#"container = { name = "x" }"#,
            "workload[0].container",
            "later release",
        ),
    ]);
}

#[test]
fn daemon_settings_out_of_bounds_are_named() {
    let section = |text: &str| format!("{GOOD}\n{text}\n");
    assert_each_is_the_only_fault(vec![
        Case(section("[time]\nunsynchronised = \"ignore\""), "time.unsynchronised", "refuse"),
        Case(section("[paths]\nstate = \"var\""), "paths.state", "absolute"),
        Case(section("[audit]\nrequired = \"yes\""), "audit.required", "true or false"),
        Case(section("[audit]\nmax_bytes = \"1MB\""), "audit.max_bytes", "MiB"),
        Case(section("[audit]\nsegment_bytes = \"1KiB\""), "audit.segment_bytes", "64KiB"),
        Case(section("[audit]\nmax_bytes = \"16MiB\""), "audit", "two segments"),
        Case(section("[deny]\nhost = \"x\""), "deny", "array"),
        Case(section("[[deny]]\nhost = \"10.0.0.1\"\nports = []"), "deny[0].ports", "empty"),
    ]);
}

#[test]
fn a_misspelt_key_is_named_with_the_keys_that_exist() {
    let found = faults(&with("[okta]", r#"audiance = "api://x""#));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].key.as_str(), found[0].line), ("okta.audiance", Some(5)));
    assert!(found[0].expected.contains("audience"), "{}", found[0]);
    let found = faults(&format!("{GOOD}\n[enforcment]\nslice = \"x\"\n"));
    assert_eq!((found.len(), found[0].key.as_str()), (1, "enforcment"), "{found:?}");
}

#[test]
fn a_file_with_n_faults_reports_n() {
    let text = r#"
hostid = "spiffe://example.org/host/build-7"

[okta]
issuer = "http://acme.okta.com"
audience = "api://default"

[control_plane]
issuer = "control"
keys = "keys"
dial = "https://control.example.org:7443"
peers = []
tls = { certificate = "host.pem", key = "/k", client_ca = "/c" }

[[workload]]
name = "a"
cgroup = "elsewhere/a"
subjects = []
max_ttl = "2h"

[[ceiling]]
workloads = ["b"]
allow = [{ host = "10.0.0.1", ports = [0, 70000], protocol = "tcp" }]

[dns]
"#;
    let found = parse(text).expect_err("none of this is right");
    let keys: Vec<&str> = found.faults.iter().map(|fault| fault.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "host_id",
            "hostid",
            "okta.issuer",
            "okta.audience",
            "control_plane.listen",
            "control_plane.issuer",
            "control_plane.keys",
            "control_plane.dial",
            "control_plane.peers",
            "control_plane.tls.certificate",
            "workload[0].cgroup",
            "workload[0].subjects",
            "workload[0].max_ttl",
            "ceiling[0]",
            "ceiling[0].allow[0].ports[0]",
            "ceiling[0].allow[0].ports[1]",
            "dns",
        ],
        "{found}"
    );
    assert_eq!(found.to_string().lines().count(), found.faults.len(), "one line per fault");
    let line = "/etc/grantd/config.toml:6: okta.audience = \"api://default\": ";
    assert!(found.to_string().contains(line), "{found}");
}

#[test]
fn every_syntax_error_is_told_with_its_line_and_nothing_is_guessed_from_the_rest() {
    let found = faults("host_id = \n[okta\nissuer = \"x\"\n");
    assert!(!found.is_empty());
    assert!(found.iter().all(|fault| fault.problem.starts_with("not TOML")), "{found:#?}");
    assert_eq!(found[0].line, Some(1), "{found:#?}");
    let twice = faults(&with("[okta]", r#"audience = "api://other""#));
    assert_eq!(twice.len(), 1, "a key written twice decides nothing: {twice:?}");
}

#[test]
fn faults_can_be_read_by_programs() {
    let found = parse(&changed(r#""api://grantd""#, r#""api://default""#)).expect_err("refused");
    let json = serde_json::to_value(&found).expect("serialisable");
    assert_eq!(json["file"], "/etc/grantd/config.toml");
    assert_eq!(json["faults"][0]["key"], "okta.audience");
    assert_eq!(json["faults"][0]["value"], "\"api://default\"");
    assert_eq!(json["faults"][0]["line"], 6);
}

#[test]
fn a_value_cannot_steer_the_terminal_that_shows_the_fault() {
    let text = changed(r#""api://grantd""#, "\"\"\"\n\\u001b[2J \u{7f}x\"\"\"");
    let shown = parse(&text).expect_err("refused").to_string();
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    assert_eq!(shown.lines().count(), 1, "{shown:?}");
}
