//! The way up.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use grantd_audit::event::{Coverage, Event, Lifecycle, LifecycleKind};
use grantd_audit::{Producer, Recorder, Spool, SpoolConfig, Writer};
use grantd_common::{Port, Protocol, Ring};
use grantd_grant::HostPattern;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::control::{Shared, Sources};
use super::error::Error;
use super::live::{Live, keep_watchdog_quiet};
use super::parts::{CONTROL, DENIALS, ENFORCER, Ended, FLOWS, LISTENER, Parts};
use crate::admission::PushAdmission;
use crate::canary::Canary;
use crate::clock::{Clock, SystemClock};
use crate::compile::LetIn;
use crate::config::{Config, GuardMode, Listen, Unsynchronised};
use crate::coverage::State;
use crate::ctl;
use crate::enforcer::{
    self, CommandReceiver, Enforcer, EnforcerHandle, Settings, Start, WorkloadSettings,
};
use crate::events::{CanaryEvent, CanaryTap, Pump, Written, canary_tap};
use crate::intake::{self, Limits, Listener, TlsMaterial};
use crate::kernel::{self, Setup};
use crate::keys::{ControlPlaneKeyFile, OktaKeyStore, OktaKeyTask};

/// Group that may read state through the control socket.
const OPERATORS: &str = "grantd";

/// How often it is looked for refusals that were only counted.
const REFUSALS_PERIOD: Duration = Duration::from_secs(10);

/// Brings everything up; when this returns, enforcement is in effect and pushes are taken.
pub(super) async fn start(config_file: PathBuf) -> Result<Live, Error> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let config = Config::load(&config_file)?;
    let keys = ControlPlaneKeyFile::open(&config.control_plane.keys)?;
    let tls = TlsMaterial::read(&config.control_plane.tls)?
        .server_config(config.host_id.as_str(), Arc::clone(&clock))?;
    make_directory(&config.paths.state, 0o700)?;
    make_directory(&config.paths.run, 0o755)?;
    let boot_id = boot_id()?;
    let (recorder, writer) = audit(&config, &boot_id, clock.as_ref())?;
    let setup = setup(&config)?;
    let mut enforcer = Enforcer::start(Start {
        settings: settings(&config, &boot_id)?,
        state: &config.paths.state,
        setup: &setup,
        keys: &keys.keys(),
        clock: Arc::clone(&clock),
        recorder: recorder.clone(),
    })?;
    tell_guard(&config, &mut enforcer)?;
    let (adopted, restored) = (enforcer.adopted(), enforcer.live_grants());
    tell_started(&config, &enforcer, &recorder, clock.as_ref());

    let relied_on: Vec<_> = enforcer.okta_keys_relied_on().collect();
    let (okta, okta_task, withdrawn) =
        OktaKeyStore::new(&config.okta, Arc::clone(&clock), relied_on)?;
    let written =
        if adopted { Written::read(&config.audit.dir, &boot_id)? } else { Written::default() };
    let (tap, canary_events) = canary_tap();
    let pumps = Ring::ALL.map(|ring| pump(ring, &mut enforcer, &recorder, &tap, &clock, &written));
    let socket = TcpListener::bind(config.control_plane.listen)
        .await
        .map_err(|source| Error::Listen { address: config.control_plane.listen, source })?;
    let listen = socket.local_addr().unwrap_or(config.control_plane.listen);
    let control = ctl::bind(&ctl::ServerConfig {
        path: config.paths.run.join("ctl.sock"),
        group: OPERATORS.to_owned(),
    })?;

    let (handle, commands) = enforcer::channel();
    let (stop_intake, intake_stops) = watch::channel(false);
    let (stop_events, events_stop) = watch::channel(false);
    let slice = config.enforcement.slice.as_str().to_owned();
    let canary_period = config.canary_period;
    let (shared, sources) = Shared::new(
        config,
        config_file,
        keys,
        tls,
        handle.clone(),
        okta,
        recorder.clone(),
        Arc::clone(&clock),
        boot_id,
    );
    let mut parts = Parts::default();
    spawn_enforcer(&mut parts, enforcer, commands)?;
    for (ring, pump) in Ring::ALL.into_iter().zip(pumps) {
        spawn_pump(&mut parts, ring, pump?, events_stop.clone());
    }
    spawn_keys(&mut parts, okta_task, withdrawn, handle.clone());
    let proven = spawn_canary(&mut parts, handle.clone(), canary_events, canary_period).await?;
    parts.spawn("the watchdog", keep_watchdog_quiet(handle.clone()));
    parts.spawn("the count of refusals", tell_refused(Arc::clone(&shared)));
    let (controlled, control_stops) = (Arc::clone(&shared), intake_stops.clone());
    parts.spawn(CONTROL, async move {
        ctl::serve(control, controlled, slice, control_stops).await;
        Ok(())
    });
    let listener = listener(socket, &shared, sources, handle);
    parts.spawn(LISTENER, async move {
        intake::serve(listener, intake_stops).await;
        Ok(())
    });
    Ok(Live {
        shared,
        parts,
        stop_intake,
        stop_events,
        writer,
        clock,
        adopted,
        restored,
        listen,
        proven,
    })
}

