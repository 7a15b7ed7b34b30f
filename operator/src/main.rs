//! The operator of GoD clusters. It does nothing yet: see `docs/ARCHITECTURE.md`, "What is not there yet".

fn main() -> anyhow::Result<()> {
    anyhow::bail!("god-operator does not run clusters yet; start nodes with `god dev` or `god-node`")
}
