//! Operations that somebody asks for: planned, begun, undone.

use super::{
    Upkeep,
    drive::{Driven, TIMEOUT, to_plan},
    sizes::{ALL, gather_sizes},
};
use crate::{
    consensus::RegisterError,
    peer::CallError,
    ring::{Plan, Refused, Sizes, Wish, begin, cancel, lost_by, plan},
};
use god_proto::{
    ids::NodeId,
    peer::{Moving, request},
    ring::Ring,
    v1,
};
use std::sync::Arc;

impl Upkeep {
    /// What an operation would do.
    pub async fn plan_operation(&self, wish: &v1::Wish) -> Result<(Arc<Ring>, Plan, Sizes), Driven> {
        let ring = self.ring.get().ok_or(RegisterError::NoRing)?;
        let asked = Wish::of(wish).ok_or_else(|| Driven::Refused("there is no wish".to_owned()))?;
        let sizes = gather_sizes(self, &ring, true, ALL).await;
        let plan =
            plan(&to_plan(&ring), &asked, &sizes).map_err(|refused| Driven::Refused(refused.to_string()))?;
        Ok((ring, plan, sizes))
    }

    /// Begins an operation, if it can be planned now.
    pub async fn begin_operation(&self, id: &str, wish: &v1::Wish) -> Result<(), Driven> {
        let ring = self.ring.get().ok_or(RegisterError::NoRing)?;
        let known = ring.operations().iter().any(|operation| operation.id == id)
            || ring.document().ended.iter().any(|ended| ended.id == id);
        if !known {
            // Refused at once rather than when its turn comes, where that is known already.
            let begun = begin(&ring, id, wish, &self.away(&ring)).map_err(RegisterError::from)?;
            let begun = begun.unwrap_or_else(|| Ring::clone(&ring));
            let asked = Wish::of(wish).ok_or_else(|| Driven::Refused("there is no wish".to_owned()))?;
            if let Some(node) = lost_by(wish).filter(|node| ring.node(*node).is_some())
                && self.answers(node).await
            {
                return Err(Driven::Refused(format!(
                    "node {node} answers, so its data are not lost; leave --lost away, or stop that node first"
                )));
            }
            let measured =
                async |halves| plan(&to_plan(&begun), &asked, &gather_sizes(self, &ring, halves, ALL).await);
            let planned = match measured(false).await {
                // Half of an arc may have a place.
                Err(Refused::NoRoom { .. }) => measured(true).await,
                planned => planned,
            };
            planned.map_err(|refused| Driven::Refused(refused.to_string()))?;
        }
        self.register.change(self.change_timeout, |ring| begin(ring, id, wish, &self.away(ring))).await?;
        Ok(())
    }

    /// Whether a node is there, whatever it says.
    async fn answers(&self, node: NodeId) -> bool {
        let asked = self.ask_node(node, 0, TIMEOUT, request::Body::Moving(Moving {}));
        node == self.me || matches!(asked.await, Ok(_) | Err(CallError::Refused(_)))
    }

    /// Undoes an operation.
    pub async fn cancel_operation(&self, id: &str) -> Result<(), Driven> {
        self.register.change(self.change_timeout, |ring| cancel(ring, id, &self.away(ring))).await?;
        Ok(())
    }
}
