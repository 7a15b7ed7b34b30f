//! What was wished for of an object, on the object: so that a field that is not wished for any more is seen to be
//! there.

use super::{Object, ObjectKind};
use serde_json::{Value, json};

/// Stands for all that was wished for of an object.
const WISH: &str = "god-db.io/wish";
/// What has steps of its own, and is no matter of the rest.
const OWN_STEPS: [&str; 2] =
    ["/spec/replicas", "/spec/volumeClaimTemplates/0/spec/resources/requests/storage"];

/// The object with a stamp of its body. A wish that lacks a field has another stamp than one that has it, and applying
/// it takes the field away.
pub(super) fn stamped(mut object: Object) -> Object {
    let mut body = object.body.clone();
    if object.kind == ObjectKind::StatefulSet {
        for path in OWN_STEPS {
            if let Some(value) = body.pointer_mut(path) {
                *value = Value::Null;
            }
        }
    }
    body.sort_all_objects();
    object.body["metadata"]["annotations"][WISH] = json!(hash(&body.to_string()));
    object
}

/// FNV-1a: what it gives must be the same in every build, or an upgrade of the operator would write, or restart, all.
pub(super) fn hash(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
