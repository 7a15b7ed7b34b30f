//! Where a scenario plays: a namespace of its own, with one cluster of GoD unless it asks for more.

use crate::{forward::Forward, wait::until};
use anyhow::Context as _;
use clap::Args;
use god_client::Client as God;
use god_operator::crd::{GodCluster, Phase};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{collections::BTreeSet, process::Stdio, time::Duration};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// Who applies what users apply.
const MANAGER: &str = "god-e2e";
/// Lines of each thing that is printed of a failure.
const LINES: usize = 120;
/// The name of a scenario's cluster.
pub const CLUSTER: &str = "store";

/// What scenarios need to know about the Kubernetes they run on.
#[derive(Args, Clone, Debug)]
pub struct StageSettings {
    /// The namespace that the operator runs in
    #[arg(long, env = "GOD_E2E_OPERATOR", value_name = "NAMESPACE", default_value = "god-system")]
    pub operator: String,
    /// Reach services by kubectl port-forward, where their names and addresses lead nowhere from here
    #[arg(long, env = "GOD_E2E_FORWARD")]
    pub forward: bool,
    /// The image of operator and nodes, where it is not god:VERSION
    #[arg(long, env = "GOD_E2E_IMAGE", value_name = "NAME:TAG")]
    pub image: Option<String>,
    /// For how many seconds nothing must be written in the scenario `rest`, at most 1,000
    #[arg(long, env = "GOD_E2E_REST", value_name = "SECONDS", default_value = "90",
        value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub rest: u16,
    /// Leave a failed scenario's namespace where it is
    #[arg(long)]
    pub keep: bool,
}

/// A namespace, and the way to it.
pub struct Stage {
    /// The API server.
    pub client: Client,
    /// The scenario's own namespace.
    pub namespace: String,
    /// Of the run.
    pub settings: StageSettings,
    /// Ways to services that were opened.
    forwards: Mutex<Vec<Forward>>,
}

impl Stage {
    /// Makes the namespace of a scenario.
    ///
    /// # Errors
    /// Where the API server cannot be reached, or does not take it.
    pub async fn set(scenario: &str, settings: &StageSettings) -> anyhow::Result<Stage> {
        let client = Client::try_default().await.context("cannot find out how to reach the API server")?;
        let namespace = format!("e2e-{scenario}-{:04x}", rand::random::<u16>());
        let object = serde_json::from_value(json!({ "metadata": { "name": namespace } }))?;
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await?;
        Ok(Stage { client, namespace, settings: settings.clone(), forwards: Mutex::default() })
    }

    /// Removes the namespace, and waits until it is gone: a namespace that cannot end is a fault of its own.
    ///
    /// # Errors
    /// Where it does not end.
    pub async fn strike(&self, failed: bool) -> anyhow::Result<()> {
        if failed && self.settings.keep {
            println!("  namespace {} is left where it is", self.namespace);
            return Ok(());
        }
        self.remove_namespace().await
    }

    /// Removes the namespace, whatever is in it.
    ///
    /// # Errors
    /// Where it does not end.
    pub async fn remove_namespace(&self) -> anyhow::Result<()> {
        let all = Api::<Namespace>::all(self.client.clone());
        if all.get_opt(&self.namespace).await?.is_some() {
            all.delete(&self.namespace, &DeleteParams::default()).await?;
        }
        until("the namespace's end", Duration::from_secs(120), async || {
            match all.get_opt(&self.namespace).await? {
                None => Ok(()),
                Some(left) => {
                    let conditions = left.status.and_then(|status| status.conditions).unwrap_or_default();
                    let why = conditions.into_iter().filter(|found| found.status == "True");
                    let why: Vec<String> = why.filter_map(|found| found.message).collect();
                    anyhow::bail!("it is still there: {}", why.join("; "))
                }
            }
        })
        .await
    }

    /// Prints what there is, for whoever looks into a failure.
    pub async fn describe(&self) {
        let namespace = self.namespace.as_str();
        let operator = self.settings.operator.as_str();
        for arguments in [
            vec!["--namespace", namespace, "get", "god,statefulsets,pods,pvc", "--output=wide"],
            vec!["--namespace", namespace, "get", "god", "--output=yaml"],
            vec!["--namespace", namespace, "get", "events", "--sort-by=.lastTimestamp"],
            vec![
                "--namespace",
                namespace,
                "logs",
                "--selector=app.kubernetes.io/name=god",
                "--tail=30",
                "--prefix",
            ],
            vec!["--namespace", operator, "get", "pods", "--output=wide"],
            vec![
                "--namespace",
                operator,
                "logs",
                "--selector=app.kubernetes.io/name=god-operator",
                "--tail=80",
            ],
        ] {
            println!("--- kubectl {}", arguments.join(" "));
            match kubectl(&arguments).await {
                Ok((_, text)) => {
                    let lines: Vec<&str> = text.lines().collect();
                    println!("{}", lines[lines.len().saturating_sub(LINES)..].join("\n"));
                }
                Err(error) => println!("{error:#}"),
            }
        }
    }

