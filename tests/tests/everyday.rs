//! Everyday software, unmodified, started by `grantctl run`: refused before a grant, and working with one.

use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use grantd_e2e::everyday::{Https, Postgres, Ssh, program, repository};
use grantd_e2e::launch::{Launcher, UID, text};
use grantd_e2e::programs::not_run;
use grantd_e2e::server::Server;
use grantd_e2e::world::{A, World, at, scenario};

const HELLO: &str = "hello from the repository\n";

/// Runs it without a grant, when it has to fail, and with one, when it has to say this.
fn works_when_granted(world: &World, port: u16, words: &[&str], says: &str) -> Result<()> {
    let launcher = Launcher::new(world)?;
    let before = launcher.run(words)?;
    ensure!(!before.status.success(), "{words:?} without a grant: {}", told(&before));
    world.control_plane.push(&world.draft()?.tcp(A, port))?.in_force()?;
    let after = launcher.run(words)?;
    ensure!(after.status.success(), "{words:?} with a grant: {}", told(&after));
    ensure!(text(&after.stdout).contains(says), "{words:?} says: {}", told(&after));
    Ok(())
}

fn told(output: &Output) -> String {
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// A directory that the account of the commands may write to, as a path in words.
fn of_the_account(world: &World) -> Result<String> {
    let directory = world.workdir.subdir("home", 0o700)?;
    std::os::unix::fs::chown(&directory, Some(UID), Some(UID))?;
    Ok(directory.to_str().context("a path")?.to_owned())
}

/// Where a program is; tells that the test does not run where it is nowhere.
fn needed(test: &str, name: &str) -> Result<Option<String>> {
    match program(name) {
        Some(path) => Ok(Some(path.to_str().context("a path")?.to_owned())),
        None => not_run(test, &format!("there is no {name} here")).map(|()| None),
    }
}

#[test]
fn everyday_curl_fetches_over_https() {
    scenario(|world| {
        let Some(curl) = needed("curl over HTTPS", "curl")? else { return Ok(()) };
        let files = world.workdir.subdir("files", 0o755)?;
        std::fs::write(files.join("hello"), HELLO)?;
        let https = Https::start(world, at(A, 443)?, &files)?;
        let authority = https.authority.to_str().context("a path")?;
        let url = format!("https://{A}/hello");
        works_when_granted(world, 443, &[&curl, "-sS", "--cacert", authority, &url], HELLO)
    });
}

#[test]
fn everyday_git_clones_over_https() {
    scenario(|world| {
        let Some(git) = needed("git over HTTPS", "git")? else { return Ok(()) };
        let bare = repository(world, Path::new(&git))?;
        let https = Https::start(world, at(A, 443)?, bare.parent().context("its parent")?)?;
        let authority = https.authority.to_str().context("a path")?;
        let home = of_the_account(world)?;
        let script = format!(
            "cd {home} && export HOME={home} GIT_SSL_CAINFO={authority} GIT_CONFIG_NOSYSTEM=1 && \
             {git} clone --quiet https://{A}/hello.git copy && cat copy/hello"
        );
        works_when_granted(world, 443, &["sh", "-c", &script], HELLO)
    });
}

#[test]
fn git_clones_and_pushes_over_ssh() {
    scenario(|world| {
        let test = "git over SSH";
        for name in ["dropbear", "dropbearkey", "ssh", "ssh-keygen", "unshare"] {
            if needed(test, name)?.is_none() {
                return Ok(());
            }
        }
        // Over which the server has an account of its own.
        if !Path::new("/etc/shadow").exists() {
            return not_run(test, "there is no /etc/shadow here");
        }
        let Some(git) = needed(test, "git")? else { return Ok(()) };
        let bare = repository(world, Path::new(&git))?;
        let bare = bare.to_str().context("a path")?;
        let ssh = Ssh::start(world, at(A, 22)?, UID)?;
        let home = of_the_account(world)?;
        let key = ssh.key.to_str().context("a path")?;
        let script = format!(
            "cd {home} && export HOME={home} GIT_CONFIG_NOSYSTEM=1 \
             GIT_SSH_COMMAND='ssh -F /dev/null -i {key} -o BatchMode=yes -o StrictHostKeyChecking=no \
             -o UserKnownHostsFile={home}/known' && rm -rf copy && \
             {git} clone --quiet ssh://root@{A}{bare} copy && cat copy/hello && cd copy && echo more >>hello && \
             {git} -c user.name=t -c user.email=t@t commit --quiet --all --message=more && \
             {git} push --quiet origin main && echo pushed"
        );
        works_when_granted(world, 22, &["sh", "-c", &script], "pushed\n")
    });
}

#[test]
fn psql_asks_a_real_postgresql() {
    scenario(|world| {
        let test = "psql against PostgreSQL";
        let Some(psql) = needed(test, "psql")? else { return Ok(()) };
        let Some(programs) = Postgres::programs() else {
            return not_run(test, "there is no PostgreSQL server here");
        };
        let _server = Postgres::start(world, at(A, 5432)?, &programs)?;
        let url = format!("postgresql://agent@{A}:5432/postgres?connect_timeout=10");
        let query = "CREATE TABLE t (n int); INSERT INTO t SELECT generate_series(1, 1000); \
                     SELECT 'sum ' || sum(n) FROM t";
        works_when_granted(world, 5432, &[&psql, "-X", "-At", "-c", query, &url], "sum 500500")
    });
}

#[test]
fn node_connects_by_its_own_event_loop() {
    scenario(|world| {
        let Some(node) = needed("node", "node")? else { return Ok(()) };
        let files = world.workdir.subdir("files", 0o755)?;
        std::fs::write(files.join("hello"), HELLO)?;
        let https = Https::start(world, at(A, 443)?, &files)?;
        let authority = https.authority.display();
        let script = format!(
            "const ca = require('fs').readFileSync('{authority}');\
             require('https').get({{ host: '{A}', path: '/hello', ca }}, r => r.pipe(process.stdout))"
        );
        works_when_granted(world, 443, &[&node, "-e", &script], HELLO)
    });
}

#[test]
fn python_connects_with_asyncio_many_times_at_once() {
    scenario(|world| {
        let Some(python) = needed("python asyncio", "python3")? else { return Ok(()) };
        let _server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let script = format!(
            "import asyncio\n\
             async def one(n):\n    \
                 r, w = await asyncio.open_connection('{A}', 5432)\n    \
                 w.write(b'%8d' % n)\n    \
                 await w.drain()\n    \
                 return int(await r.readexactly(8)) == n\n\
             async def main():\n    \
                 print(sum(await asyncio.gather(*map(one, range(50)))), 'of 50 answered')\n\
             asyncio.run(main())\n"
        );
        works_when_granted(world, 5432, &[&python, "-c", &script], "50 of 50 answered")
    });
}

#[test]
fn java_connects_with_its_http_client() {
    scenario(|world| {
        let Some(java) = needed("java", "java")? else { return Ok(()) };
        let modules = std::process::Command::new(&java).arg("--list-modules").output()?;
        if !text(&modules.stdout).contains("jdk.compiler") {
            return not_run("java", "there is no compiler with it");
        }
        let _server = Server::tcp(&world.srv_a, at(A, 5432)?)?;
        let source = format!(
            "import java.net.*; class Main {{ public static void main(String[] a) throws Exception {{ \
             try (var s = new Socket(\"{A}\", 5432)) {{ s.getOutputStream().write(\"java!!!!\".getBytes()); \
             System.out.println(new String(s.getInputStream().readNBytes(8)) + \" answered\"); }} }} }}"
        );
        let source = world.workdir.write("Main.java", 0o644, source.as_bytes())?;
        let source = source.to_str().context("a path")?;
        let options = ["-XX:-UsePerfData", "-XX:TieredStopAtLevel=1"];
        works_when_granted(
            world,
            5432,
            &[&java, options[0], options[1], source],
            "java!!!! answered",
        )
    });
}