/// Refusals that come without end are recorded now and then, with their count.
async fn tell_refused(shared: Arc<Shared>) -> Ended {
    let mut every = tokio::time::interval(REFUSALS_PERIOD);
    loop {
        every.tick().await;
        shared.tell_refused(false);
    }
}

fn listener(
    socket: TcpListener,
    shared: &Shared,
    sources: Sources,
    enforcer: EnforcerHandle,
) -> Listener {
    Listener {
        socket,
        tls: sources.tls,
        admission: Arc::new(PushAdmission {
            terms: sources.terms,
            okta: shared.okta.clone(),
            enforcer,
            recorder: shared.recorder.clone(),
            refused_peers: Arc::clone(&shared.refused_peers),
            clock: Arc::clone(&shared.clock),
            boot_id: shared.boot_id.clone(),
            audit_required: sources.audit_required,
        }),
        limits: Limits::default(),
        counters: Arc::clone(&shared.listener),
    }
}

/// The enforcer waits for disk and kernel, so it has a thread of its own.
fn spawn_enforcer(
    parts: &mut Parts,
    enforcer: Enforcer,
    commands: CommandReceiver,
) -> Result<(), Error> {
    let (done, ended) = tokio::sync::oneshot::channel();
    let failed = |source| Error::System { operation: "start the enforcer's thread", source };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    std::thread::Builder::new()
        .name("enforcer".to_owned())
        .spawn(move || {
            let result = runtime.block_on(enforcer.run(commands));
            let _ = done.send(result.map_err(|e| e.to_string()));
        })
        .map_err(failed)?;
    parts.spawn(ENFORCER, async { ended.await.unwrap_or_else(|_| Err("it panicked".to_owned())) });
    Ok(())
}

fn pump(
    ring: Ring,
    enforcer: &mut Enforcer,
    recorder: &Recorder,
    tap: &CanaryTap,
    clock: &Arc<dyn Clock>,
    written: &Written,
) -> Result<Pump, Error> {
    let directory = enforcer.directory();
    let reader = enforcer.kernel().ring(ring)?;
    Pump::new(reader, recorder.clone(), directory, tap.clone(), Arc::clone(clock), written)
        .map_err(|source| Error::System { operation: "wait for kernel events", source })
}

fn spawn_pump(parts: &mut Parts, ring: Ring, pump: Pump, stop: watch::Receiver<bool>) {
    let part = match ring {
        Ring::Denials => DENIALS,
        Ring::Flows => FLOWS,
    };
    parts.spawn(part, async move { pump.run(stop).await.map_err(|e| e.to_string()) });
}

/// Tells when enforcement was proven for the first time.
async fn spawn_canary(
    parts: &mut Parts,
    enforcer: EnforcerHandle,
    events: mpsc::Receiver<CanaryEvent>,
    period: Duration,
) -> Result<watch::Receiver<bool>, Error> {
    let (proof, proven) = watch::channel(false);
    let canary = Canary::new(enforcer, events, period, proof).await;
    let canary = canary.map_err(|source| Error::System {
        operation: "listen on 127.0.0.1 for the canary",
        source,
    })?;
    parts.spawn("the canary", async move { match canary.run().await {} });
    Ok(proven)
}

fn spawn_keys(
    parts: &mut Parts,
    task: OktaKeyTask,
    mut withdrawn: mpsc::Receiver<grantd_grant::KeyId>,
    enforcer: EnforcerHandle,
) {
    parts.spawn("the key fetcher", async move {
        task.run().await;
        Ok(())
    });
    parts.spawn("the key watch", async move {
        while let Some(kid) = withdrawn.recv().await {
            tracing::warn!(%kid, "Okta withdrew a key; the grants behind it end");
            if enforcer.okta_key_withdrawn(kid).await.is_err() {
                break;
            }
        }
        Ok(())
    });
}