    /// The objects of GoD in this namespace.
    pub fn clusters(&self) -> Api<GodCluster> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The pods in this namespace.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Names of the volume claims of a cluster.
    ///
    /// # Errors
    /// Where the API server does not answer.
    pub async fn volumes(&self, cluster: &str) -> anyhow::Result<Vec<String>> {
        let api = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &self.namespace);
        let mine = ListParams::default().labels(&format!("god-db.io/cluster={cluster}"));
        Ok(api.list(&mine).await?.iter().map(|claim| claim.name_any()).collect())
    }

    /// Makes a cluster, or changes how many nodes it has, as `kubectl apply --server-side` does.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn apply(&self, name: &str, nodes: u32) -> anyhow::Result<()> {
        self.apply_object(name, &cluster(name, nodes)).await
    }

    /// The same, of a cluster that a scenario wants otherwise.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn apply_object(&self, name: &str, object: &Value) -> anyhow::Result<()> {
        self.clusters().patch(name, &PatchParams::apply(MANAGER), &Patch::Apply(object)).await?;
        Ok(())
    }

    /// Waits until a cluster is as it should be, with so many nodes.
    ///
    /// # Errors
    /// After `limit`.
    pub async fn ready(&self, name: &str, nodes: usize, limit: Duration) -> anyhow::Result<GodCluster> {
        until(&format!("{name} with {nodes} nodes"), limit, async || {
            let found = self.clusters().get(name).await?;
            let status = found.status.clone().unwrap_or_default();
            let is_told = status.observed_generation == found.metadata.generation;
            let is_up = status.nodes.len() == nodes && status.nodes.iter().all(|node| node.state == "up");
            if is_told && status.phase == Phase::Ready && is_up && status.operation.is_none() {
                return Ok(found);
            }
            anyhow::bail!("{}", in_words(&found))
        })
        .await
    }

    /// A client of a cluster, by way of its service.
    ///
    /// # Errors
    /// Where nobody answers for half a minute.
    pub async fn connect(&self, name: &str) -> anyhow::Result<God> {
        let server = if self.settings.forward {
            let forward = Forward::open(&self.namespace, name).await?;
            let address = forward.address.clone();
            self.forwards.lock().push(forward);
            address
        } else {
            format!("{name}.{}.svc:7000", self.namespace)
        };
        until("the service's answer", Duration::from_secs(30), async || {
            Ok(God::builder().servers([server.clone()]).timeout(Duration::from_secs(10)).connect().await?)
        })
        .await
    }

    /// Kills the operator, as a node that dies would: nothing is given back.
    ///
    /// # Errors
    /// What the API server says.
    pub async fn kill_operator(&self) -> anyhow::Result<()> {
        let api = Api::<Pod>::namespaced(self.client.clone(), &self.settings.operator);
        let mine = ListParams::default().labels("app.kubernetes.io/name=god-operator");
        for pod in api.list(&mine).await? {
            api.delete(&pod.name_any(), &DeleteParams::default().grace_period(0)).await?;
        }
        Ok(())
    }
}

/// Runs kubectl, and says what it printed and whether it was content.
///
/// # Errors
/// Where it cannot be run, or takes more than a minute.
pub async fn kubectl(arguments: &[&str]) -> anyhow::Result<(bool, String)> {
    ran("kubectl", arguments, "").await
}

/// Runs a program with what it reads, and says what it printed and whether it was content.
///
/// # Errors
/// Where it cannot be run, or takes more than a minute.
pub async fn ran(program: &str, arguments: &[&str], input: &str) -> anyhow::Result<(bool, String)> {
    let what = || format!("{program} {}", arguments.join(" "));
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {}", what()))?;
    let stdin = child.stdin.take();
    let work = async {
        let write = async {
            if let Some(mut stdin) = stdin {
                // Who does not read to the end says why.
                let _ = stdin.write_all(input.as_bytes()).await;
            }
        };
        futures::future::join(write, child.wait_with_output()).await.1
    };
    let ran = tokio::time::timeout(Duration::from_secs(60), work).await;
    let ran = ran.with_context(|| format!("{} took too long", what()))??;
    let text = [ran.stdout, ran.stderr].concat();
    Ok((ran.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

/// UUIDs of a cluster's members.
pub fn members(found: &GodCluster) -> BTreeSet<String> {
    let nodes = found.status.iter().flat_map(|status| &status.nodes);
    nodes.map(|node| node.uuid.clone()).collect()
}

/// The cluster of a scenario: small, and without pauses that are there for people.
pub fn cluster(name: &str, nodes: u32) -> Value {
    json!({
        "apiVersion": "god-db.io/v1alpha1",
        "kind": "GodCluster",
        "metadata": { "name": name },
        "spec": {
            "nodePools": [{
                "name": "main",
                "replicas": nodes,
                "memory": "64MiB",
                "storage": { "size": "1Gi" },
                "pod": { "terminationGracePeriodSeconds": 20 },
            }],
            "volumes": { "quarantine": "1s", "deletionPolicy": "delete" },
        },
    })
}

/// A cluster's status in a line.
fn in_words(found: &GodCluster) -> String {
    let status = found.status.clone().unwrap_or_default();
    let mut words =
        vec![format!("{:?}, {} ready, {} members", status.phase, status.nodes_ready, status.nodes.len())];
    if let Some(operation) = status.operation {
        words.push(format!("{} {} {}", operation.what, operation.phase, operation.progress));
    }
    if let Some(waiting) = status.waiting {
        words.push(format!("waits: {waiting}"));
    }
    if let Some(blocked) = status.blocked {
        words.push(format!("{}: {} ({})", blocked.reason, blocked.message, blocked.action));
    }
    if status.observed_generation != found.metadata.generation {
        words.push("the spec was not seen yet".to_owned());
    }
    words.join("; ")
}

/// The same, whose nodes take no more than so much a second when data move, so that a change takes a while.
pub fn slow(nodes: u32, rate: &str) -> Value {
    let mut object = cluster(CLUSTER, nodes);
    object["spec"]["settings"] = json!({ "transferRate": rate });
    object
}
