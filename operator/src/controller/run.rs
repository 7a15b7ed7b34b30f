//! Turns for all clusters, while this process leads.

use super::{
    build::MANAGER,
    observe::{Cache, Scope},
    reconcile::{Context, after_failure, reconcile},
    serve::{Health, recorder, serve},
};
use crate::crd::GodCluster;
use anyhow::Context as _;
use futures::{Stream, StreamExt};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, CustomResourceExt as _, ResourceExt as _,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
    runtime::{
        Controller,
        controller::Config,
        events::{Recorder, Reporter},
        watcher,
    },
};
use kube_lease_manager::LeaseManagerBuilder;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

/// Another process takes over so many seconds after this one fell silent.
const LEASE_SECONDS: u64 = 15;
/// This one renews so many seconds before that.
const LEASE_GRACE_SECONDS: u64 = 5;
/// What comes in quick succession makes one turn.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Changes that wait to be passed on.
const WAITING: usize = 1_024;

/// How the operator runs.
#[derive(Clone, Debug)]
pub struct OperatorSettings {
    /// Which namespaces it looks after.
    pub scope: Scope,
    /// The namespace that it runs in: its lease is there.
    pub own_namespace: String,
    /// Its name among those who would lead.
    pub identity: String,
    /// Whether it waits until it leads. Off only where there is surely one process.
    pub elects: bool,
    /// The image where a spec names none.
    pub image: String,
    /// Where it listens for health and metrics.
    pub http: SocketAddr,
    /// Clusters that have their turn at the same time.
    pub concurrency: u16,
}

/// Brings the CustomResourceDefinition to the API server, in place of an older one.
pub async fn install() -> anyhow::Result<()> {
    let client = Client::try_default().await.context("cannot find out how to reach the API server")?;
    let definition = GodCluster::crd();
    let api = Api::<CustomResourceDefinition>::all(client);
    let how = PatchParams::apply(MANAGER).force();
    api.patch(&definition.name_any(), &how, &Patch::Apply(&definition))
        .await
        .context("the API server does not take the definition")?;
    Ok(())
}

/// Runs until it is told to stop, or does not lead any more: then the process should end, and begin anew.
pub async fn run(settings: OperatorSettings) -> anyhow::Result<()> {
    let metrics = recorder().context("cannot collect metrics")?;
    let client = Client::try_default().await.context("cannot find out how to reach the API server")?;
    let health = Health::default();
    let door = tokio::spawn(serve(settings.http, health.clone(), metrics));
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let work = async {
        let mut stop = std::pin::pin!(stop);
        if !settings.elects {
            return tokio::select! {
                led = lead(&settings, client, &health) => led,
                () = &mut stop => Ok(()),
            };
        }
        let lease = LeaseManagerBuilder::new(client.clone(), "god-operator")
            .with_namespace(&settings.own_namespace)
            .with_identity(&settings.identity)
            .with_duration(LEASE_SECONDS)
            .with_grace(LEASE_GRACE_SECONDS)
            .build()
            .await
            .context("cannot take part in the election; may this account read and write leases?")?;
        let (mut leads, keeping) = lease.watch().await;
        health.set_ready(true);
        tracing::info!("standing by");
        let led = tokio::select! {
            led = elected(&settings, client, &health, &mut leads) => led,
            () = &mut stop => Ok(()),
        };
        // Letting go of the channel gives the lease back, also when the process is told to stop: nobody waits for it to
        // run out then.
        drop(leads);
        let _ = tokio::time::timeout(Duration::from_secs(3), keeping).await;
        led
    };
    tokio::select! {
        worked = work => worked,
        served = door => served.context("the HTTP door crashed")?.context("the HTTP door failed"),
    }
}

/// Waits until this process leads, and leads for as long as it does.
async fn elected(
    settings: &OperatorSettings,
    client: Client,
    health: &Health,
    leads: &mut watch::Receiver<bool>,
) -> anyhow::Result<()> {
    leads.wait_for(|leads| *leads).await.context("the election ended")?;
    tracing::info!("leading");
    metrics::gauge!("god_operator_leads").set(1.0);
    tokio::select! {
        led = lead(settings, client, health) => led,
        _ = leads.wait_for(|leads| !*leads) => Err(anyhow::anyhow!("another process leads now")),
    }
}

async fn lead(settings: &OperatorSettings, client: Client, health: &Health) -> anyhow::Result<()> {
    let (cache, touched) = Cache::start(&client, &settings.scope);
    let monitored = client.list_api_group_resources("monitoring.coreos.com/v1").await.is_ok();
    let reporter = Reporter { controller: "god-operator".into(), instance: Some(settings.identity.clone()) };
    let recorder = Recorder::new(client.clone(), reporter);
    let context = Arc::new(Context::new(client.clone(), cache, recorder, &settings.image, monitored));
    // Watches are read from here on, and turns wait for the first answer of each: an empty memory is no evidence, but
    // it would make for idle reads. Where more changes than can be passed on, everybody has a turn.
    let (pass_on, passed) = mpsc::channel(WAITING);
    let (overflow, overflowed) = mpsc::channel(1);
    let watching = tokio::spawn(async move {
        let mut touched = touched;
        while let Some(object) = touched.next().await {
            if pass_on.try_send(object).is_err() {
                let _ = overflow.try_send(());
            }
        }
    });
    let filled = tokio::time::timeout(Duration::from_secs(60), context.cache.ready());
    filled
        .await
        .context("the API server does not answer watches; may this account list and watch what it should?")?
        .context("a watch ended")?;
    health.set_ready(true);
    let clusters: Api<DeserializeGuard<GodCluster>> = settings.scope.api(client);
    let config = Config::default().concurrency(settings.concurrency).debounce(DEBOUNCE);
    Controller::new(clusters, watcher::Config::default())
        .with_config(config)
        .reconcile_on(received(passed))
        .reconcile_all_on(received(overflowed))
        .run(reconcile, after_failure, context)
        .for_each(|_| async {})
        .await;
    watching.abort();
    Ok(())
}

fn received<T: Send + 'static>(from: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send + 'static {
    futures::stream::unfold(from, |mut from| async move { Some((from.recv().await?, from)) })
}
