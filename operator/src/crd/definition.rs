//! The YAML that Kubernetes is told the type with.

use super::GodCluster;
use kube::CustomResourceExt as _;
use serde_json::Value;

const HEAD: &str = "# Made by `god-operator crd`. A test fails when it differs from the types.\n";

/// The CustomResourceDefinition, as YAML.
pub fn definition() -> Result<String, serde_yaml::Error> {
    // By way of JSON, so that numbers are written as JSON has them.
    let mut definition = serde_json::to_value(GodCluster::crd()).unwrap_or_default();
    shorten(&mut definition);
    Ok(format!("{HEAD}{}", serde_yaml::to_string(&definition)?))
}

/// Leaves the first paragraph of each description: Kubernetes' own types bring essays along.
fn shorten(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get_mut("description")
                && let Some(end) = text.find("\n\n")
            {
                text.truncate(end);
            }
            map.values_mut().for_each(shorten);
        }
        Value::Array(list) => list.iter_mut().for_each(shorten),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    /// `UPDATE_GOLDEN=1 cargo test` writes the file anew.
    #[test]
    fn the_definition_in_the_repository_is_that_of_the_types() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let made = definition().unwrap();
        for place in ["crds/godclusters.god-db.io.yaml", "charts/god/crds/godclusters.god-db.io.yaml"] {
            let path = root.join(place);
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, &made).unwrap();
            }
            let kept = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                kept == made,
                "{place} differs from the types: run `god-operator crd > {place}`, or the test with UPDATE_GOLDEN=1"
            );
        }
        // Without the remark at its top. `.ci/chart` says whether the rest of it is as the chart has it.
        let place = "dist/god-operator.yaml";
        let kept = fs::read_to_string(root.join(place)).unwrap_or_default();
        let (_, definition) = made.split_once('\n').unwrap();
        assert!(
            kept.contains(definition),
            "{place} differs from the types: UPDATE_GOLDEN=1 .ci/chart HELM writes it anew"
        );
    }
}