fn audit(config: &Config, boot_id: &str, clock: &dyn Clock) -> Result<(Recorder, Writer), Error> {
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| Error::Audit(e);
    let producer = Producer {
        product: "grantd".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host_id: config.host_id.to_string(),
        hostname: nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        boot_id: boot_id.to_owned(),
    };
    let spool = SpoolConfig {
        dir: config.audit.dir.clone(),
        segment_bytes: config.audit.segment_bytes,
        max_bytes: config.audit.max_bytes,
    };
    let (spool, recovery) = Spool::open(spool, producer).map_err(|e| failed(e.into()))?;
    let (recorder, writer) = Recorder::start(spool).map_err(|e| failed(e.into()))?;
    for event in recovery.events() {
        recorder.record(event, clock.now().unix_ms());
    }
    Ok((recorder, writer))
}

fn tell_started(config: &Config, enforcer: &Enforcer, recorder: &Recorder, clock: &dyn Clock) {
    let kind = if enforcer.adopted() { LifecycleKind::Adopt } else { LifecycleKind::Start };
    let mut event = Lifecycle::new(kind);
    event.config_sha256 = config.hash.to_string();
    event.live_grants = Some(enforcer.live_grants());
    let found = enforcer.coverage_only();
    let hooks = found.coverage.into_iter();
    let hooks =
        hooks.map(|c| Coverage { name: c.hook.to_owned(), active: c.attached, detail: c.detail });
    let threats = found.threats.into_iter().map(|t| Coverage {
        name: t.id.to_owned(),
        active: t.state == State::Closed,
        detail: format!("{}: {}", t.state.as_str(), t.reason),
    });
    event.coverage = hooks.chain(threats).collect();
    recorder.record(Event::Lifecycle(event), clock.now().unix_ms());
}

/// Says what of the guard is missing; a config that requires it is refused then.
fn tell_guard(config: &Config, enforcer: &mut Enforcer) -> Result<(), Error> {
    let state = enforcer.kernel().guard_state();
    let missing = state.missing();
    if config.guard == GuardMode::Required && !missing.is_empty() {
        return Err(Error::Guard { missing: missing.join("; ") });
    }
    let hooks: Vec<&str> = state.in_effect().collect();
    if missing.is_empty() {
        tracing::info!(hooks = hooks.len(), "the guard is in effect");
    } else {
        tracing::warn!(hooks = hooks.len(), "of the guard is missing: {}", missing.join("; "));
    }
    Ok(())
}

/// Where the kernel side of this config lies.
pub(super) fn setup(config: &Config) -> Result<Setup, Error> {
    let mount = kernel::cgroup2_mount()?;
    Ok(Setup {
        bpffs: config.enforcement.bpffs.clone(),
        cgroup_root: config.enforcement.cgroup_root.clone().unwrap_or_else(|| mount.clone()),
        slice: mount.join(config.enforcement.slice.as_path()),
        guard: config.guard != GuardMode::Off,
    })
}

/// What the enforcer goes by.
pub(super) fn settings(config: &Config, boot_id: &str) -> Result<Settings, Error> {
    let mount = kernel::cgroup2_mount()?;
    Ok(Settings {
        policy: Arc::clone(&config.policy),
        workloads: config
            .workloads
            .iter()
            .map(|w| WorkloadSettings {
                name: w.name.clone(),
                path: mount.join(w.cgroup.as_path()),
                launch: w.launch.clone(),
                callers: w.listen.iter().flat_map(callers).collect(),
                max_sockets: w.max_sockets,
                unix_sockets: w.unix_sockets.clone(),
                user_namespaces: w.user_namespaces,
                allow_privileged: w.allow_privileged,
            })
            .collect(),
        cgroup_mount: mount,
        unsynchronised_allowed: matches!(config.unsynchronised, Unsynchronised::Allow),
        boot_id: boot_id.to_owned(),
        canary_period: config.canary_period,
    })
}

fn callers(listen: &Listen) -> impl Iterator<Item = LetIn> + '_ {
    let protocol = match listen.protocol {
        grantd_grant::Protocol::Tcp => Protocol::TCP,
        grantd_grant::Protocol::Udp => Protocol::UDP,
    };
    let port = Port::new(listen.port);
    listen.from.iter().filter_map(move |host| {
        let (address, bits) = match host {
            HostPattern::Address(address) => (*address, if address.is_ipv4() { 32 } else { 128 }),
            HostPattern::Cidr(cidr) => (cidr.network(), u32::from(cidr.prefix_len())),
            // The config takes none: packets carry addresses.
            HostPattern::Name(_) | HostPattern::Wildcard(_) => return None,
        };
        let bits = if address.is_ipv4() { bits + 96 } else { bits };
        Some(LetIn { protocol, port, from: address.into(), bits })
    })
}

fn boot_id() -> Result<String, Error> {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map(|id| id.trim().to_owned())
        .map_err(|source| Error::System { operation: "read the boot id", source })
}

fn make_directory(path: &Path, mode: u32) -> Result<(), Error> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(Error::Directory { path: path.to_owned(), source: e })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
